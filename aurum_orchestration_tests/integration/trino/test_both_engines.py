"""Trino and the embedded engine on the same tables of one catalog: by turns, and at the same time with writers.

What could be lost, and where it is tried here:

* a row, a type or a delete that one engine wrote and the other does not read, or rewrites wrongly;
* a file that one engine takes for an orphan, or expires, though the other's snapshots need it;
* a commit, when both rewrite the same files at the same moment, or somebody appends meanwhile.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from trino.exceptions import TrinoQueryError

from aurum_orchestration.errors import CommitConflictError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import literal
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration_tests.integration.cleanup.judges import on_disk, reachable
from aurum_orchestration_tests.integration.iceberg.support import (
    Interfering,
    by_duckdb,
    carry_out,
    left_behind,
    open_plan,
    plan_of,
    spec_of,
    typed,
)
from aurum_orchestration_tests.integration.trino.upkeep import BELOW, Shared, shared
from aurum_orchestration_tests.servers.trino import TrinoServer

DAY = date(2026, 1, 31)
BY_HUB = {"spec": spec_of((3, IdentityTransform(), "of_hub"))}
LIVED_THROUGH = {"commit-conflict", "state-drifted"}
"""What may end a run while others commit; everything else is a fault."""

Row = tuple[Any, ...]


class Embedded(Shared):
    """The same namespace, maintained by the embedded engine."""

    def config(self, **_: Any) -> dict[str, Any]:
        """The catalog alone."""
        return {"type": "iceberg", "engine": "pyiceberg", "catalog": self.server.properties}


@pytest.fixture
def lake(trino: TrinoServer, tmp_path: Path) -> Iterator[Shared]:
    with shared(trino, tmp_path) as made:
        yield made


@pytest.fixture
def embedded(lake: Shared) -> Embedded:
    """With a home of its own, so that no lease keeps the engines apart."""
    home = lake.home / "embedded"
    home.mkdir()
    return Embedded(lake.server, lake.catalog, lake.namespace, home)


def rows(first: int, hub: str = "a", number: int = 4) -> list[dict[str, Any]]:
    return [{"id": first + one, "day": DAY, "hub": hub, "price": (first + one) / 4} for one in range(number)]


def by_trino(lake: Shared) -> Counter[Row]:
    return Counter(lake.sql("SELECT id, day, hub, price FROM {t}.t"))


def seen(lake: Shared) -> Counter[Row]:
    """The rows, the same for Trino and PyIceberg; every file of every snapshot is there."""
    found = by_trino(lake)
    assert found == Counter(tuple(row.values()) for row in lake.table().scan().to_arrow().to_pylist())
    assert reachable(lake.table()) <= on_disk(lake.table())
    return found


def insert(lake: Shared, given: list[dict[str, Any]]) -> None:
    """One commit by Trino."""
    told = ", ".join(f"({', '.join(map(literal, one.values()))})" for one in given)
    lake.sql(f"INSERT INTO {{t}}.t VALUES {told}")


def kinds(lake: Shared) -> list[str]:
    """The operations of all snapshots, as Trino tells them."""
    return [row[0] for row in lake.sql('SELECT operation FROM {t}."t$snapshots" ORDER BY committed_at')]


def completed(result: MaintenanceResult) -> MaintenanceResult:
    assert result.status == "completed", (result.problem, result.reason)
    assert result.verification is None or result.verification.ok
    return result


@pytest.mark.parametrize("trino_first", [True, pytest.param(False, marks=pytest.mark.thorough)])
async def test_by_turns(lake: Shared, embedded: Embedded, *, trino_first: bool) -> None:
    """Made by the first, written by both with a delete, compacted by the second; more of it, compacted by the first."""
    if trino_first:
        lake.sql(
            "CREATE TABLE {t}.t (id bigint, day date, hub varchar, price double) "
            "WITH (format_version = 2, partitioning = ARRAY['hub'])"
        )
    else:
        lake.make("t", **BY_HUB)
    order = (embedded, lake) if trino_first else (lake, embedded)
    for turn, engine in enumerate(order):
        lake.table().append(typed(lake.table(), rows(100 * turn)))
        insert(lake, rows(100 * turn + 10))
        insert(lake, rows(100 * turn + 20, "it's b"))
        lake.table().append(typed(lake.table(), rows(100 * turn + 30, "it's b")))
        lake.sql(f"DELETE FROM {{t}}.t WHERE id = {100 * turn + 1}")
        before, snapshots = seen(lake), kinds(lake)
        done = completed(await engine.run("compaction", min_input_files=2, max_delete_files=1))
        assert done.metrics["files_rewritten"] >= 4
        assert set(kinds(lake)[len(snapshots) :]) == {"replace"}
        assert seen(lake) == before
        assert sum(by_duckdb(lake.table()).values()) == before.total()  # no delete is left that hides any
    assert before.total() == 30
    insert(lake, rows(300))
    lake.table().append(typed(lake.table(), rows(310)))
    before = seen(lake)
    for number, engine in enumerate(order):
        assert (await engine.run("manifests", everything=True)).status in {"completed", "skipped"}
        assert kinds(lake)[-1] in {"replace", "append"}
        completed(await engine.run("retention", retention_days=0, retain_last=4 - 2 * number, **BELOW))
        assert seen(lake) == before
    assert len(kinds(lake)) == 2
    # what the one sees as nobody's is nobody's for the other, too
    for engine in (embedded, lake):
        given: dict[str, Any] = {"quarantine": False} if engine is embedded else {}
        told = await engine.run("vacuum", older_than_days=0, **given, **BELOW)
        assert told.status in {"completed", "skipped"}, told.problem
        assert left_behind(lake.table()) == set()
        assert seen(lake) == before


async def test_trino_commits_after_the_embedded_engine_rewrote_the_same_files(lake: Shared, embedded: Embedded) -> None:
    """PostgreSQL holds Trino's commit back until the other one is there: a conflict, and nothing left to do."""
    lake.make("t", rows(0), rows(10), rows(20))
    before, unchanged = by_trino(lake), lake.table().metadata_location
    completed(await embedded.run("compaction", min_input_files=2))
    compacted = lake.table().metadata_location
    stood = lake.table().current_snapshot()
    point(lake, unchanged)
    with lake.catalog.engine.connect() as connection:
        connection.execute(POINT, {"to": compacted, "ns": lake.namespace})  # the row is locked until the commit
        running = asyncio.create_task(lake.run("compaction", min_input_files=2))
        try:
            await asyncio.to_thread(wait_for_a_lock, lake)
        finally:
            connection.commit()
        done = await running
    assert done.status in {"completed", "skipped"}, done.problem
    assert done.metrics.get("conflicts_retried") or any("commit-conflict" in one for one in done.warnings)
    assert lake.table().current_snapshot() == stood
    assert seen(lake) == before


def test_the_embedded_engine_commits_after_trino_rewrote_the_same_files(lake: Shared) -> None:
    """A typed conflict, nothing of Trino's lost; what another append makes worth doing is done by a new plan."""
    table = lake.make("t", rows(0), rows(10), rows(20))
    plan = plan_of(table)

    def meanwhile(_: Any) -> None:
        insert(lake, rows(30))
        lake.sql("ALTER TABLE {t}.t EXECUTE optimize")

    with pytest.raises(CommitConflictError) as caught:
        carry_out(Interfering(open_plan(plan, table), meanwhile))
    assert caught.value.transient
    assert caught.value.problem().hint
    assert seen(lake).total() == 16
    assert kinds(lake)[-2:] == ["append", "replace"]
    insert(lake, rows(40))
    carry_out(open_plan(plan_of(lake.table()), table))
    assert seen(lake).total() == 20
    assert kinds(lake)[-1] == "replace"


async def test_files_that_expire_while_trino_plans_are_no_damage(
    lake: Shared, embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan is made without the lease: the other engine may expire what it is reading. It is made anew."""
    lake.make("t", rows(0), rows(10), rows(20))
    load, overtaken = IcebergMaintenanceBackend._load, list[MaintenanceResult]()

    def load_and_be_overtaken(backend: IcebergMaintenanceBackend, table: TableId) -> Table:
        found = load(backend, table)
        if backend.engine == "trino" and not overtaken:
            given = {"retention_days": 0, "retain_last": 1, **BELOW}
            overtaken.append(completed(asyncio.run(embedded.run("retention", **given))))
        return found

    monkeypatch.setattr(IcebergMaintenanceBackend, "_load", load_and_be_overtaken)
    told = await lake.run("vacuum", older_than_days=0, **BELOW)
    assert told.status in {"completed", "skipped"}, told.problem
    assert ["attempt 1 ended with state-drifted" in one for one in told.warnings].count(True) == 1
    assert seen(lake).total() == 12


POINT = sqlalchemy.text(
    "UPDATE iceberg_tables SET metadata_location = :to WHERE table_namespace = :ns AND table_name = 't'"
)


def point(lake: Shared, metadata: str) -> None:
    """Let the catalog point to other metadata of the table."""
    with lake.catalog.engine.begin() as connection:
        connection.execute(POINT, {"to": metadata, "ns": lake.namespace})


def wait_for_a_lock(lake: Shared) -> None:
    """Until somebody's commit waits."""
    waiting = sqlalchemy.text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ILIKE '%iceberg_tables%'"
    )
    until = time.monotonic() + 60
    while time.monotonic() < until:
        with lake.catalog.engine.connect() as connection:
            if connection.execute(waiting).scalar():
                return
        time.sleep(0.1)
    raise AssertionError("nobody came to a commit")


class Storm:
    """Two writers and both engines on one table, each in a thread, until each has done its share."""

    def __init__(self, lake: Shared, embedded: Embedded, share: int) -> None:
        self.lake, self.engines, self.share = lake, (lake, embedded), share
        self.over = threading.Event()
        self.done: Counter[str] = Counter()
        self.ids: list[int] = []
        self.told: list[MaintenanceResult] = []
        self.failed: list[BaseException] = []

    def rage(self) -> None:
        """Let them work; raises what any of them raised."""
        work = [self._append, self._insert, *(self._maintaining(engine) for engine in self.engines)]
        threads = [threading.Thread(target=self._guarded, args=(one,), daemon=True) for one in work]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 240
        while len(self.done) < len(work) or min(self.done.values()) < self.share:
            assert not self.failed, self.failed
            assert time.monotonic() < until, self.done
            time.sleep(0.1)
        self.over.set()
        for thread in threads:
            thread.join(120)
        assert not self.failed, self.failed

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self.failed.append(error)

    def _append(self) -> None:
        with self.lake.server.lake() as catalog:
            first = 0
            while not self.over.wait(0.2):
                table = catalog.load_table((self.lake.namespace, "t"))
                try:
                    table.append(typed(table, rows(first, "a")))
                except CommitFailedException:
                    continue  # Trino was faster
                self._account(first, "append")
                first += 10

    def _insert(self) -> None:
        first = 1_000_000
        while not self.over.wait(0.2):
            try:
                insert(self.lake, rows(first, "b"))
            except TrinoQueryError as error:
                if error.error_name != "ICEBERG_COMMIT_ERROR":
                    raise
                continue
            self._account(first, "insert")
            first += 10

    def _account(self, first: int, kind: str) -> None:
        self.ids += range(first, first + 4)
        self.done[kind] += 1

    def _maintaining(self, engine: Shared) -> Callable[[], None]:
        name = type(engine).__name__

        def maintain() -> None:
            while not self.over.is_set():
                for operation, given in OPERATIONS:
                    result = asyncio.run(engine.run(operation, **given))
                    self.told.append(result)
                    self.done[name] += operation == "compaction" and result.status == "completed"

        return maintain


OPERATIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("compaction", {"min_input_files": 2}),
    ("manifests", {}),
    ("retention", {"retention_days": 0, "retain_last": 30, **BELOW}),
)


@pytest.mark.parametrize("share", [1, pytest.param(3, marks=pytest.mark.thorough)])
@pytest.mark.timeout(600)
async def test_at_the_same_time(lake: Shared, embedded: Embedded, share: int) -> None:
    lake.make("t", rows(5_000_000), rows(5_000_010), **BY_HUB)
    storm = Storm(lake, embedded, share)
    await asyncio.to_thread(storm.rage)
    expected = sorted([*storm.ids, *(row["id"] for start in (0, 10) for row in rows(5_000_000 + start))])
    print(storm.done, Counter((str(one.status), one.problem.type if one.problem else "") for one in storm.told))
    assert sorted(row[0] for row in seen(lake).elements()) == expected
    wrong = [one for one in storm.told if one.problem is not None and one.problem.type not in LIVED_THROUGH]
    assert not wrong, [one.problem for one in wrong]
    for engine in (embedded, lake):
        for operation, given in OPERATIONS:
            result = await engine.run(operation, **given)
            assert result.status in {"completed", "skipped"}, result.problem
    assert sorted(row[0] for row in seen(lake).elements()) == expected
