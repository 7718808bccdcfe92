"""The job ``maintenance`` and the field ``respect`` on a real lake."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg
import pytest
import yaml

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.interfaces import PolicyLookup, TableHealth
from aurum_orchestration_tests.dagster.conftest import Location
from aurum_orchestration_tests.dagster.test_jobs import failure, observations, output_metadata

SHUT = {"calendar": {"blackouts": ["00:00-24:00"]}}


def write_policy(location: Location, **policy: Any) -> None:
    fleet = yaml.safe_load(location.settings.fleet.read_text())
    fleet["policy"] |= policy
    location.settings.fleet.write_text(yaml.safe_dump(fleet))


def recorded(location: Location) -> list[tuple[str, str]]:
    """(operation, table) of what the history has, the oldest first."""
    with location.history as history:
        return [
            (str(one.config.operation_type), one.config.target_table) for one in reversed(history.operations(limit=50))
        ]


def test_without_operations_the_planner_decides(location: Location) -> None:
    before = location.snapshots()
    result = location.run("maintenance")
    assert result.success
    assert output_metadata(result)["tables_completed"] == 1
    assert set(observations(result)) == {"trades"}
    assert ("compaction", "lake.market.trades") in recorded(location)
    assert {name for name, now in location.snapshots().items() if now != before[name]} == {"trades"}
    again = location.run("maintenance")
    assert again.success
    assert "tables_completed" not in output_metadata(again)


def test_the_planners_windows_hold(location: Location) -> None:
    write_policy(location, **SHUT)
    result = location.run("maintenance")
    assert result.success
    assert recorded(location) == []
    named = location.run("maintenance", operations=["compaction"], tables=["lake.market.trades"])
    assert output_metadata(named)["tables_completed"] == 1


def test_operations_are_done_in_their_order_with_parameters_of_their_own(location: Location) -> None:
    result = location.run(
        "maintenance",
        tables=["lake.market.trades"],
        operations=["stats", "compaction", "backup"],
        parameters={"stats": {"sample_rows": 0}, "backup": {"keep_days": 3, "name": "before_{timestamp}"}},
    )
    assert result.success
    assert [operation for operation, _ in recorded(location)] == ["stats", "compaction", "backup"]
    report = output_metadata(result)["report"]
    assert report.startswith("3 operations on 1 table: 3 completed")
    assert "| lake.market.trades | backup | completed |" in report
    with location.history as history:
        parameters = {str(one.config.operation_type): one.config.parameters for one in history.operations()}
    assert parameters == {
        "stats": {"sample_rows": 0},
        "compaction": {},
        "backup": {"keep_days": 3, "name": "before_{timestamp}"},
    }


@pytest.mark.parametrize(("parameters", "again"), [({}, 1), ({"compaction": {"min_input_files": 4}}, 2)])
def test_tables_are_measured_once_and_then_those_that_an_operation_changed(
    location: Location, monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any], again: int
) -> None:
    """With parameters of the run's own, the plots have what the policies say, and the rounds what these do."""
    asked: list[set[str]] = []
    measure = IcebergMaintenanceBackend.measure

    def counted(self: Any, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        asked.append({table.name for table in tables})
        return measure(self, tables, policy)

    monkeypatch.setattr(IcebergMaintenanceBackend, "measure", counted)
    result = location.run(
        "maintenance",
        operations=["retention", "manifests", "compaction", "retention", "manifests"],
        parameters=parameters,
    )
    assert result.success
    assert recorded(location) == [("compaction", "lake.market.trades")]
    assert asked == [{"trades", "curves", "hubs", "odd.name"}, *[{"trades"}] * again]


def test_a_dry_run_changes_nothing(location: Location) -> None:
    before = location.snapshots()
    result = location.run("maintenance", operations=["compaction", "backup"], dry_run=True)
    assert result.success
    assert output_metadata(result)["tables_planned"] > 1
    assert location.snapshots() == before
    assert not (location.home / "history.db").exists()


def test_a_budget_counts_over_all_operations(location: Location) -> None:
    result = location.run("maintenance", operations=["stats", "compaction"], tables=["lake.market.*"], max_tables=1)
    assert result.success
    assert {table for _, table in recorded(location)} <= {
        "lake.market.trades",
        "lake.market.curves",
        "lake.market.hubs",
    }
    worked = set(observations(result))
    assert len(worked) == 1
    assert "the budget of 1 table is used up" in output_metadata(result)["report"]


def test_an_operation_that_no_backend_has_is_told_and_fails_nothing(location: Location) -> None:
    result = location.run("maintenance", operations=["reindex", "compaction"])
    assert result.success
    assert "- no backend of the fleet has reindex" in output_metadata(result)["report"]
    assert output_metadata(result)["tables_completed"] == 1


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"operations": ["compacton"]}, "Did you mean 'compaction'?"),
        ({"operations": ["stats"], "parameters": {"vacuum": {"quarantine": False}}}, "Add vacuum to operations."),
        ({"parameters": {"vacuum": {"quarantine": False}}}, "Add vacuum to operations."),
    ],
)
def test_what_cannot_be_understood_is_refused_before_anything_is_done(
    location: Location, config: dict[str, Any], told: str
) -> None:
    result = location.run("maintenance", **config)
    assert not result.success
    assert told in failure(result).description
    assert recorded(location) == []


def test_a_glob_that_means_nothing_is_told_once(location: Location) -> None:
    result = location.run("maintenance", tables=["lake.market.trades", "lake.no.*"], operations=["stats", "bloat"])
    assert result.success
    assert output_metadata(result)["report"].count("'lake.no.*' matches no table") == 1
    assert output_metadata(result)["tables_completed"] == 2


def test_a_queued_run_of_a_sensor_keeps_out_of_a_window_that_closed(location: Location) -> None:
    (request,) = location.tick().run_requests
    write_policy(location, **SHUT)
    config = request.run_config["ops"]["compaction"]["config"]
    result = location.run("compaction", **config)
    assert result.success
    assert output_metadata(result)["tables_skipped"] == 1
    assert "in a blackout, with no end in sight" in output_metadata(result)["report"]
    assert recorded(location) == []
    # somebody who asks for it in the launchpad gets it
    assert output_metadata(location.run("compaction", tables=config["tables"]))["tables_completed"] == 1


@pytest.mark.parametrize(
    ("config", "busy"),
    [
        ({}, True),
        ({"tables": ["lake.market.*"], "operations": ["stats", "compaction"]}, True),
        ({"operations": ["stats"]}, False),
        ({"tables": ["lake.market.curves"]}, False),
        ({"dry_run": True}, False),
    ],
)
def test_a_sensor_does_not_ask_for_what_a_maintenance_run_is_doing(
    location: Location, config: dict[str, Any], busy: bool
) -> None:
    job = location.definitions().get_repository_def().get_job("maintenance")
    location.instance.create_run_for_job(
        job, run_config={"ops": {"maintenance": {"config": config}}}, status=dg.DagsterRunStatus.STARTED
    )
    assert bool(location.tick().run_requests) is not busy
