"""Proof that a statement which rewrites kept every row: Trino reads both sides of its commit and compares.

Both sides are pinned: the snapshot that our statement committed, and its parent. What others commit before, between
and after changes neither. Only what was rewritten is read: the files that the commit took out and put in, by name;
where it took delete files out too, which might apply to others, everything in the statement's scope.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aurum_orchestration.errors import EngineError, RequestError
from aurum_orchestration.maintenance.backends.iceberg.trino.commits import Made
from aurum_orchestration.maintenance.backends.iceberg.trino.row_checksum import checksum_of
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import literal
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
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


@dataclass(frozen=True, slots=True)
class _Side:
    rows: int
    checksum: object
    seconds: float
    bytes: int


def compare(table: TrinoTable, made: Made, scope: str, *, checksum: bool) -> Proof:
    """Compare the rows before and after a commit. ``scope``: the statement's condition, "" for the whole table."""
    touched = _touched(table, made)
    if made.number("removed-equality-deletes"):
        scope = ""  # these may have applied anywhere
    before_where, after_where = (_paths(touched[0]), _paths(touched[1])) if touched is not None else (scope, scope)
    columns = table.columns() if checksum else []
    method = _CHECKSUM if checksum else _COUNT
    try:
        before = _side(table, made.parent_id, before_where, columns)
    except RequestError as error:
        if "COLUMN_NOT_FOUND" not in error.detail:
            raise
        # columns were added or renamed since the snapshot before: a snapshot is read with its own columns
        known = set(table.query(f"SELECT * FROM {_at(table, made.parent_id)} LIMIT 0").columns)
        kept = [column for column in columns if column[0] in known]
        method = f"{method} of {len(kept)} of {len(columns)} columns"
        columns = kept
        before = _side(table, made.parent_id, before_where, columns)
    after = _side(table, made.snapshot_id, after_where, columns)
    verification = Verification(
        method=method,
        rows_before=before.rows,
        rows_after=after.rows,
        checksum_equal=before.checksum == after.checksum,
    )
    return Proof(verification, before.seconds + after.seconds, before.bytes + after.bytes)


def _side(table: TrinoTable, snapshot_id: int, where: str, columns: Sequence[tuple[str, str]]) -> _Side:
    checksum = checksum_of(columns) if columns else "NULL"
    condition = f" WHERE {where}" if where else ""
    answer = table.query(f"SELECT count(*), {checksum} FROM {_at(table, snapshot_id)}{condition}", operation="verify")
    rows, found = answer.first()
    return _Side(int(rows), found, answer.seconds, answer.processed_bytes)


def _at(table: TrinoTable, snapshot_id: int) -> str:
    return f"{table.name} FOR VERSION AS OF {snapshot_id}"


def _touched(table: TrinoTable, made: Made) -> tuple[list[str], list[str]] | None:
    """Data files that a commit took out and put in; None when everything in its scope has to be read."""
    out, put_in = made.number("deleted-data-files"), made.number("added-data-files")
    deletes = made.number("removed-delete-files") + made.number("added-delete-files")
    if deletes or max(out, put_in) > MOST_PATHS:
        return None
    found = _by_catalog(table, made) if table.embedded is not None else _by_trino(table, made)
    removed = [path for path, is_new in found if not is_new]
    added = [path for path, is_new in found if is_new]
    return (removed, added) if (len(removed), len(added)) == (out, put_in) else None


def _by_catalog(table: TrinoTable, made: Made) -> list[tuple[str, bool]]:
    """Data files that a snapshot took out and put in (True), from the manifests that it wrote."""
    from pyiceberg.manifest import DataFileContent, ManifestEntryStatus

    assert table.embedded is not None
    loaded = table.embedded.refresh()
    snapshot = loaded.metadata.snapshot_by_id(made.snapshot_id)
    return [
        (entry.data_file.file_path, entry.status == ManifestEntryStatus.ADDED)
        for manifest in (snapshot.manifests(loaded.io) if snapshot is not None else ())
        if manifest.added_snapshot_id == made.snapshot_id
        for entry in manifest.fetch_manifest_entry(loaded.io, discard_deleted=False)
        if entry.status != ManifestEntryStatus.EXISTING
        and entry.snapshot_id == made.snapshot_id
        and entry.data_file.content == DataFileContent.DATA
    ]


def _by_trino(table: TrinoTable, made: Made) -> list[tuple[str, bool]]:
    """The same from Trino's own tables; empty where it cannot tell."""
    entries = "$entries" if table.head() == made.snapshot_id else "$all_entries"
    try:
        rows = table.query(
            f"SELECT DISTINCT data_file.file_path, status FROM {table.relation(entries)} "
            f"WHERE snapshot_id = {made.snapshot_id} AND status IN (1, 2) AND data_file.content = 0"
        ).rows
    except EngineError:
        return []  # 476 fails on files without a sort order id, as PyIceberg writes them
    return [(str(path), status == 1) for path, status in rows]


def _paths(paths: Sequence[str]) -> str:
    return f'"$path" IN ({", ".join(literal(path) for path in paths)})' if paths else "false"
