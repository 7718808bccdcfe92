"""Batches whose rows are written to Parquet files before their deletion is committed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import time
from typing import Any

import pyarrow as pa
from psycopg import sql

from aurum_orchestration.errors import AurumError
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.rows.ledger import Ledger
from aurum_orchestration.maintenance.backends.postgres.rows.relation import Column, Leaf
from aurum_orchestration.maintenance.backends.postgres.rows.removal import Removal, require_right
from aurum_orchestration.maintenance.backends.rules.archive import Outcome, ParquetArchive
from aurum_orchestration.maintenance.backends.rules.work import Taken
from aurum_orchestration.maintenance.interfaces import RunContext

_ARROW = {
    "bool": pa.bool_(),
    "int2": pa.int16(),
    "int4": pa.int32(),
    "int8": pa.int64(),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bytea": pa.binary(),
}
"""Types that keep their type in Parquet, whatever the value."""

_FROM_TEXT = {
    "timestamptz": pa.timestamp("us", "UTC"),
    "timestamp": pa.timestamp("us"),
    "date": pa.date32(),
    "time": pa.time64("us"),
}
"""Types that keep it unless they hold what only PostgreSQL has, such as infinity; these come as text.

All others are written as PostgreSQL's text of them.
"""


_NUMERIC = re.compile(r"^numeric\((\d+),(\d+)\)$")
_DIGITS = 38


class Export:
    """Writes the rows of batches to an archive, on the session that deletes them."""

    def __init__(self, archive: ParquetArchive, session: Session, run: RunContext) -> None:
        self._archive, self._session, self._run = archive, session, run
        self._number = 0

    def settle(self) -> list[str]:
        """What killed runs left is put in its place or removed, by how their transactions ended."""
        return self._archive.settle(self._outcome)

    def take(
        self, removal: Removal, ledger: Ledger, leaf: Leaf, where: sql.Composable, rows: int, *, ordered: bool
    ) -> tuple[Taken, str | None]:
        """One batch: deleted, written, read back, then committed. Also the newest time that was picked."""
        columns = removal.table.columns
        query = removal.batch(leaf, where, rows, ordered=ordered) + sql.SQL(
            "SELECT {values}, {judge}, (SELECT count(*) FROM picked), (SELECT max(moment)::text FROM picked) FROM gone"
        ).format(values=sql.SQL(", ").join(map(_value, columns)), judge=removal.judge())
        path = None
        try:
            with self._session.transaction(), ledger.page(self._session) as page:
                found = self._session.tuples(query)
                page.deleted = len(found)
                if not found:
                    return Taken(0, 0, more=True), None
                token = self._session.value("SELECT pg_current_xact_id()::text")
                self._number += 1
                path = self._archive.write(_arrow(columns, found), self._run.operation_id, self._number, token)
                require_right(len(found), len(found), all(row[-3] for row in found))
        except AurumError:
            if path is not None and self._outcome(token) == "aborted":
                self._archive.drop(path)
            raise
        self._archive.confirm(path)
        taken = Taken(len(found), found[0][-2], more=True, archived=len(found), counted=page.gone)
        return taken, found[0][-1]

    def _outcome(self, token: str) -> Outcome:
        try:
            told = self._session.value("SELECT pg_xact_status(%s::xid8)", (token,))
        except AurumError:  # of another server, or so old that nobody knows
            return "unknown"
        outcomes: dict[str, Outcome] = {"committed": "committed", "aborted": "aborted", "in progress": "running"}
        return outcomes.get(told, "unknown")


def _value(column: Column) -> sql.Composable:
    name = sql.Identifier(column.name)
    return name if column.base in _ARROW else sql.SQL("{}::text").format(name)


def _type(column: Column) -> pa.DataType:
    """The Arrow type that a column's text is to get."""
    digits = _NUMERIC.match(column.type)
    if column.base == "numeric" and digits is not None and int(digits[1]) <= _DIGITS:
        return pa.decimal128(int(digits[1]), int(digits[2]))
    return _FROM_TEXT.get(column.base, pa.string())


def _arrow(columns: Sequence[Column], rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    """The rows as an Arrow table. A column with a value that Parquet does not have stays text."""
    arrays = {}
    for place, column in enumerate(columns):
        values = [row[place] for row in rows]
        known = _ARROW.get(column.base)
        arrays[column.name] = _typed(values, _type(column)) if known is None else pa.array(values, type=known)
    return pa.table(arrays)


def _typed(values: Sequence[str | None], wanted: pa.DataType) -> pa.Array:
    text = pa.array(values, type=pa.string())
    try:
        if pa.types.is_time(wanted):  # Arrow casts no text to it
            return pa.array([None if one is None else time.fromisoformat(one) for one in values], type=wanted)
        return text.cast(wanted)
    except ValueError:  # pa.ArrowInvalid is one
        return text
