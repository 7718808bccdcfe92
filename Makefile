# Every target says what it does: `make help`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# tests start hundreds of processes: what they import is compiled once, whatever the machine's default (`make clean` removes it)
export PYTHONDONTWRITEBYTECODE :=

PYTHON ?=
BIN := .venv/bin
STAMP := .venv/.setup-done
DEMO := .aurum

.PHONY: help setup demo demo-trino ui trino test test-thorough bench bench-peers bench-trino bench-compare check docs pictures lock clean

help: ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | column -t -s "$$(printf '\t')"

setup: $(STAMP) ## Make the environment in .venv from the locked packages (Python 3.11 or 3.12).
	@echo '.venv is ready'

$(STAMP): constraints/base.txt pyproject.toml
	@tools/setup $(PYTHON)
	@touch $@

demo: $(STAMP) ## Build a lake of real flights in .aurum; let Dagster find and compact its sick tables; show the proof.
	@$(BIN)/python -m aurum_orchestration.local.demo $(if $(DAYS),--days $(DAYS)) $(if $(PICTURE),--picture $(PICTURE))

demo-trino: $(STAMP) ## The same story through a Trino of this machine, with both engines' figures side by side.
	@$(BIN)/python -m aurum_orchestration.local.demo --through-trino $(if $(DAYS),--days $(DAYS))

ui: $(STAMP) ## Open Dagster on the demo's lake at localhost:3000 (PORT=n for another; Ctrl-C ends it).
	@test -f $(DEMO)/demo.json || $(MAKE) demo
	@cd $(DEMO) && fleet=$(CURDIR)/fleet.yaml && if [ -f fleet.yaml ]; then fleet=$$PWD/fleet.yaml; fi && \
	  AURUM_HOME=$$PWD AURUM_FLEET=$$fleet DAGSTER_HOME=$$PWD/dagster \
	  PYTHONWARNINGS='ignore:Function' $(CURDIR)/$(BIN)/dagster dev --workspace ../workspace.yaml --port $(or $(PORT),3000)

trino: $(STAMP) ## Start a Trino on this machine, its tables in .aurum (the first time it fetches 540 MB; DOWN=1 ends it).
	@AURUM_HOME=$(CURDIR)/$(DEMO) $(BIN)/aurum local $(if $(DOWN),down,up --with trino)

test: $(STAMP) ## Run the tests (COVERAGE=1: measure coverage and hold its floors, which takes half as long again).
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m pytest -n 2 --dist worksteal $(if $(COVERAGE),--cov --cov-report=)
	@$(if $(COVERAGE),$(BIN)/python tools/coverage_floor.py)

test-thorough: $(STAMP) ## Run the long tests too: kills at every step, a minute of writers, many random histories.
	@AURUM_THOROUGH=1 $(BIN)/python -m pytest -n 2 --dist worksteal

bench: $(STAMP) ## Measure the figures; results go to benchmarks/results.
	@$(BIN)/python -m benchmarks.run

bench-peers: $(STAMP) ## Measure bin-packing by Spark, and by Trino where it is, beside ours; says what to get first.
	@$(BIN)/python -m benchmarks.peers $(if $(ROUNDS),--rounds $(ROUNDS))

bench-trino: $(STAMP) ## Measure both engines through a Trino of this machine; says what to get first where it is missing.
	@$(BIN)/python -m benchmarks.run --trino

bench-compare: $(STAMP) ## Fail when a ratio of the last bench is worse than the stored one beyond its spread.
	@$(BIN)/python -m benchmarks.compare

check: $(STAMP) ## Lint, format, types, dead and duplicated code, drift of generated docs.
	@tools/check

docs: $(STAMP) ## Write the generated docs anew.
	@$(BIN)/python tools/generate_docs.py

pictures: $(STAMP) ## Take the pictures of Dagster in docs/images anew (needs Chromium; makes the demo where there is none).
	@test -f $(DEMO)/demo.json || $(MAKE) demo
	@$(BIN)/python tools/pictures.py

COMPILE = $(BIN)/uv pip compile pyproject.toml --python-version 3.11 --python-platform linux --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-annotate --no-header --quiet
IMAGE_EXTRAS := ui postgres postgres-storage s3 notify trino

lock: $(STAMP) ## Pin all packages with hashes in constraints/base.txt, the image's in image.txt (UPGRADE=1: the newest that fit).
	@$(COMPILE) --all-extras $(if $(UPGRADE),--upgrade) --output-file constraints/base.txt
	@$(COMPILE) $(IMAGE_EXTRAS:%=--extra %) --constraints constraints/base.txt --output-file constraints/image.txt
	@for lock in base image; do \
	  printf 'constraints/%s.txt: %s packages\n' "$$lock" "$$(grep -c '==' "constraints/$$lock.txt")"; done

clean: ## Remove the demo's data, caches and reports; .venv stays. Ends a Trino of .aurum.
	@[ ! -d $(DEMO)/local ] || $(MAKE) trino DOWN=1
	@rm -rf $(DEMO) .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
