"""Listing a catalog's tables through Trino: two statements, however many there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from aurum_orchestration.fleet.table_id import TableId, discovered_by
from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import ident, literal
from aurum_orchestration.maintenance.interfaces import DiscoveredTable

_OF_TRINO = ("information_schema", "system")


def list_tables(
    client: TrinoClient, backend: str, patterns: Sequence[str], *, names_only: bool = False
) -> list[DiscoveredTable]:
    """The tables that the patterns cover, sorted by id, with their columns unless ``names_only``.

    Raises the client's errors. Where their data is Trino tells of one table at a time only, so that is left empty.
    """
    schema = f"{ident(client.catalog)}.information_schema"
    hidden = ", ".join(map(literal, _OF_TRINO))
    listed = client.query(
        f"SELECT table_schema, table_name FROM {schema}.tables "
        f"WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ({hidden})",
        operation="discover",
        retry=True,
    )
    found = {
        (namespace, name): table
        for namespace, name in listed.rows
        if discovered_by(patterns, table := TableId(backend, (*str(namespace).split("."), str(name))))
    }
    columns: defaultdict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    if found and not names_only:
        schemas = ", ".join(literal(name) for name in sorted({namespace for namespace, _ in found}))
        told = client.query(
            f"SELECT table_schema, table_name, column_name, data_type FROM {schema}.columns "
            f"WHERE table_schema IN ({schemas}) ORDER BY ordinal_position",
            operation="discover",
            retry=True,
        )
        for namespace, name, column, type_ in told.rows:
            columns[namespace, name].append((column, type_))
    return [
        DiscoveredTable(table, "iceberg", columns=tuple(columns[key]))
        for key, table in sorted(found.items(), key=lambda item: item[1])
    ]
