"""Other tables of the catalog that share a table's location, found through Trino alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from aurum_orchestration.errors import AurumError, TableNotFoundError, TransientError, UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.reachability import LOCATION_PROPERTIES, normalised
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import ident, literal, schema_of

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable

_BATCH = 50
_KEYS = ("location", *LOCATION_PROPERTIES)
_HINT = "Give each table a location of its own, or give the backend its catalog: then the files are told one by one."

Named = tuple[str, str]
"""Schema and table."""


def refuse_neighbours(table: TrinoTable) -> None:
    """Raise UnsupportedError naming a table of the catalog that lies in, around or at the table's location."""
    own_name = (schema_of(table.table_id), table.table_id.name.lower())
    own = [location for _, location in _locations(table, [own_name])]
    if not own:
        raise UnsupportedError("this Trino does not tell where the table lies", hint=_HINT)
    listed = table.query(
        f"SELECT table_schema, table_name FROM {ident(table.client.catalog)}.information_schema.tables "
        "WHERE table_type = 'BASE TABLE' AND table_schema <> 'information_schema'"
    )
    others = [(str(schema), str(name)) for schema, name in listed.rows if (schema, name) != own_name]
    untold: list[str] = []
    for start in range(0, len(others), _BATCH):
        for (schema, name), location in _of_batch(table, others[start : start + _BATCH], untold):
            for mine in own:
                if location == mine or location.startswith(f"{mine}/") or mine.startswith(f"{location}/"):
                    raise UnsupportedError(
                        f"{schema}.{name} uses {location}, this table {mine}: one's files would be the other's orphans",
                        hint=_HINT,
                    )
    if untold:
        raise UnsupportedError(f"its files might be here: {untold[0]}", hint=_HINT)


def _of_batch(table: TrinoTable, names: Sequence[Named], untold: list[str]) -> Iterator[tuple[Named, str]]:
    """Locations of many tables by one statement; one by one when a table among them cannot be read: ``untold``."""
    try:
        yield from _locations(table, names)
    except TransientError:
        raise
    except AurumError:
        for name in names:
            try:
                yield from _locations(table, [name])
            except TableNotFoundError:
                continue
            except AurumError as error:
                untold.append(f"where {name[0]}.{name[1]} lies cannot be told: {error.detail}")


def _locations(table: TrinoTable, names: Sequence[Named]) -> list[tuple[Named, str]]:
    keys = ", ".join(literal(key) for key in _KEYS)
    parts = [
        f"SELECT {number}, value FROM {ident(table.client.catalog)}.{ident(schema)}.{ident(name + '$properties')} "
        f"WHERE key IN ({keys})"
        for number, (schema, name) in enumerate(names)
    ]
    return [(names[number], normalised(value)) for number, value in table.query(" UNION ALL ".join(parts)).rows]
