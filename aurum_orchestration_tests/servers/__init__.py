"""Real servers for tests that pip cannot install: provisioned once into a cache, then started from there by fixtures.

``python -m aurum_orchestration_tests.servers NAME...`` provisions; tests only look whether an engine is there.
"""

from __future__ import annotations

from aurum_orchestration.local.engines.cache import Engine


def absence(engine: Engine) -> str:
    """Why a test that needs an engine cannot run, and what helps."""
    command = f".venv/bin/python -m aurum_orchestration_tests.servers {engine.name}"
    return f"{engine.title} is not provisioned ({engine.cost}, once): {command}"
