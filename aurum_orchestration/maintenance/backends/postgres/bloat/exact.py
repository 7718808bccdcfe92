"""Bloat read from the table itself with the extension pgstattuple: exact, and as slow as reading everything."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from aurum_orchestration.errors import AurumError
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.table import PgTable

_SCHEMA = "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = %s"


def exact_table(session: Session, table: PgTable) -> dict[str, float]:
    """The metrics of the table that pgstattuple tells. What dead rows take counts as unused."""
    query = sql.SQL("SELECT * FROM {}(%s::oid::regclass)").format(_function(session, "pgstattuple"))
    row = session.row(query, (table.oid,))
    unused = float(row.free_space + row.dead_tuple_len)
    return {
        "rows": float(row.tuple_count),
        "dead_tuples": float(row.dead_tuple_count),
        "table_bloat_bytes": unused,
        "table_bloat_ratio": round(unused / row.table_len, 4) if row.table_len else 0.0,
    }


def exact_indexes(session: Session, indexes: list[dict[str, Any]]) -> None:
    """Put what pgstatindex tells in place of the estimates; other kinds of indexes keep none."""
    query = sql.SQL("SELECT avg_leaf_density, index_size FROM {}(%s)").format(_function(session, "pgstatindex"))
    for index in indexes:
        try:
            row = session.row(query, (index["index"],))
        except AurumError:  # not a b-tree, or invalid
            continue
        share = max(0.0, 1 - row.avg_leaf_density / 90) if row.avg_leaf_density == row.avg_leaf_density else 0.0
        index |= {"bloat_bytes": float(row.index_size) * share, "bloat_ratio": round(share, 4)}


def _function(session: Session, name: str) -> sql.Identifier:
    return sql.Identifier(session.value(_SCHEMA, ("pgstattuple",)), name)
