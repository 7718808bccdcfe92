"""A table of Trino's that faults happen to: every operation has work on it, and what must hold of it is told here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy
from pyiceberg.transforms import IdentityTransform
from trino.exceptions import TrinoQueryError

from aurum_orchestration.errors import ProblemDetail
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration_tests.faults.reading import Bag, Reader
from aurum_orchestration_tests.integration.iceberg.support import left_behind, local, spec_of
from aurum_orchestration_tests.integration.trino.upkeep import BELOW, Shared, shared
from aurum_orchestration_tests.servers.trino import TrinoServer

PARAMETERS: Mapping[str, dict[str, Any]] = {
    "compaction": {"min_input_files": 2},
    "retention": {"retention_days": 7, "retain_last": 1},
    "vacuum": {"older_than_days": 7},
    "manifests": {"everything": True},
    "partition_evolution": {"spec": ["bucket(2, id)"]},
    "stats": {"ndv": True},
}
_DAY = 86_400


@dataclass(frozen=True)
class Site(Shared):
    """``keys`` are further keys of the backend, such as a proxy's port."""

    keys: dict[str, Any] = field(default_factory=dict)
    reader: Reader = field(default_factory=Reader)

    def config(self, **given: Any) -> dict[str, Any]:
        """As of any table of the tests, and the keys."""
        return {**super().config(**given), **self.keys}

    def snapshots(self) -> dict[int, Bag]:
        """The rows of every snapshot, in the order of their commits, read by neither engine."""
        now = self.table()
        return {one.snapshot_id: self.reader.bag(now, one, now.schema()) for one in now.snapshots()}

    async def go(self, operation: str, **given: Any) -> MaintenanceResult:
        """One operation, with parameters that give it something to do."""
        return await self.run(operation, **{**PARAMETERS.get(operation, {}), **given})

    def held(self, before: Mapping[int, Bag]) -> None:
        """Every snapshot that is there shows its rows, the newest those of the newest before; the tag stands."""
        now, table = self.snapshots(), self.table()
        kept = {one: rows for one, rows in now.items() if one in before}
        assert kept == {one: before[one] for one in kept}
        assert now[table.metadata.current_snapshot_id or 0] == list(before.values())[-1]
        assert table.refs()["theirs"].snapshot_id == list(before)[1]

    async def finish(self, operation: str, before: Mapping[int, Bag]) -> None:
        """The rows are there, the next run completes, and after a vacuum nothing is left that nothing refers to."""
        self.held(before)
        done = await self.go(operation)
        assert done.status in {"completed", "skipped"}, done.problem
        assert done.verification is None or done.verification.ok
        self.held(before)
        done = await self.go("vacuum", older_than_days=0, **BELOW)
        assert done.status in {"completed", "skipped"}, done.problem
        assert left_behind(self.table()) == set()
        self.held(before)


@contextmanager
def site(server: TrinoServer, home: Path, **keys: Any) -> Iterator[Site]:
    """Two partitions of three old files, a delete, a tag, a young file, an old orphan."""
    with shared(server, home) as lake:
        files = ([{"id": 10 * number + row, "hub": "NS"[number // 3]} for row in range(3)] for number in range(6))
        made = lake.make("t", *files, spec=spec_of((3, IdentityTransform(), "of_hub")))
        lake.sql("DELETE FROM {t}.t WHERE id = 11")
        lake.table().manage_snapshots().create_tag(made.snapshots()[1].snapshot_id, "theirs").commit()
        lake.aged("t", 30)
        lake.sql("INSERT INTO {t}.t VALUES (100, NULL, 'N', 1e0)")
        orphan = local(f"{made.location()}/data/lost.parquet")
        orphan.write_bytes(b"PAR1")
        moment = time.time() - 30 * _DAY
        os.utime(orphan, (moment, moment))
        yield Site(lake.server, lake.catalog, lake.namespace, home, keys)


def told(result: MaintenanceResult, kind: str, *, transient: bool) -> ProblemDetail:
    """The run failed with a problem of a kind that says what to do."""
    assert result.status == "failed", result.reason
    problem = result.problem
    assert problem is not None
    assert (problem.type, problem.transient) == (kind, transient), problem
    assert problem.detail
    assert problem.hint
    return problem


@contextmanager
def commits_held_back(lake: Shared) -> Iterator[Callable[[], None]]:
    """PostgreSQL lets nobody commit to the table until the end; gives what waits until somebody wants to."""
    lock = sqlalchemy.text("SELECT 1 FROM iceberg_tables WHERE table_namespace = :ns FOR UPDATE")
    # for this lock: another worker's test may hold back commits to a table of its own
    waiting = sqlalchemy.text("SELECT count(*) FROM pg_stat_activity WHERE :ours = ANY (pg_blocking_pids(pid))")

    with lake.catalog.engine.connect() as connection:
        connection.execute(lock, {"ns": lake.namespace})
        ours = connection.scalar(sqlalchemy.text("SELECT pg_backend_pid()"))

        def until_one_waits() -> None:
            until = time.monotonic() + 120
            while time.monotonic() < until:
                with lake.catalog.engine.connect() as asking:
                    if asking.scalar(waiting, {"ours": ours}):
                        return
                time.sleep(0.1)
            raise AssertionError("nobody came to a commit")

        try:
            yield until_one_waits
        finally:
            connection.rollback()


def end_waiting_commits(lake: Shared) -> None:
    """PostgreSQL ends the sessions of those whose commit waits, as it does in time when their machine is gone."""
    with lake.catalog.engine.connect() as connection:
        connection.execute(
            sqlalchemy.text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE wait_event_type = 'Lock' AND query ILIKE '%update%iceberg_tables%'"
            )
        )


def end_what_runs(lake: Site) -> None:
    """A statement whose rows nobody fetches would wait for minutes: an administrator ends it."""
    asked = (
        "SELECT query_id FROM system.runtime.queries WHERE state NOT IN ('FINISHED', 'FAILED') "
        f"AND regexp_like(query, '^(ALTER TABLE|ANALYZE) .*{lake.namespace}')"
    )
    until = time.monotonic() + 60
    while (found := lake.server.sql(asked)) and time.monotonic() < until:
        with suppress(TrinoQueryError):  # it ended meanwhile
            lake.server.sql(f"CALL system.runtime.kill_query(query_id => '{found[0][0]}', message => 'over')")
