"""Health of many tables in one round trip."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from psycopg import sql

from aurum_orchestration.errors import TableNotFoundError
from aurum_orchestration.fleet.rule_groups import RuleGroups
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.connection import Question, Session, Sessions, patiently
from aurum_orchestration.maintenance.backends.postgres.measure_sql import (
    DATABASE,
    DATABASE_METRICS,
    FEW,
    FOR_MANY,
    TABLE_METRICS,
    indexes_query,
    tables_query,
)
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.interfaces import OperationType, TableHealth

_GROUPS = ("cleanup", "logs", "sessions")
_BY_PARTITION = dict.fromkeys(
    (OperationType.VACUUM.value, OperationType.REINDEX.value, OperationType.COMPACTION.value),
    "each of its partitions is looked after by itself",
)


class _Found(NamedTuple):
    token: str
    metrics: Mapping[str, float]
    refusals: Mapping[str, str] = {}


def measure(backend: str, sessions: Sessions, server: ServerFacts, tables: Sequence[TableId]) -> list[TableHealth]:
    """Health of the tables (and of the database where it is among them), in the order given."""
    now = datetime.now(UTC)

    def ask() -> list[TableHealth]:
        with sessions.look("measure") as session:
            measured = _tables(session, server, sessions.config, tables)
            whole = _database(session, sessions) if any(len(table.parts) == 1 for table in tables) else None
        return [
            _health(backend, table, whole if len(table.parts) == 1 else measured.get(number), server, now)
            for number, table in enumerate(tables, 1)
        ]

    return patiently(ask)


def _tables(session: Session, server: ServerFacts, config: RuleGroups, tables: Sequence[TableId]) -> dict[int, _Found]:
    """By place in the question, from 1: state token and metrics. What is not there is absent."""
    if not any(len(table.parts) == 2 for table in tables):
        return {}
    # what has not two parts is no table; an empty name is none either
    schemas = [table.parts[0] if len(table.parts) == 2 else "" for table in tables]
    names = [table.name if len(table.parts) == 2 else "" for table in tables]
    if len(tables) > FEW:
        session.tuples(FOR_MANY, (len(tables),))
    rows = session.tuples(_query(tables_query, server, tables), {"schemas": schemas, "names": names}, binary=True)
    groups = config.counts()
    return {
        row[0]: _Found(
            row[1],
            known(TABLE_METRICS, row[3:]) | groups.get(tables[row[0] - 1].parts, {}),
            _BY_PARTITION if row[2] else {},
        )
        for row in rows
    }


def _database(session: Session, sessions: Sessions) -> _Found:
    row = session.tuples(DATABASE)[0]
    groups = {f"{name}_groups": float(len(sessions.config.groups(name))) for name in _GROUPS}
    return _Found(row[0], {**known(DATABASE_METRICS, row[1:]), **groups})


def indexes_of(session: Session, server: ServerFacts, tables: Sequence[TableId]) -> list[Any]:
    """The indexes of tables with their estimated unused space: rows of :func:`~.measure_sql.indexes_query`."""
    return session.rows(*unused_question(server, tables))


def unused_question(server: ServerFacts, tables: Sequence[TableId]) -> Question:
    """What :func:`indexes_of` asks, for :meth:`Session.together`."""
    named = {"schemas": [table.parts[0] for table in tables], "names": [table.name for table in tables]}
    return _query(indexes_query, server, tables), named


def _query(made: Callable[..., sql.Composed], server: ServerFacts, tables: Sequence[TableId]) -> sql.Composed:
    return made(statistic=server.reads_statistics, few=len(tables) <= FEW, stores=server.tells_columnstore)


def known(names: Iterable[str], values: Iterable[Any]) -> dict[str, float]:
    """The numbers that the server told."""
    return {name: value for name, value in zip(names, values, strict=True) if value is not None}


def _health(
    backend: str,
    table: TableId,
    found: _Found | None,
    server: ServerFacts,
    now: datetime,
) -> TableHealth:
    if found is None or (len(table.parts) == 1 and table.name != server.database):
        missing = TableNotFoundError(f"no such table in database {server.database}", table=str(table))
        return TableHealth(table, backend, "", now, problem=missing.problem())
    return TableHealth(table, backend, found.token, now, metrics=found.metrics, refusals=found.refusals)
