"""``aurum maintenance`` on a real lake: its shape, its order, its exit codes, and the schedules it switches on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import jsonschema
import pytest

from aurum_orchestration.cli.reference import output_schema
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.interfaces import PolicyLookup, TableHealth
from aurum_orchestration_tests.command import Outcome, aurum

TRADES = "lake.market.trades"
NINE = ["vacuum", "reindex", "cleanup", "logs", "sessions", "views", "stats", "bloat", "backup"]


def told(*arguments: str, code: int = 0) -> Outcome:
    outcome = aurum("maintenance", *arguments, "--output", "json")
    assert outcome.code == code, outcome.err
    jsonschema.validate(outcome.json, output_schema("maintenance"))
    return outcome


def operations(outcome: Outcome) -> list[str]:
    return [name for name in outcome.json if name not in {"schema_version", "metadata"}]


def test_each_operation_has_its_object_with_counts_and_tables(home: Path) -> None:
    outcome = told("--operation", "compaction", "--operation", "reindex", "--table", "lake.market.*")
    assert operations(outcome) == ["compaction", "reindex"]
    compaction = outcome.json["compaction"]
    assert (compaction["status"], compaction["operation"]) == ("completed", "compaction")
    assert compaction["files_rewritten"] == compaction["details"][TRADES]["files_rewritten"] == 60
    assert compaction["errors"] == []
    assert outcome.json["reindex"]["status"] == "skipped"
    assert outcome.json["reindex"]["message"] == "lake: no reindex"
    assert outcome.json["metadata"]["database"] == "lake"
    assert outcome.json["metadata"]["dry_run"] is False


def test_all_is_the_nine_in_their_order_on_sql_backends_unless_another_is_named(
    shared_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    measure = IcebergMaintenanceBackend.measure

    def counted(self: Any, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        measured.append(len(tables))
        return measure(self, tables, policy)

    monkeypatch.setattr(IcebergMaintenanceBackend, "measure", counted)
    nothing = told("--all", "--dry-run")
    assert operations(nothing) == NINE
    assert {nothing.json[name]["status"] for name in NINE} == {"skipped"}
    assert "--backend names another: lake (iceberg)" in nothing.json["vacuum"]["message"]
    assert nothing.json["metadata"]["database"] == []
    lake = told("--all", "--backend", "iceberg", "--dry-run")
    assert operations(lake) == NINE
    assert measured == [4]  # once for all nine
    assert {name for name in NINE if lake.json[name]["status"] == "planned"} == {"stats", "bloat", "backup"}
    assert not (shared_home / "history.db").exists()


@pytest.mark.usefixtures("shared_home")
def test_the_text_says_why_nothing_was_done() -> None:
    lines = aurum("maintenance", "--operation", "manifests", "--dry-run").out.splitlines()
    assert lines[0].split() == ["manifests", "skipped", "4", "tables:", "4", "skipped"]
    assert any(line.startswith("  healthy: at most 1 manifest") for line in lines[1:])


def test_it_goes_on_after_a_failure_and_exits_with_1(home: Path) -> None:
    for file in (home / "warehouse" / "market" / "trades" / "data").rglob("*.parquet"):
        file.unlink()
    outcome = told("--operation", "compaction", "--operation", "stats", code=1)
    assert outcome.json["compaction"]["status"] == "failed"
    assert [problem["table"] for problem in outcome.json["compaction"]["errors"]] == [TRADES]
    assert operations(outcome) == ["compaction", "stats"]


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "Give --all, or --operation with one of: backup, bloat, cleanup, compaction"),
        (["--all", "--operation", "stats"], "Give one of them."),
        (["--operation", "compacton"], "Did you mean 'compaction'?"),
        (["--operation", "stats", "--backend", "lak"], "Did you mean 'lake'?"),
        (["--operation", "stats", "--table", "lake.market.tradez"], "Did you mean 'lake.market.trades'?"),
        (["--schedule", "daily", "--all"], "Leave --operation, --all, --backend and --table out."),
        (["--schedule", "daily"], "Set it to the folder that holds dagster.yaml"),
    ],
)
@pytest.mark.usefixtures("shared_home")
def test_bad_usage_exits_with_2_and_says_what_would_be_right(
    arguments: list[str], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    outcome = aurum("maintenance", *arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert hint in " ".join(outcome.err.replace("│", " ").split())


@pytest.mark.usefixtures("shared_home")
def test_a_schedule_is_switched_on_in_the_instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")

    def running() -> list[str]:
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            return [state.name for state in instance.all_instigator_state() if state.status.value == "RUNNING"]

    dry = aurum("maintenance", "--schedule", "monthly", "--dry-run")
    assert dry.code == 0
    assert dry.out.startswith("monthly_reindex would be switched on: 0 4 * * 0#1 in UTC")
    assert running() == []
    on = aurum("maintenance", "--schedule", "monthly", "--output", "json")
    assert on.code == 0, on.err
    jsonschema.validate(on.json, output_schema("schedule"))
    assert on.json[0]["switched_on"] is True
    assert running() == ["monthly_reindex"]
