"""Partition evolution through a real Trino.

What could lose a row or leave debris, and where it is tried here:

* rows are lost on their way into other partitions: read by PyIceberg, and compared by Trino's checksum;
* the process is killed between the spec and the rewrite: the next run does what is left, and no more;
* somebody else changes the spec between plan and run, or before the undo: it stays as they made it;
* a dry run or a spec that cannot be leaves something.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.errors import RequestError, StateDriftedError, UndoRefusedError
from aurum_orchestration.maintenance.backends.iceberg.trino import evolution
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration.maintenance.flow import Tally, run_units
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, RunContext
from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionParameters
from aurum_orchestration.maintenance.stopping import StopSignal
from aurum_orchestration_tests.iceberg_deletes import live_data_files
from aurum_orchestration_tests.integration.trino.test_compaction import file, opened, result_of, rows_of
from aurum_orchestration_tests.integration.trino.upkeep import Shared, shared
from aurum_orchestration_tests.servers.trino import TrinoServer

SECOND = date(2026, 1, 31)


@pytest.fixture
def lake(trino: TrinoServer, tmp_path: Path) -> Iterator[Shared]:
    with shared(trino, tmp_path) as made:
        yield made


def planned(table: TrinoTable, **given: Any) -> MaintenancePlan:
    return evolution.plan(table, table.table_id, PartitionEvolutionParameters(**given))


def carry_out(plan: MaintenancePlan, table: TrinoTable) -> Tally:
    tally = Tally()
    execution = evolution.execution(plan, table)
    run_units(execution, RunContext("an-operation"), tally, StopSignal(), lambda: None)
    return tally


def specs_of_files(lake: Shared) -> set[int]:
    return {entry.spec_id for entry in live_data_files(lake.table())}


@pytest.mark.parametrize(
    "embedded",
    [pytest.param(True, id="with the catalog", marks=pytest.mark.thorough), pytest.param(False, id="trino alone")],
)
def test_killed_between_spec_and_rewrite_then_carried_on_and_undone(lake: Shared, *, embedded: bool) -> None:
    lake.make("t", file(0), file(10, SECOND))
    before, stood = rows_of(lake), lake.table().metadata_location
    table = opened(lake, embedded=embedded)
    plan = planned(table, spec=["day", "bucket(4, id)"])
    assert [step.action for step in plan.steps] == ["evolve", "rewrite"]
    assert lake.table().metadata_location == stood

    only_spec = carry_out(plan.model_copy(update={"steps": plan.steps[:1]}), table)  # killed after it
    assert [field.name for field in lake.table().spec().fields] == ["day", "id_bucket"]
    assert specs_of_files(lake) == {0}
    rest = planned(opened(lake, embedded=embedded), spec=["day", "bucket(4, id)"])
    assert [step.action for step in rest.steps] == ["rewrite"]
    tally = carry_out(rest, opened(lake, embedded=embedded))
    assert specs_of_files(lake) == {lake.table().spec().spec_id}
    assert [proof.ok for proof in tally.verifications] == [True]
    assert rows_of(lake) == before
    assert planned(opened(lake, embedded=embedded), spec=["day", "bucket(4, id)"]).steps == []

    table = opened(lake, embedded=embedded)
    undo = evolution.undo(table, result_of(table, only_spec))
    run_units(evolution.undo_execution(undo, table), RunContext("undo"), Tally(), StopSignal(), lambda: None)
    assert lake.table().spec().is_unpartitioned()
    assert rows_of(lake) == before


def test_a_spec_that_others_set_stays(lake: Shared) -> None:
    lake.make("t", file(0))
    table = opened(lake)
    plan = planned(table, spec=["day"], rewrite=False)
    for wrong in (["dy"], ["day as other"], ["hour(day)"]):
        with pytest.raises(RequestError):
            planned(table, spec=wrong)
    assert lake.table().spec().is_unpartitioned()
    done = carry_out(plan, table)
    lake.sql("ALTER TABLE {t}.t SET PROPERTIES partitioning = ARRAY['hub']")
    with pytest.raises(StateDriftedError, match="partitioned by hub now"):
        carry_out(plan, opened(lake))
    with pytest.raises(UndoRefusedError, match="changed since: it is hub"):
        evolution.undo(opened(lake), result_of(opened(lake), done))
