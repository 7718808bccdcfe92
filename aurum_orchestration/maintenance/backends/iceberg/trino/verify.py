"""Proof that a statement which rewrites kept every row: Trino reads both sides of its commit and compares.

Both sides are pinned: the snapshot that our statement committed, and its parent. What others commit before, between
and after changes neither. Only what was rewritten is read: the files that the commit took out and put in, by name;
where it took delete files out too, which might apply to others, everything in the statement's scope. Of a table with
row lineage (format version 3) each row's id and last change are compared, too, once all rows have one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aurum_orchestration.errors import EngineError, RequestError, TableNotFoundError
from aurum_orchestration.maintenance.backends.iceberg.trino.client import Answer
from aurum_orchestration.maintenance.backends.iceberg.trino.commits import Made
from aurum_orchestration.maintenance.backends.iceberg.trino.row_checksum import checksum_of
from aurum_orchestration.maintenance.backends.iceberg.trino.shared_columns import (
    OTHER_SCHEMA,
    SharedColumns,
    by_catalog,
    by_trino,
    same_schema,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import literal
from aurum_orchestration.maintenance.backends.iceberg.trino.table import LINEAGE, TrinoTable
from aurum_orchestration.maintenance.interfaces import Verification

MOST_PATHS = 2_000
"""So many files are named in a statement at most; Trino takes a million characters."""

_COUNT, _CHECKSUM = "row-count (Trino)", "row-count+multiset-checksum (Trino)"


@dataclass(frozen=True, slots=True)
class Proof:
    """A comparison, and what Trino took for it: seconds of its statements, bytes read."""

    verification: Verification
    seconds: float
    bytes: int


def compare(table: TrinoTable, made: Made, scope: str, *, checksum: bool) -> Proof:
    """Compare the rows before and after a commit. ``scope``: the statement's condition, "" for the whole table."""
    touched = _touched(table, made)
    if made.number("removed-equality-deletes") or not same_schema(made):
        scope = ""  # these may have applied anywhere, and its columns may have had other names
    before_where, after_where = (_paths(touched[0]), _paths(touched[1])) if touched is not None else (scope, scope)
    columns = table.columns(made.seen) if checksum else []
    method = _CHECKSUM if checksum else _COUNT
    sides = (made.parent_id, before_where), (made.snapshot_id, after_where)
    lineage = checksum and table.has_lineage(made.seen)
    shared = by_catalog(made, columns)
    try:
        answer = _both(table, sides, shared, lineage=lineage)
    except RequestError as error:
        if not any(name in error.detail for name in OTHER_SCHEMA):
            raise
        shared = by_trino(table, made, columns)
        answer = _both(table, sides, shared, lineage=lineage)
    if len(shared.after) < len(columns):
        method = f"{method} of {len(shared.after)} of {len(columns)} columns"
    seconds, read = answer.seconds, answer.processed_bytes
    if lineage and any(rows != with_id for side, rows, _, with_id in answer.rows if side == 0):
        # rows from before the table was upgraded get their ids by the rewrite
        answer = _both(table, sides, shared, lineage=False)
        seconds, read = seconds + answer.seconds, read + answer.processed_bytes
    elif lineage:
        method = f"{method} with row ids"
    found = {int(side): (int(rows), checksum) for side, rows, checksum, *_ in answer.rows}
    (rows_before, before), (rows_after, after) = found[0], found[1]
    verification = Verification(
        method=method, rows_before=rows_before, rows_after=rows_after, checksum_equal=before == after
    )
    return Proof(verification, seconds, read)


def _both(table: TrinoTable, sides: Sequence[tuple[int, str]], columns: SharedColumns, *, lineage: bool) -> Answer:
    """A row for each side, a snapshot and a condition: its number, its rows, their checksum, how many have an id."""
    checksums = [
        checksum_of([*(LINEAGE if lineage else ()), *mine]) if mine else "CAST(NULL AS varbinary)" for mine in columns
    ]
    ids = ', count("$row_id")' if lineage else ""
    return table.query(
        " UNION ALL ".join(
            f"SELECT {number}, count(*), {checksums[number]}{ids} FROM {table.at(snapshot_id)}"
            + (f" WHERE {where}" if where else "")
            for number, (snapshot_id, where) in enumerate(sides)
        )
    )


def _touched(table: TrinoTable, made: Made) -> tuple[list[str], list[str]] | None:
    """Data files that a commit took out and put in; None when everything in its scope has to be read."""
    out, put_in = made.number("deleted-data-files"), made.number("added-data-files")
    deletes = made.number("removed-delete-files") + made.number("added-delete-files")
    if deletes or out + put_in > MOST_PATHS:
        return None
    found = _by_catalog(table, made) if table.embedded is not None else _by_trino(table, made)
    removed = [path for path, is_new in found if not is_new]
    added = [path for path, is_new in found if is_new]
    return (removed, added) if (len(removed), len(added)) == (out, put_in) else None


def _by_catalog(table: TrinoTable, made: Made) -> list[tuple[str, bool]]:
    """Data files that a snapshot took out and put in (True)."""
    from aurum_orchestration.maintenance.backends.iceberg.trino.from_catalog import changed_files

    assert table.embedded is not None
    return changed_files(made.seen or table.embedded.refresh(), made.snapshot_id)


def _by_trino(table: TrinoTable, made: Made) -> list[tuple[str, bool]]:
    """The same from Trino's own tables; empty where it cannot tell."""
    entries = "$entries" if table.head() == made.snapshot_id else "$all_entries"
    try:
        rows = table.query(
            f"SELECT DISTINCT data_file.file_path, status FROM {table.relation(entries)} "
            f"WHERE snapshot_id = {made.snapshot_id} AND status IN (1, 2) AND data_file.content = 0"
        ).rows
    except (EngineError, TableNotFoundError):
        # 476 fails on files without a sort order id, as PyIceberg writes them; 468 does not have these tables
        return []
    return [(str(path), status == 1) for path, status in rows]


def _paths(paths: Sequence[str]) -> str:
    return f'"$path" IN ({", ".join(literal(path) for path in paths)})' if paths else "false"
