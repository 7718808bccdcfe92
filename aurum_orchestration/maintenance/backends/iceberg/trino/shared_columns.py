"""Which columns two snapshots share: Trino reads each with the names and types of its own schema.

A name may be another column's by now: a column was dropped and one of its name added, or columns changed names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from aurum_orchestration.maintenance.backends.iceberg.trino.commits import Made
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import ident
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable

if TYPE_CHECKING:
    from pyiceberg.schema import Schema

Column = tuple[str, str]
"""Name and Trino type."""

OTHER_SCHEMA = ("COLUMN_NOT_FOUND", "TYPE_MISMATCH", "INVALID_CAST_ARGUMENT")
"""How Trino refuses to read a snapshot by names and types that it did not have."""

_PROMOTED = {("integer", "bigint"), ("real", "double")}


class SharedColumns(NamedTuple):
    """The same columns in the same order, as the snapshot before and the one after name them; types are the later."""

    before: Sequence[Column]
    after: Sequence[Column]


def same_schema(made: Made) -> bool:
    """Whether both snapshots of a commit have one schema, as far as the catalog tells."""
    return _schemas(made) is None


def by_catalog(made: Made, columns: Sequence[Column]) -> SharedColumns:
    """The columns that both snapshots of a commit have, by their ids; all of them where the catalog tells no change."""
    schemas = _schemas(made)
    if schemas is None:
        return SharedColumns(columns, columns)
    was, kinds = {field.field_id: field for field in schemas[0].fields}, dict(columns)
    pairs = []
    for field in schemas[1].fields:
        old, kind = was.get(field.field_id), kinds.get(field.name.lower())
        if old is None or kind is None:
            continue
        if old.field_type == field.field_type or kind.startswith(("bigint", "double", "decimal")):
            pairs.append(((old.name.lower(), kind), (field.name.lower(), kind)))
    return SharedColumns([before for before, _ in pairs], [after for _, after in pairs])


def by_trino(table: TrinoTable, made: Made, columns: Sequence[Column]) -> SharedColumns:
    """The columns that the snapshot before has by the same name and type, or by one that was promoted to it."""
    at = table.at(made.parent_id)
    names = table.query(f"SELECT * FROM {at} LIMIT 0").columns
    known = dict(zip(names, table.types_of([ident(name) for name in names], at), strict=True))
    kept = [(name, kind) for name, kind in columns if name in known and _is_read_as(known[name], kind)]
    return SharedColumns(kept, kept)


def _schemas(made: Made) -> tuple[Schema, Schema] | None:
    """The schemas before and after, None where they are one or nobody tells."""
    if made.seen is None:
        return None
    metadata = made.seen.metadata
    schemas = {schema.schema_id: schema for schema in metadata.schemas}
    before, after = (
        schemas.get(snapshot.schema_id) if snapshot is not None and snapshot.schema_id is not None else None
        for snapshot in map(metadata.snapshot_by_id, (made.parent_id, made.snapshot_id))
    )
    if before is None or after is None or before.schema_id == after.schema_id:
        return None
    return before, after


def _is_read_as(was: str, kind: str) -> bool:
    return was == kind or (was, kind) in _PROMOTED or (was.startswith("decimal") and kind.startswith("decimal"))
