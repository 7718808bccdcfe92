"""Processes that write to one table while it is maintained, each keeping its own account of what it committed.

Every writer owns the ids of a range and is the only one that changes their rows, so its account alone says which of
them there must be at the end. A commit that another writer was faster than is tried again from a fresh load, as any
engine does; what was refused is not accounted. The rows of several writers share files.
"""

from __future__ import annotations

import os
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import connection, parent_process
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.table import Table
from sqlalchemy.exc import OperationalError

from aurum_orchestration_tests.faults.steps import live_for
from aurum_orchestration_tests.iceberg_deletes import add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.cleanup.judges import NOW, plant
from aurum_orchestration_tests.integration.iceberg.merged import upsert
from aurum_orchestration_tests.integration.iceberg.support import local
from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside, contents

RANGE = 1_000_000
REGIONS = ("N", "S")
Run = tuple[str, str, str, str]
"""Operation, status, problem, reason."""
FLEET = """\
version: 1
backends:
  lake:
    type: iceberg
    engine: pyiceberg
    catalog: {{type: sql, uri: "{uri}", warehouse: "file://{home}/warehouse"}}
"""
_REFUSED = (CommitFailedException, FileNotFoundError, ValueError)
"""Another writer was faster; a file of an expired snapshot is gone; the snapshot to tag is."""


@contextmanager
def lake_on(home: Path, uri: str) -> Iterator[Lakeside]:
    """The lake ``home`` whose catalog is at ``uri``."""
    home.mkdir(parents=True, exist_ok=True)
    fleet = home / "fleet.yaml"
    if not fleet.exists():
        fleet.write_text(FLEET.format(uri=uri, home=home), encoding="utf-8")
    catalog = SqlCatalog("lake", uri=uri, warehouse=f"file://{home}/warehouse")
    try:
        yield Lakeside(home, catalog)
    finally:
        catalog.close()


@dataclass(frozen=True)
class Ground:
    """Where the processes work, until ``stop``; ``progress`` has a counter for each process.

    ``expiries`` has one for each engine: its completed retentions. ``ahead``: so many commits more than the slowest of
    the ``writers`` each of them makes at most (None: as many as it can); quick ones refuse the slow by their own.
    """

    home: Path
    uri: str
    stop: Event
    progress: Any
    expiries: Any
    writers: int
    ahead: int | None

    @contextmanager
    def lake(self) -> Iterator[Lakeside]:
        with lake_on(self.home, self.uri) as lake:
            yield lake


@dataclass
class Account:
    """What a writer committed: its rows by id, the tags it made with the rows that they keep."""

    rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    tags: dict[str, Counter[str]] = field(default_factory=dict)
    commits: int = 0
    refused: int = 0


class Writer:
    """One writer, number ``number``: how it changes its rows is told by its kind."""

    def __init__(self, ground: Ground, number: int) -> None:
        self.ground, self.number, self.account = ground, number, Account()
        self.chance = random.Random(number)
        self._next = number * RANGE

    def work(self, change: Callable[[Writer, Table], Callable[[], None]]) -> Account:
        """Append and ``change`` by turns until told to stop."""
        with self.ground.lake() as lake:
            turn = 0
            while not self.ground.stop.is_set():
                turn += 1
                done = self._attempt(lake, append if turn % 3 == 1 or not self.account.rows else change)
                self.account.commits += done
                self.account.refused += not done
                self.ground.progress[self.number] = self.account.commits
                if done:
                    time.sleep(self.chance.random() * 0.1)
                while self._ahead() and not self.ground.stop.is_set():
                    time.sleep(0.05)
        return self.account

    def _ahead(self) -> bool:
        slowest = min(self.ground.progress[: self.ground.writers])
        return self.ground.ahead is not None and self.account.commits > slowest + self.ground.ahead

    def _attempt(self, lake: Lakeside, change: Callable[[Writer, Table], Callable[[], None]]) -> bool:
        try:
            account = change(self, lake.catalog.load_table("ns.t"))
        except _REFUSED:
            return False
        except OperationalError as error:
            if "locked" not in str(error):
                raise
            return False
        account()
        return True

    def new_rows(self, count: int) -> list[dict[str, Any]]:
        """Rows with ids that were never used."""
        first, self._next = self._next, self._next + count
        return [{"id": one, "region": self.chance.choice(REGIONS), "note": "new"} for one in range(first, self._next)]

    def some_ids(self, most: int = 8) -> list[int]:
        ids = sorted(self.account.rows)
        return self.chance.sample(ids, min(most, len(ids)))


def as_table(table: Table, rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema_to_pyarrow(table.schema(), include_field_ids=False))


def append(writer: Writer, table: Table) -> Callable[[], None]:
    rows = writer.new_rows(writer.chance.randint(5, 20))
    table.append(as_table(table, rows))
    return lambda: writer.account.rows.update({row["id"]: row for row in rows})


def copy_on_write(writer: Writer, table: Table) -> Callable[[], None]:
    """Delete rows by writing the files anew that have them, others' rows included."""
    ids = writer.some_ids()
    table.delete(f"id in ({', '.join(map(str, ids))})")
    return lambda: forget(writer, ids)


def merge_on_read(writer: Writer, table: Table) -> Callable[[], None]:
    """Delete rows by a file of positions."""
    ids = set(writer.some_ids())
    positions: dict[str, list[int]] = {}
    for file in live_data_files(table):
        stored = pq.read_table(local(file.file_path), columns=["id"])["id"].to_pylist()
        if hits := [place for place, one in enumerate(stored) if one in ids]:
            positions[file.file_path] = hits
    add_position_deletes(table, positions, file_scoped=writer.chance.random() < 0.5)
    return lambda: forget(writer, list(ids))


def forget(writer: Writer, ids: list[int]) -> None:
    for one in ids:
        del writer.account.rows[one]


def update(writer: Writer, table: Table) -> Callable[[], None]:
    """Upsert: some rows get another note and region, some are new."""
    rows = writer.new_rows(3)
    rows += [{**writer.account.rows[one], "note": f"version {writer.account.commits}"} for one in writer.some_ids(5)]
    table.upsert(as_table(table, rows), join_cols=["id"])
    return lambda: writer.account.rows.update({row["id"]: row for row in rows})


def stream(writer: Writer, table: Table) -> Callable[[], None]:
    """Upsert as Flink does it: equality deletes of the keys and the new rows in one commit."""
    rows = writer.new_rows(3)
    rows += [{**writer.account.rows[one], "note": f"version {writer.account.commits}"} for one in writer.some_ids(5)]
    upsert(table, rows, ["id"])
    return lambda: writer.account.rows.update({row["id"]: row for row in rows})


def tag(writer: Writer, table: Table) -> Callable[[], None]:
    """Tag the head, and note which rows it keeps."""
    head = table.current_snapshot()
    if head is None or len(writer.account.tags) >= 10:
        return append(writer, table)
    rows = contents(table)
    name = f"of-{writer.number}-{writer.account.commits}"
    table.manage_snapshots().create_tag(head.snapshot_id, name).commit()
    return lambda: writer.account.tags.update({name: rows})


KINDS = {one.__name__: one for one in (append, copy_on_write, merge_on_read, update, stream, tag)}


def _end_with_parent() -> None:
    """Let this process end as soon as the test's has, however that ended: nobody else would tell it to stop."""
    parent = parent_process()
    assert parent is not None

    def watch(sentinel: int) -> None:
        connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def write(ground: Ground, number: int, kind: str, answer: Connection) -> None:
    """A process: write until told to stop, then hand over the account."""
    _end_with_parent()
    answer.send(Writer(ground, number).work(KINDS[kind]))
    answer.close()


def maintain(ground: Ground, number: int, engine: int, ttl: float | None, answer: Connection) -> None:
    """A process: one operation after the other in a loop, orphans planted meanwhile; answer with what each run said.

    The first engine bin-packs and keeps few snapshots, the second sorts. ``ttl``: the life of its leases in seconds.
    """
    _end_with_parent()
    if ttl is not None:
        live_for(ttl)
    told: list[Run] = []
    strategy = {"strategy": "sort", "sort_columns": "id"} if engine else {}
    operations: Sequence[tuple[str, dict[str, Any]]] = (
        ("compaction", {"min_input_files": 2, "max_delete_files": 1, **strategy}),
        ("retention", {**NOW, "retain_last": 2 + 3 * engine}),
        ("manifests", {}),
        ("backup", {"keep_last": 2}),
        ("vacuum", {}),
    )
    with ground.lake() as lake:
        while not ground.stop.is_set():
            plant(lake.catalog.load_table("ns.t"), f"data/orphan-{uuid.uuid4()}.parquet")
            for operation, parameters in operations:
                result = lake.run(operation, **parameters)
                problem = result.problem.type if result.problem else ""
                told.append((operation, str(result.status), problem, result.reason))
                completed = str(result.status) == "completed"
                ground.progress[number] += operation == "compaction" and completed
                ground.expiries[engine] += operation == "retention" and completed
    answer.send(told)
    answer.close()
