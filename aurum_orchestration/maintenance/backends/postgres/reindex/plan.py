"""Which indexes are built anew, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

from psycopg import sql

from aurum_orchestration.errors import RequestError, UnsupportedError, nearest
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.catalog import hypertables, list_tables
from aurum_orchestration.maintenance.backends.postgres.horizon import LONG, LONG_SECONDS, told_long
from aurum_orchestration.maintenance.backends.postgres.measure import unused_question
from aurum_orchestration.maintenance.backends.postgres.reindex.indexes import (
    Index,
    indexes_question,
    leftovers,
    read_indexes,
)
from aurum_orchestration.maintenance.backends.postgres.space import MIB, Room, read_rooms, rooms_question
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.backends.postgres.vacuum.plan import require_maintainable
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.reindex import ReindexParameters
from aurum_orchestration.maintenance.planner.words import count, size

DROP, REINDEX = "drop", "reindex"
"""What a step does."""

_RISK = (
    "None for rows, readers and writers: a new index is built beside the old one, which serves until it is replaced. "
    "A run that is killed leaves an invalid index, which the next one drops."
)
_DROP_RISK = "None: it is invalid, no query uses it, and an index of the same definition stands beside it."

_MAINTAINABLE = """
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name,
       pg_has_role(current_user, c.relowner, 'USAGE') OR %(everything)s AS maintainable
  FROM unnest(%(schemas)s::text[], %(names)s::text[]) AS w(schema, name)
  JOIN pg_namespace n ON n.nspname = w.schema
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'm')
"""


def plan_reindex(target: Database, parameters: ReindexParameters) -> MaintenancePlan:
    """A step for each index: first what killed runs left, then the invalid ones, then the others, the worst first.

    Raises UnsupportedError where there is no room or nothing of the kind, AccessDeniedError without the right,
    RequestError for an index that the table does not have.
    """
    target.server.refuse_writes(OperationType.REINDEX)
    if isinstance(target, PgTable):
        if target.kind == "partitioned":
            raise UnsupportedError("each of its partitions is reindexed by itself", operation=OperationType.REINDEX)
        if parameters.scope == "database":
            raise RequestError(
                "scope database is for the database",
                operation=OperationType.REINDEX,
                hint=f"Ask for it on {target.id.backend}.{target.server.database}.",
            )
        require_maintainable(target, OperationType.REINDEX)
    with target.look() as session:
        tables, warnings = _tables(target, session)
        hyper = hypertables(session, target.server)
        indexes, estimates = session.together(
            indexes_question(target.server, list(tables)), unused_question(target.server, list(tables.values()))
        )
        found = [one for one in read_indexes(indexes) if not _of_hypertable(one, hyper, tables)]
        unused = {row.oid: row.bloat_bytes for row in estimates}
        left = leftovers(found)
        chosen, told = _chosen([one for one in found if one not in left], unused, parameters)
        folders, long = session.together(rooms_question([one.oid for one in chosen]), (LONG, (LONG_SECONDS,)))
        room = read_rooms(session, folders)
        steps, more = _steps(left, chosen, tables, unused=unused, room=room, parameters=parameters)
        if steps:
            warnings += told_long(long)
    reason = _reason(left, chosen, unused, parameters) if steps else _nothing(found, parameters)
    if more and not steps:
        raise UnsupportedError("; ".join(more), operation=OperationType.REINDEX)
    return target.plan(
        OperationType.REINDEX, parameters.model_dump(mode="json"), reason, steps, [*warnings, *told, *more]
    )


def _tables(target: Database, session: Any) -> tuple[dict[int, TableId], list[str]]:
    """The tables by oid; of the database those that we may maintain, and a warning about the others."""
    if isinstance(target, PgTable):
        return {target.oid: target.id}, []
    listed = list_tables(target.id.backend, target.sessions, target.server, target.config.discover)
    ids = [one.table for one in listed if len(one.table.parts) == 2 and one.kind != "partitioned"]
    named = {"schemas": [id.parts[0] for id in ids], "names": [id.name for id in ids]}
    rows = session.rows(_MAINTAINABLE, {**named, "everything": target.server.maintains_everything})
    tables = {row.oid: TableId(target.id.backend, (row.schema, row.name)) for row in rows if row.maintainable}
    closed = [f"{row.schema}.{row.name}" for row in rows if not row.maintainable]
    if not closed:
        return tables, []
    told = f"role {target.server.user} may not maintain {count(len(closed), 'table')}: {', '.join(closed[:5])}"
    return tables, [told + (", ..." if len(closed) > 5 else "")]


def _of_hypertable(index: Index, hyper: Set[tuple[str, str]], tables: Mapping[int, TableId]) -> bool:
    """Whether it is on a hypertable itself: REINDEX refuses it, and all entries are in the indexes of the chunks."""
    return index.relid == index.root and tables[index.root].parts in hyper


def _chosen(
    indexes: Sequence[Index], unused: Mapping[int, float | None], parameters: ReindexParameters
) -> tuple[list[Index], list[str]]:
    """The indexes to build anew, and warnings about those that cannot be."""
    wanted = _named(indexes, parameters.indexes) if parameters.indexes else list(indexes)
    everything = bool(parameters.indexes) or parameters.scope != "bloated"
    wanted = [one for one in wanted if everything or not one.valid or _bloated(one, unused.get(one.oid), parameters)]
    possible = [one for one in wanted if not one.exclusion and not one.building]
    warnings = [
        f"{one} serves an exclusion constraint, it cannot be built CONCURRENTLY" for one in wanted if one.exclusion
    ]
    warnings += [f"{one}: an index of its table is being built just now" for one in wanted if one.building]
    possible.sort(key=lambda one: (one.valid, -(unused.get(one.oid) or 0.0), -one.bytes))
    return possible, warnings


def _named(indexes: Sequence[Index], names: Sequence[str]) -> list[Index]:
    by_name = {name: one for one in indexes for name in (one.name, str(one))}
    for name in names:
        if name not in by_name:
            raise RequestError(
                f"no index {name!r} on the target", operation=OperationType.REINDEX, hint=nearest(name, by_name)
            )
    return list(dict.fromkeys(by_name[name] for name in names))


def _bloated(index: Index, unused: float | None, parameters: ReindexParameters) -> bool:
    if not unused or not index.bytes:
        return False
    return unused >= parameters.min_bloat_mb * MIB and unused / index.bytes >= parameters.min_bloat_ratio


def _steps(
    left: Sequence[Index],
    chosen: Sequence[Index],
    tables: Mapping[int, TableId],
    *,
    unused: Mapping[int, float | None],
    room: Mapping[int, Room],
    parameters: ReindexParameters,
) -> tuple[list[PlanStep], list[str]]:
    steps: list[PlanStep] = []
    warnings: list[str] = []
    for index in left:
        statement = drop_statement(index)
        if not index.owned:
            warnings.append(
                f"a killed run left {index}, which only its owner {index.owner} can drop: {statement.as_string(None)}"
            )
            continue
        summary = f"Drop {index}, {size(index.bytes)}, which a killed REINDEX CONCURRENTLY left."
        detail = _detail(index, statement, tables)
        steps.append(PlanStep(number=len(steps) + 1, action=DROP, summary=summary, risk=_DROP_RISK, detail=detail))
    for index in chosen:
        try:
            room[index.oid].refuse(
                index.bytes, parameters.free_space_factor, parameters.unknown_space_limit_mb, f"a new {index}"
            )
        except UnsupportedError as refused:
            warnings.append(" ".join(filter(None, (refused.detail, refused.hint))))
            continue
        why = _why(index, unused.get(index.oid))
        statement = reindex_statement(index)
        summary = f"Build {index} of {tables[index.root]} anew: {why}."
        detail = _detail(index, statement, tables)
        steps.append(PlanStep(number=len(steps) + 1, action=REINDEX, summary=summary, risk=_RISK, detail=detail))
    return steps, warnings


def _detail(index: Index, statement: sql.Composed, tables: Mapping[int, TableId]) -> dict[str, Any]:
    return {
        "sql": statement.as_string(None),
        "table": str(tables[index.root]),
        "index": str(index),
        "oid": index.oid,
        "relid": index.relid,
        "bytes": index.bytes,
    }


def drop_statement(index: Index) -> sql.Composed:
    """Without locking writers out."""
    return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(index.identifier)


def reindex_statement(index: Index) -> sql.Composed:
    """Without locking writers out."""
    return sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(index.identifier)


def _why(index: Index, unused: float | None) -> str:
    if not index.valid:
        return "it is invalid, written to and never read"
    if unused is None or not index.bytes:
        return f"{size(index.bytes)}, asked for"
    return f"{size(unused)} of {size(index.bytes)} ({unused / index.bytes:.0%}) are unused"


def _reason(
    left: Sequence[Index],
    chosen: Sequence[Index],
    unused: Mapping[int, float | None],
    parameters: ReindexParameters,
) -> str:
    told = [f"{count(len(left), 'invalid index')} left by killed runs".replace("indexs", "indexes")] if left else []
    if chosen:
        waste = sum(unused.get(one.oid) or 0.0 for one in chosen)
        kind = "bloated or invalid" if parameters.scope == "bloated" and not parameters.indexes else "asked for"
        several = "1 index" if len(chosen) == 1 else f"{len(chosen):,} indexes"
        told.append(f"{several} {kind}, {size(waste)} of {size(sum(one.bytes for one in chosen))} unused")
    return "; ".join(told)


def _nothing(indexes: Sequence[Index], parameters: ReindexParameters) -> str:
    if not indexes:
        return "there is no index"
    if parameters.scope != "bloated" or parameters.indexes:
        return "no index can be built anew"
    return (
        f"none of {len(indexes):,} indexes is invalid or has {parameters.min_bloat_ratio:.0%} and "
        f"{size(parameters.min_bloat_mb * MIB)} unused"
    )
