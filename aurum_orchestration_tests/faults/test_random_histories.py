"""Random maintenance on random tables: the rows of every snapshot that survives are the same multiset.

Judged after each step by a reader and a model of the tests' own, and at the head by PyIceberg's scan, too.
A failure prints its steps and the seed that repeats it. AURUM_SEED and AURUM_EXAMPLES let it start elsewhere
or look longer, AURUM_SHRINK=1 looks for a shorter failure.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, note, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from pyiceberg.exceptions import ValidationException
from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform, IdentityTransform, Transform, TruncateTransform, VoidTransform

from aurum_orchestration.errors import (
    CommitConflictError,
    StateDriftedError,
    UndoRefusedError,
    UnsupportedError,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import HANDLERS, IcebergMaintenanceBackend, handler_of
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.flow import Tally, run_units
from aurum_orchestration.maintenance.interfaces import (
    MaintenanceConfig,
    MaintenancePlan,
    MaintenanceResult,
    MaintenanceStatus,
    RunContext,
)
from aurum_orchestration.maintenance.stopping import StopSignal
from aurum_orchestration_tests.faults.histories import RandomTable, partitionable, random_transform
from aurum_orchestration_tests.integration.iceberg.support import bag, left_behind, sql_catalog

TABLE = TableId("lake", ("ns", "t"))
WRITES = (
    "write",
    "write",
    "write",
    "overwrite_a_file",
    "delete_by_position",
    "delete_by_equality",
    "evolve_schema",
    "evolve_spec",
    "change_refs",
    "leave_an_orphan",
)
ROWS = ("write", "write", "write", "overwrite_a_file", "delete_by_position", "delete_by_equality")
MEMORY = "/dev/shm"
"""Where SQLite does not wait for a disk."""

SEEDS = st.integers(0, 2**32 - 1)


def parameters_of(operation: str, rng: Random, table: Table) -> dict[str, Any]:
    """Valid parameters of an operation for this table."""
    columns = [one.name for one in partitionable(table.schema())]
    floor = {"override_floor": True, "override_reason": "a test"}
    match operation:
        case "compaction":
            strategy = rng.choice(("binpack", "binpack", "sort", "zorder"))
            chosen = ", ".join(rng.sample(columns, min(len(columns), rng.randint(1, 2))))
            return {
                "strategy": strategy,
                **({"sort_columns": chosen} if strategy == "sort" else {}),
                **({"zorder_columns": chosen} if strategy == "zorder" else {}),
                "min_input_files": rng.choice((2, 2, 3)),
                "rewrite_all": rng.random() < 0.3,
                "max_concurrent_groups": rng.choice((1, 2)),
                "max_deleted_ratio": rng.choice((0.01, 0.1, 1)),
                "max_delete_files": rng.choice((1, 100)),
                "row_group_copy": rng.random() < 0.5,
                "verify": rng.random() < 0.7,
            }
        case "manifests":
            size = {"target_manifest_size_mb": rng.choice((0.001, 0.01, 8))} if rng.random() < 0.7 else {}
            return {"everything": rng.random() < 0.5, **size}
        case "retention":
            return {"retention_days": 0, "retain_last": rng.choice((0, 1, 2, 5)), **floor}
        case "vacuum":
            return {
                "older_than_days": 0,
                "quarantine": rng.random() < 0.5,
                "quarantine_days": rng.choice((0, 7)),
                "dropped_tables": rng.random() < 0.2,
                **floor,
            }
        case "backup":
            return {"kind": rng.choice(("tag", "branch")), "keep_last": rng.choice((1, 2)), "keep_days": None}
        case "partition_evolution":
            return {
                **random_spec_change(rng, table),
                "rewrite": rng.random() < 0.8,
                "max_concurrent_groups": rng.choice((1, 2)),
                "row_group_copy": rng.random() < 0.5,
                "verify": rng.random() < 0.7,
            }
        case "stats":
            return {"sample_rows": rng.choice((0, 5, 1000)), "ndv": rng.random() < 0.5}
        case "bloat":
            return {"orphans_older_than_days": 0, "min_input_files": 2}
        case _:
            return {}


def random_spec_change(rng: Random, table: Table) -> dict[str, list[str]]:
    """Fields to add to or remove from the current spec, a whole new one, or nothing: only old files are rewritten."""
    fields = [one.name for one in table.spec().fields if not isinstance(one.transform, VoidTransform)]
    sources = {one.source_id for one in table.spec().fields}
    chosen = rng.sample(columns := partitionable(table.schema()), min(len(columns), rng.randint(1, 2)))
    terms = {one.field_id: term(one.name, random_transform(rng, one.field_type)) for one in chosen}
    match rng.choice(("add", "remove", "whole", "whole", "none", "nothing")):
        case "add":
            return {"add": [text for source, text in terms.items() if source not in sources]}
        case "remove" if fields:
            return {"remove": [rng.choice(fields)]}
        case "whole":
            return {"spec": list(terms.values())}
        case "none":
            return {"spec": []}
        case _:
            return {}


def term(column: str, transform: Transform[Any, Any]) -> str:
    """A partition field as people write it."""
    match transform:
        case IdentityTransform():
            return column
        case BucketTransform():
            return f"bucket({transform.num_buckets}, {column})"
        case TruncateTransform():
            return f"truncate({transform.width}, {column})"
        case _:
            return f"{transform}({column})"


class RandomHistories(RuleBasedStateMachine):
    """Writers change a table, maintenance comes in between, every choice by a seed."""

    @initialize(number=SEEDS)
    def begin(self, number: int) -> None:
        self.stack = contextlib.ExitStack()
        home = Path(tempfile.mkdtemp(prefix="aurum-history-", dir=MEMORY if Path(MEMORY).is_dir() else None))
        self.stack.callback(shutil.rmtree, home)
        catalog = self.stack.enter_context(sql_catalog(home))
        properties = {"type": "sql", "uri": f"sqlite:///{home}/catalog.db", "warehouse": f"file://{home}/warehouse"}
        self.backend = IcebergMaintenanceBackend({"engine": "pyiceberg", "catalog": properties}, name="lake")
        self.stack.callback(self.backend.catalog.close)
        self.table = RandomTable(catalog, Random(number))
        self.done: list[MaintenanceResult] = []
        self._write(Random(number).choices(ROWS, k=6), Random(number))

    @rule(operation=st.sampled_from([*sorted(HANDLERS), "compaction", "compaction"]), number=SEEDS)
    def maintenance_runs(self, operation: str, number: int) -> None:
        """Somebody writes, then an operation runs; now and then somebody writes after it was planned, too."""
        rng = Random(number)
        self._write(rng.choices(WRITES, k=rng.randint(0, 4)), rng)
        self.table.check()
        given = parameters_of(operation, rng, self.table.table)
        note(f"  {operation} {given}")
        made = MaintenanceFactory().create_operation(operation)
        try:
            plan = made.plan(self.backend, TABLE, made.parameters(given))
        except UnsupportedError as refusal:
            note(f"  refused: {refusal}")
            self.table.check()
            return
        late = rng.random() < 0.2
        if late:
            self._write([rng.choice(WRITES)], rng)
        self._carry_out(plan, operation, given, drift_allowed=late)

    @precondition(lambda self: self.done)
    @rule(which=st.integers(0, 2))
    def somebody_takes_back(self, which: int) -> None:
        """One of the last operations is undone, or that is refused."""
        result = self.done[-1 - which % len(self.done)]
        note(f"  undo of {result.config.operation_type}")
        try:
            plan = self.backend.plan_undo(TABLE, result)
        except UndoRefusedError as refusal:
            note(f"  refused: {refusal}")
        else:
            self._carry_out(plan, None, {}, drift_allowed=False)

    def teardown(self) -> None:
        """After the next vacuum there is nothing but what the table refers to."""
        if not hasattr(self, "stack"):
            return
        with self.stack:
            given: dict[str, Any] = {
                "older_than_days": 0,
                "quarantine": False,
                "quarantine_days": 0,
                "dropped_tables": True,
            }
            given |= {"override_floor": True, "override_reason": "a test"}
            made = MaintenanceFactory().create_operation("vacuum")
            plan = made.plan(self.backend, TABLE, made.parameters(given))
            self._carry_out(plan, None, given, drift_allowed=False)
            assert left_behind(self.table.table) == set()

    def _write(self, what: list[str], rng: Random) -> None:
        for name in what:
            with contextlib.suppress(ValidationException):  # PyIceberg refuses some evolutions
                getattr(self.table, name)(rng)

    def _carry_out(
        self, plan: MaintenancePlan, operation: str | None, given: dict[str, Any], *, drift_allowed: bool
    ) -> None:
        table, tally, run = self.table.table, Tally(), RunContext(uuid.uuid4().hex)
        before = {name: ref.snapshot_id for name, ref in table.refresh().refs().items() if name != "main"}
        try:
            run_units(self.backend.open(plan, run), run, tally, StopSignal(), lambda: None)
        except (StateDriftedError, CommitConflictError) as error:
            if not drift_allowed:
                raise
            note(f"  {error}")
        self.table.check()
        after = {name: ref.snapshot_id for name, ref in table.refs().items() if name != "main"}
        ours = {name for name in before if name.startswith("aurum_backup_")}
        assert {name: after.get(name) for name in before if name not in ours} == {
            name: at for name, at in before.items() if name not in ours
        }
        assert all(one.ok for one in tally.verifications)
        self._agree_with_pyiceberg()
        if operation is not None and tally.steps and hasattr(handler_of(operation), "undo"):
            config = MaintenanceConfig(operation_type=operation, target_table=str(TABLE), parameters=given)
            self.done.append(
                MaintenanceResult(
                    operation_id=run.operation_id,
                    config=config,
                    backend="lake",
                    status=MaintenanceStatus.COMPLETED,
                    undo=tally.undo_text(),
                    undo_data=tally.undo_data,
                )
            )

    def _agree_with_pyiceberg(self) -> None:
        """Where PyIceberg can read, it finds as many rows, and none that is not there."""
        table = self.table.table
        head = table.current_snapshot()
        if head is None or _has_equality_deletes(table):
            return
        found = table.scan(selected_fields=("k",)).to_arrow()
        assert bag(found) == bag_of_keys(self.table)


def bag_of_keys(table: RandomTable) -> Any:
    head = table.table.current_snapshot()
    assert head is not None
    import pyarrow as pa

    return bag(pa.table({"k": [row.values["k"] for row in table.rows_at[head.snapshot_id]]}))


def _has_equality_deletes(table: Table) -> bool:
    head = table.current_snapshot()
    assert head is not None
    return any(
        entry.data_file.equality_ids
        for manifest in head.manifests(table.io)
        if manifest.content == ManifestContent.DELETES
        for entry in manifest.fetch_manifest_entry(table.io)
    )


def look(examples: int, steps: int, start: int) -> None:
    print(f"AURUM_SEED={start}")

    class Seeded(RandomHistories):
        pass

    seed(start)(Seeded)
    chosen = settings(
        max_examples=int(os.environ.get("AURUM_EXAMPLES", examples)),
        stateful_step_count=steps,
        deadline=None,
        database=None,
        phases=(Phase.generate, *((Phase.shrink,) if os.environ.get("AURUM_SHRINK") else ())),
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Seeded, settings=chosen)


def test_maintenance_keeps_the_rows_of_every_snapshot() -> None:
    look(12, 4, int(os.environ.get("AURUM_SEED", "1")))


@pytest.mark.thorough
def test_maintenance_keeps_the_rows_of_every_snapshot_in_many_histories() -> None:
    look(50, 10, int(os.environ.get("AURUM_SEED", Random().getrandbits(32))))
