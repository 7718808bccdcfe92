"""Compaction through a real Trino.

What could lose a row or leave debris, and where it is tried here:

* Trino rewrites wrongly and nobody sees it: the checksum has to tell rows that exchange values, and a null from an
  empty list; a commit that changed rows has to be taken back;
* a deleted row comes back: position deletes are folded in, and one that is committed while Trino rewrites wins;
* a commit of somebody else vanishes: on the way back of an undo or of a failed check;
* the connection breaks while Trino works: told as failed though it committed, or as done though it did not;
* a partition is rewritten that was not asked for, or a dry run or a refusal writes something.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlalchemy
from pyiceberg.catalog import Catalog
from pyiceberg.table import Table
from pyiceberg.transforms import BucketTransform, IdentityTransform

from aurum_orchestration.errors import (
    BackendUnavailableError,
    OperationCancelledError,
    StateDriftedError,
    UndoRefusedError,
    UnsupportedError,
    VerificationError,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.backends.iceberg.trino import compaction
from aurum_orchestration.maintenance.backends.iceberg.trino.capabilities import probe
from aurum_orchestration.maintenance.backends.iceberg.trino.client import Answer, TrinoClient
from aurum_orchestration.maintenance.backends.iceberg.trino.commits import Made
from aurum_orchestration.maintenance.backends.iceberg.trino.compaction import CompactionExecution
from aurum_orchestration.maintenance.backends.iceberg.trino.connection import TrinoConnection
from aurum_orchestration.maintenance.backends.iceberg.trino.row_checksum import checksum_of
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration.maintenance.backends.iceberg.trino.verify import compare
from aurum_orchestration.maintenance.flow import Tally, run_units
from aurum_orchestration.maintenance.interfaces import (
    MaintenanceConfig,
    MaintenancePlan,
    MaintenanceResult,
    MaintenanceStatus,
    RunContext,
)
from aurum_orchestration.maintenance.metrics import METRICS
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters
from aurum_orchestration.maintenance.stopping import StopSignal
from aurum_orchestration_tests.iceberg_deletes import live_data_files
from aurum_orchestration_tests.integration.iceberg.support import spec_of, typed
from aurum_orchestration_tests.integration.postgres.support import opened as backend_opened
from aurum_orchestration_tests.integration.trino.upkeep import Shared, shared
from aurum_orchestration_tests.servers.breaking_proxy import How, breaking_proxy, hangs_up, loses_the_answer
from aurum_orchestration_tests.servers.trino import TrinoServer

BY_DAY = {"spec": spec_of((2, IdentityTransform(), "on_day"))}
FIRST, SECOND = date(2026, 1, 30), date(2026, 1, 31)
MANY = CompactionParameters(min_input_files=2)


@pytest.fixture
def lake(trino: TrinoServer, tmp_path: Path) -> Iterator[Shared]:
    with shared(trino, tmp_path) as made:
        yield made


def opened(lake: Shared, name: str = "t", *, port: int | None = None, embedded: bool = True) -> TrinoTable:
    config = {**lake.config(port=port), "http_attempts": 1}
    client = TrinoClient(TrinoConnection.of(config, "lake"), "lake")
    table = lake.table(name) if embedded else None
    return TrinoTable(client, TableId("lake", (lake.namespace, name)), probe(client), table)


def file(first: int, day: date = FIRST, rows: int = 3) -> list[dict[str, Any]]:
    return [{"id": first + row, "day": day, "hub": f"h{row}", "price": first / 4} for row in range(rows)]


def planned(table: TrinoTable, **given: Any) -> MaintenancePlan:
    return compaction.plan(table, table.table_id, CompactionParameters(**{"min_input_files": 2, **given}))


def carry_out(plan: MaintenancePlan, table: TrinoTable) -> Tally:
    tally, run = Tally(), RunContext("an-operation")
    run_units(CompactionExecution(plan, table), run, tally, StopSignal(), lambda: None)
    return tally


def result_of(table: TrinoTable, tally: Tally) -> MaintenanceResult:
    config = MaintenanceConfig(operation_type="compaction", target_table=str(table.table_id))
    return MaintenanceResult(
        operation_id="an-operation",
        config=config,
        backend="lake",
        status=MaintenanceStatus.COMPLETED,
        undo_data=tally.undo_data,
    )


def undone(table: TrinoTable, tally: Tally) -> None:
    plan = compaction.undo(table, result_of(table, tally))
    run_units(compaction.undo_execution(plan, table), RunContext("undo"), Tally(), StopSignal(), lambda: None)


def rows_of(lake: Shared, name: str = "t") -> Counter[str]:
    """Rows as PyIceberg reads them."""
    return Counter(repr(row) for row in lake.table(name).scan().to_arrow().sort_by("id").to_pylist())


def rows_in_files(lake: Shared, name: str = "t") -> int:
    """Rows as DuckDB finds them in the live data files, whatever deletes hide."""
    paths = [entry.file_path.removeprefix("file://") for entry in live_data_files(lake.table(name))]
    return int(asked_of_duckdb(f"SELECT count(*) FROM read_parquet({paths})")[0][0])


def asked_of_duckdb(sql: str) -> list[tuple[Any, ...]]:
    found = duckdb.sql(sql)
    assert found is not None
    return found.fetchall()


def last(lake: Shared, name: str = "t") -> Any:
    snapshot = lake.table(name).current_snapshot()
    assert snapshot is not None
    return snapshot


def test_partitions_that_need_it_are_rewritten_verified_and_undone(lake: Shared) -> None:
    """Day one has four files and a delete; day two has one file, which stays. A dry run writes nothing."""
    lake.make("t", *(file(10 * number) for number in range(4)), file(100, SECOND), **BY_DAY)
    lake.sql("DELETE FROM {t}.t WHERE id = 11")
    before, stood = rows_of(lake), last(lake).snapshot_id
    table = opened(lake)
    plan = planned(table)
    assert lake.table().metadata_location == table.embedded.metadata_location  # type: ignore[union-attr]
    assert [(step.detail["partitions"], step.detail["files_at_most"]) for step in plan.steps] == [
        ([f"on_day={FIRST}"], 4)
    ]
    tally = carry_out(plan, table)
    assert rows_of(lake) == before
    made = last(lake)
    assert (made.summary.operation.value, made.parent_snapshot_id) == ("replace", stood)
    assert rows_in_files(lake) == sum(before.values())
    names = ("files_rewritten", "files_added", "rows_rewritten", "delete_files_removed", "deleted_rows_folded")
    assert [tally.metrics[name] for name in names] == [4, 1, 11, 1, 1]
    assert tally.metrics["verify_bytes"] > 0
    [proof] = tally.verifications
    assert (proof.rows_before, proof.rows_after, proof.checksum_equal) == (11, 11, True)
    assert planned(opened(lake)).steps == []

    undone(opened(lake), tally)
    assert last(lake).snapshot_id == stood
    assert rows_of(lake) == before


def test_what_is_sent_and_looked_up_besides_the_rewrite(lake: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    lake.make("t", file(0), file(10))
    table_id = TableId("lake", (lake.namespace, "t"))
    sent: list[str] = []
    told: list[tuple[str | None, str]] = []
    loads: list[str] = []
    once = TrinoClient._once

    def sending(
        self: TrinoClient, sql: str, run: RunContext | None, operation: str, *given: Any, **more: Any
    ) -> Answer:
        sent.append(sql)
        told.append((run.operation_id if run is not None else None, operation))
        return once(self, sql, run, operation, *given, **more)

    def loading(self: Catalog, identifier: Any) -> Table:
        loads.append(str(identifier))
        return load(self, identifier)

    with backend_opened(IcebergMaintenanceBackend(lake.config(), name="lake")) as backend:
        assert backend.trino.capabilities.version
        opened_as = type(backend.catalog)
        load = opened_as.load_table
        monkeypatch.setattr(TrinoClient, "_once", sending)
        monkeypatch.setattr(opened_as, "load_table", loading)
        plan, run, tally = backend.plan(table_id, "compaction", MANY), RunContext("an-operation"), Tally()
        run_units(backend.open(plan, run), run, tally, StopSignal(), lambda: None)
    [verified] = tally.verifications
    assert verified.ok
    # looked at, rewritten, both sides compared; and the table when planned, opened and committed
    assert [sql.split()[0] for sql in sent] == ["EXPLAIN", "ALTER", "SELECT"]
    assert told == [(None, "compaction"), ("an-operation", "compaction"), ("an-operation", "compaction")]
    assert len(loads) == 3


def test_an_undo_by_trino_alone_loses_no_commit_of_others(lake: Shared) -> None:
    lake.make("t", file(0), file(10))
    stood = last(lake).snapshot_id
    table = opened(lake, embedded=False)
    tally = carry_out(planned(table), table)
    lake.sql("INSERT INTO {t}.t VALUES (99, DATE '2026-01-30', 'x', 1e0)")
    with pytest.raises(UndoRefusedError, match="1 snapshot committed by others"):
        compaction.undo(table, result_of(table, tally))
    lake.sql(f"ALTER TABLE {{t}}.t EXECUTE rollback_to_snapshot(snapshot_id => {tally.undo_data['snapshots'][0]})")  # type: ignore[index]
    undone(table, tally)
    assert last(lake).snapshot_id == stood
    # a killed run left no record, and Trino's snapshots do not name it
    lost = result_of(table, tally).model_copy(update={"undo_data": None, "status": MaintenanceStatus.FAILED})
    with pytest.raises(UndoRefusedError, match="left no record"):
        compaction.undo(table, lost.model_copy(update={"started_at": lost.started_at.replace(year=2020)}))


@pytest.mark.parametrize(
    "embedded",
    [pytest.param(True, id="by the catalog", marks=pytest.mark.thorough), pytest.param(False, id="by trino")],
)
def test_a_rewrite_that_changed_rows_is_found_and_taken_back(lake: Shared, *, embedded: bool) -> None:
    """Instead of optimize, an UPDATE that lets two rows exchange their prices: no value is new, none is gone."""
    lake.make("t", file(0), file(10))
    before, stood = rows_of(lake), last(lake).snapshot_id
    table = opened(lake, embedded=embedded)
    plan = planned(table)
    change = table.change

    def exchanging(sql: str, *given: Any, **named: Any) -> Any:
        if "optimize" in sql:
            sql = f"UPDATE {table.name} SET price = 2.5e0 - price WHERE id IN (0, 10) {sql[sql.index('/*') :]}"
        return change(sql, *given, **named)

    table.change = exchanging  # type: ignore[method-assign] # a fault that no Trino shows
    with pytest.raises(VerificationError, match="6 rows before, 6 after, checksums differ"):
        carry_out(plan, table)
    assert last(lake).snapshot_id == stood
    assert rows_of(lake) == before


@pytest.mark.thorough
def test_what_others_commit_after_a_wrong_rewrite_is_not_taken_back(lake: Shared) -> None:
    lake.make("t", file(0), file(10))
    table = opened(lake, embedded=False)
    wrong = Made(last(lake).snapshot_id, last(lake).parent_snapshot_id, {})
    lake.sql("INSERT INTO {t}.t VALUES (99, DATE '2026-01-30', 'x', 1e0)")
    stood = last(lake).snapshot_id
    [unit] = CompactionExecution(planned(table), table).units()
    unit._made = [(wrong, "")]  # type: ignore[attr-defined] # as if the one before were ours
    with pytest.raises(StateDriftedError, match="others committed since"):
        unit.take_back(RunContext("an-operation"))
    assert last(lake).snapshot_id == stood


def checksums(table: TrinoTable, kind: str, *values: str) -> list[Any]:
    """The checksum of each set of rows (a of a type, b an integer)."""
    expression = checksum_of([("a", kind), ("b", "integer")])
    return [
        table.query(
            f"SELECT {expression} FROM (SELECT CAST(x AS {kind}), y FROM (VALUES {rows}) v(x, y)) t(a, b)"
        ).first()[0]
        for rows in values
    ]


@pytest.mark.parametrize(
    ("kind", "different", "equal"),
    [
        ("integer", ("(1, 2), (3, 4)", "(1, 4), (3, 2)", "(0, 2), (3, 4)", "(NULL, 2), (3, 4)"), "(3, 4), (1, 2)"),
        ("array(integer)", ("(ARRAY[], 1)", "(NULL, 1)", "(ARRAY[NULL], 1)", "(ARRAY[0], 1)"), "(ARRAY[], 1)"),
        ("map(varchar, integer)", ("(MAP(), 1)", "(NULL, 1)", "(MAP(ARRAY['k'], ARRAY[NULL]), 1)"), "(MAP(), 1)"),
        ("row(p integer, q varchar)", ("(ROW(NULL, NULL), 1)", "(NULL, 1)", "(ROW(0, ''), 1)"), "(NULL, 1)"),
        ("double", ("(nan(), 1)", "(NULL, 1)", "(0e0, 1)", "(infinity(), 1)"), "(nan(), 1)"),
        ("real", ("(1.5, 1)", "(NULL, 1)", "(-1.5, 1)"), "(1.5, 1)"),
        ("boolean", ("(true, 1)", "(NULL, 1)", "(false, 1)"), "(false, 1)"),
        ("date", ("(DATE '1969-12-31', 1)", "(NULL, 1)", "(DATE '1970-01-01', 1)"), "(DATE '1970-01-01', 1)"),
        ("decimal(20,2)", ("(1.20, 1)", "(NULL, 1)", "(12.0, 1)", "(0, 1)"), "(12.00, 1)"),
        ("varchar", ("('ab', 1), ('c', 1)", "('a', 1), ('bc', 1)", "('', 1)", "(NULL, 1)"), "('c', 1), ('ab', 1)"),
        ("varbinary", ("(X'00', 1)", "(X'', 1)", "(NULL, 1)", "(X'0000', 1)"), "(X'', 1)"),
        ("uuid", ("(UUID '12151fd2-7586-11e9-8f9e-2a86e4085a59', 1)", "(NULL, 1)"), "(NULL, 1)"),
        (
            "timestamp(6)",
            ("(TIMESTAMP '2026-01-01 00:00:00.000001', 1)", "(TIMESTAMP '2026-01-01 00:00:00.000002', 1)"),
            "(TIMESTAMP '2026-01-01 00:00:00.000001', 1)",
        ),
        (
            "array(row(x integer, y array(varchar)))",
            ("(ARRAY[ROW(1, ARRAY[])], 1)", "(ARRAY[ROW(1, NULL)], 1)", "(ARRAY[ROW(1, ARRAY[NULL])], 1)"),
            "(ARRAY[ROW(1, NULL)], 1)",
        ),
    ],
    ids=[
        *("pairs", "list", "map", "struct", "double", "real", "boolean", "date", "decimal", "varchar", "varbinary"),
        *("uuid", "timestamp", "nested"),
    ],
)
def test_the_checksum_tells_rows_apart(trino: TrinoServer, kind: str, different: Sequence[str], equal: str) -> None:
    client = TrinoClient(TrinoConnection.of({"host": trino.host, "port": trino.port}, "lake"), "lake")
    table = TrinoTable(client, TableId("lake", ("ns", "t")), None)  # type: ignore[arg-type] # no table is asked for
    told = checksums(table, kind, *different, equal)
    assert len(set(told)) == len(different)


@pytest.mark.parametrize(
    ("statement", "conflicts"),
    [
        pytest.param("DELETE FROM {t}.t WHERE id = 11", 1, id="delete"),
        pytest.param("INSERT INTO {t}.t VALUES (99, NULL, 'x', 1e0)", 0, id="append", marks=pytest.mark.thorough),
    ],
)
def test_what_others_commit_while_trino_rewrites_stays(lake: Shared, statement: str, conflicts: int) -> None:
    """PostgreSQL holds Trino's commit back until the other is there.

    A delete is a conflict, and the rewrite is made again; an append is none: Trino commits on top of it, and what
    is compared is what the rewrite did to the append's snapshot.
    """
    lake.make("t", file(0), file(10), file(20))
    table = opened(lake)
    plan = planned(table)
    rewritten = lake.table().metadata_location
    lake.sql(statement)
    others, left = lake.table().metadata_location, rows_of(lake)
    point_to = sqlalchemy.text(
        "UPDATE iceberg_tables SET metadata_location = :to WHERE table_namespace = :ns AND table_name = 't'"
    )
    with lake.catalog.engine.begin() as connection:
        connection.execute(point_to, {"to": rewritten, "ns": lake.namespace})
    tallies: list[Tally] = []
    with lake.catalog.engine.connect() as connection:
        connection.execute(point_to, {"to": others, "ns": lake.namespace})  # the row is locked until the commit
        worker = threading.Thread(target=lambda: tallies.append(carry_out(plan, table)))
        worker.start()
        try:
            wait_for_a_lock(lake)
        finally:
            connection.commit()
            worker.join(120)
    [tally] = tallies
    assert tally.metrics.get("conflicts_retried", 0) == conflicts
    assert tally.metrics.get("deleted_rows_folded", 0) == conflicts
    assert tally.metrics["files_rewritten"] == 3
    assert [proof.ok for proof in tally.verifications] == [True]
    assert rows_of(lake) == left
    assert rows_in_files(lake) == sum(left.values())


def wait_for_a_lock(lake: Shared) -> None:
    waiting = sqlalchemy.text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE '%iceberg_tables%'"
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with lake.catalog.engine.connect() as connection:
            if connection.execute(waiting).scalar():
                return
        time.sleep(0.1)
    raise AssertionError("Trino did not come to its commit")


@pytest.mark.parametrize(
    ("pattern", "how", "takes_place"),
    [
        pytest.param(r"GET /v1/statement/executing/", loses_the_answer(), True, id="the answer is lost"),
        pytest.param(r"POST /v1/statement", hangs_up, False, id="it never arrives", marks=pytest.mark.thorough),
    ],
)
def test_a_broken_connection_is_read_back(lake: Shared, pattern: str, how: How, *, takes_place: bool) -> None:
    lake.make("t", file(0), file(10))
    before, stood = rows_of(lake), last(lake).snapshot_id
    with breaking_proxy(lake.server.url) as proxy:
        table = opened(lake, port=int(proxy.url.rpartition(":")[2]))
        plan = planned(table)
        change = table.change

        def breaking(*given: Any, **named: Any) -> Any:
            proxy.breaks(pattern, how)
            proxy.breaks("DELETE", hangs_up)  # nor can Trino be told to stop
            try:
                return change(*given, **named)
            finally:
                proxy.heal()

        table.change = breaking  # type: ignore[method-assign] # a fault that begins with this statement
        if takes_place:
            tally = carry_out(plan, table)
            assert tally.metrics["files_rewritten"] == 2
            assert tally.undo_data == {"engine": "trino", "rollback_to": stood, "snapshots": [last(lake).snapshot_id]}
        else:
            with pytest.raises(BackendUnavailableError):
                carry_out(plan, table)
            assert last(lake).snapshot_id == stood
    assert rows_of(lake) == before
    carry_out(planned(opened(lake)), opened(lake))
    assert len(live_data_files(lake.table())) == 1
    assert rows_of(lake) == before


def test_refusals_and_filters_leave_everything_as_it_is(lake: Shared) -> None:
    lake.make(
        "t",
        *(file(10 * number) for number in range(3)),
        *(file(100 + 10 * number, SECOND) for number in range(3)),
        **BY_DAY,
    )
    table, stood = opened(lake), lake.table().metadata_location
    cases: list[Mapping[str, Any]] = [
        {"strategy": "zorder", "zorder_columns": "id"},
        {"strategy": "sort"},
        {"strategy": "sort", "sort_columns": "price"},
    ]
    for given in cases:
        with pytest.raises(UnsupportedError, match="Trino"):
            planned(table, **given)
    plan = planned(table, partition_filter=f"day = '{SECOND}'")
    assert [step.detail["partitions"] for step in plan.steps] == [[f"on_day={SECOND}"]]
    assert lake.table().metadata_location == stood
    before = rows_of(lake)
    tally = carry_out(plan, table)
    assert tally.metrics["files_rewritten"] == 3
    assert len(live_data_files(lake.table())) == 4
    assert rows_of(lake) == before


@pytest.mark.thorough
def by_day_and_bucket(buckets: int) -> dict[str, Any]:
    return {"spec": spec_of((2, IdentityTransform(), "day"), (1, BucketTransform(buckets), "id_bucket"))}


@pytest.mark.parametrize("embedded", [True, False])
def test_a_name_that_is_another_columns_since_the_last_commit(lake: Shared, *, embedded: bool) -> None:
    """The snapshot before is read with the columns that it had: by name, what is compared would be others' values."""
    lake.make("t", file(0), file(10), **BY_DAY)
    lake.sql("ALTER TABLE {t}.t DROP COLUMN hub")
    # who knows the columns' ids also tells one of the same type, and finds a renamed one
    lake.sql(f"ALTER TABLE {{t}}.t ADD COLUMN hub {'varchar' if embedded else 'bigint'}")
    if embedded:
        lake.sql("ALTER TABLE {t}.t RENAME COLUMN price TO cost")
    tally = carry_out(planned(opened(lake, embedded=embedded)), opened(lake, embedded=embedded))
    [verified] = tally.verifications
    assert verified.ok
    assert "of 3 of 4 columns" in verified.method
    assert verified.rows_after == 6


@pytest.mark.parametrize("embedded", [True, False])
def test_a_plan_that_others_have_carried_out_is_made_anew(lake: Shared, *, embedded: bool) -> None:
    """Else a run that waited for another one's lease is recorded as if it had rewritten the files."""
    lake.make("t", file(0), file(10), file(20))
    plan = planned(opened(lake, embedded=embedded))
    lake.sql("INSERT INTO {t}.t (id) VALUES 100")
    lake.sql("ALTER TABLE {t}.t EXECUTE optimize")
    with pytest.raises(StateDriftedError, match="rewrote files since the plan"):
        carry_out(plan, opened(lake, embedded=embedded))
    assert not planned(opened(lake, embedded=embedded)).steps
    lake.sql("INSERT INTO {t}.t (id) VALUES 101")
    plan = planned(opened(lake, embedded=embedded))
    lake.sql("INSERT INTO {t}.t (id) VALUES 102")
    assert carry_out(plan, opened(lake, embedded=embedded)).metrics["files_rewritten"] == 3


@pytest.mark.parametrize("embedded", [True, False])
def test_the_plan_tells_of_partitions_that_trino_cannot_leave_out(lake: Shared, *, embedded: bool) -> None:
    """Of each day one bucket has many files; the others have a few, which the same statement rewrites."""
    few = [file(1, FIRST, 20) + file(1, SECOND, 20) for _ in range(2)]
    lake.make("t", *few, *(file(1, day, 1) for day in (FIRST, SECOND) for _ in range(4)), **by_day_and_bucket(4))
    table = opened(lake, embedded=embedded)
    before = lake.ids()
    with pytest.raises(UnsupportedError, match="cannot name these partitions alone"):
        planned(table, min_input_files=5, partition_filter=f"day = '{FIRST}' and id = 1")
    plan = planned(table, min_input_files=5, partition_filter=f"day = '{FIRST}'")
    [step] = plan.steps
    files = int(lake.sql(f"SELECT count(*) FROM {{t}}.\"t$files\" WHERE partition.day = DATE '{FIRST}'")[0][0])
    assert step.detail["files_at_most"] == files > 6
    tally = carry_out(plan, table)
    assert tally.metrics["files_rewritten"] == files
    assert tally.metrics["bytes_rewritten"] == step.detail["bytes"]
    assert tally.metrics["files_added"] == step.detail["files_out"] == 4
    assert lake.ids() == before


def test_the_plan_of_a_table_of_several_specs_tells_of_all_that_is_rewritten(lake: Shared) -> None:
    """One partition has many files; Trino takes no condition, and rewrites single files of the others, too."""
    made = lake.make("t", file(0, FIRST), file(3, SECOND), **BY_DAY)
    with made.update_spec() as update:
        update.add_field("hub", IdentityTransform(), "hub")
    for number in range(5):
        made.append(typed(made, file(10 * number, FIRST, 1)))
    made.append(typed(made, file(90, SECOND, 1)))
    before = lake.ids()
    plan = planned(opened(lake), min_input_files=5)
    [step] = plan.steps
    assert step.detail["files_at_most"] == 8
    tally = carry_out(plan, opened(lake))
    assert tally.metrics["files_rewritten"] == 8
    assert tally.metrics["bytes_rewritten"] == step.detail["bytes"]
    assert lake.ids() == before


@pytest.mark.thorough
def test_partitions_that_go_along_count_against_the_writers_that_may_be_open(lake: Shared) -> None:
    """Of 40 days one bucket of 16 has many files: 40 partitions to name, 640 to write, of which a writer holds 100."""
    days = [date(2026, 1, 1) + timedelta(days=number) for number in range(40)]
    everywhere = [row for day in days for row in file(1, day, 150)]
    one = [row for day in days for row in file(1, day, 1)]
    lake.make("t", everywhere, everywhere, one, one, one, **by_day_and_bucket(16))
    plan = planned(opened(lake), min_input_files=5)
    assert all(len(step.detail["partitions"]) <= 100 for step in plan.steps)
    before = lake.ids()
    tally = carry_out(plan, opened(lake))
    assert tally.metrics["files_added"] == 640
    assert lake.ids() == before


def test_the_tables_own_order_and_names_to_be_quoted(lake: Shared) -> None:
    name = 'we"ird na.me'
    quoted = name.replace('"', '""')
    lake.sql(
        f'CREATE TABLE {{t}}."{quoted}" ("Odd ""col" varchar, id bigint, day date) '
        "WITH (format_version = 2, partitioning = ARRAY['\"odd \"\"col\"'], sorted_by = ARRAY['id DESC'])"
    )
    for number in range(3):
        lake.sql(f"INSERT INTO {{t}}.\"{quoted}\" VALUES ('it''s', {number}, NULL), (NULL, {number}, NULL)")
    before = rows_of(lake, name)
    table = opened(lake, name)
    plan = planned(table, strategy="sort", sort_columns="id desc")
    tally = carry_out(plan, table)
    assert tally.metrics["files_rewritten"] == 6
    assert rows_of(lake, name) == before
    for entry in live_data_files(lake.table(name)):
        path = entry.file_path.removeprefix("file://").replace("'", "''")
        assert asked_of_duckdb(f"SELECT id FROM read_parquet('{path}')") == [(2,), (1,), (0,)]


@pytest.mark.thorough
def test_only_what_was_rewritten_is_read(lake: Shared) -> None:
    """The files of the commit alone; a column that was added since is not in the snapshot before."""
    lake.make("t", file(0, rows=1000), file(2000, rows=2), file(3000, rows=2))
    lake.sql("ALTER TABLE {t}.t ADD COLUMN more varchar")
    table = opened(lake)
    tally = carry_out(planned(table, rewrite_all=True), table)
    [snapshot] = (tally.undo_data or {})["snapshots"]
    made = Made(snapshot, last(lake).parent_snapshot_id, dict(last(lake).summary.additional_properties))
    proof = compare(table, made, "", checksum=True)
    assert proof.verification.ok
    assert "4 of 5 columns" in proof.verification.method
    counted = compare(table, made, "", checksum=False)
    assert (counted.verification.rows_before, counted.verification.method) == (1004, "row-count (Trino)")
    assert counted.bytes <= proof.bytes


async def test_through_the_service_with_undo_and_a_format_that_trino_does_not_write(lake: Shared) -> None:
    """What the service records is enough to take it back; a version that Trino does not write is left alone."""
    lake.make("t", file(0), file(10), **BY_DAY)
    before, stood = rows_of(lake), last(lake).snapshot_id
    done = await lake.run("compaction", min_input_files=2)
    assert done.status == MaintenanceStatus.COMPLETED, done.problem
    assert set(done.metrics) <= set(METRICS)
    assert done.verification is not None
    assert done.verification.ok
    assert done.undo_data == {"engine": "trino", "rollback_to": stood, "snapshots": [last(lake).snapshot_id]}
    async with lake.service() as service:
        undone = await service.undo(done.operation_id)
    assert undone.status == MaintenanceStatus.COMPLETED, undone.problem
    assert last(lake).snapshot_id == stood

    def newer(metadata: dict[str, Any]) -> None:
        metadata["format-version"], metadata["next-row-id"] = 3, 100

    table = lake.change_metadata("t", newer)
    writes_it = opened(lake).capabilities.newest_format >= 3
    refused = await lake.run("compaction", min_input_files=2)
    if writes_it:
        assert refused.status == MaintenanceStatus.COMPLETED, refused.problem
    else:
        assert refused.status == MaintenanceStatus.SKIPPED, refused.problem
        assert "format version" in refused.reason
        assert lake.table().metadata_location == table.metadata_location
    assert rows_of(lake) == before


def test_a_cancelled_run_leaves_the_rows_as_they_are(lake: Shared) -> None:
    """Cancelled as soon as Trino works: either nothing was committed, or it is recorded with what takes it back."""
    lake.make("t", *(file(10 * number) for number in range(6)))
    before, stood = rows_of(lake), last(lake).snapshot_id
    table = opened(lake)
    plan = planned(table)
    run, tally = RunContext("an-operation"), Tally()
    change = table.change

    def cancelling(*given: Any, **named: Any) -> Any:
        threading.Timer(0.2, run.cancelled.set).start()
        return change(*given, **named)

    table.change = cancelling  # type: ignore[method-assign] # the moment of the cancellation
    with suppress(OperationCancelledError):
        run_units(CompactionExecution(plan, table), run, tally, StopSignal(), lambda: None)
    assert (last(lake).snapshot_id != stood) == (tally.undo_data is not None)
    assert rows_of(lake) == before
