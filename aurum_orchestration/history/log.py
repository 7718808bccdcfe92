"""The operation log: one row per operation, and the planner's facts kept beside it in the same transaction.

Facts are computed by the planner's own rule (:func:`facts_of`) from the newest runs whenever one is
recorded, so asking for those of a whole fleet reads one small row per table and operation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from functools import cache
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, delete, or_, select, true, update

from aurum_orchestration.errors import LeaseLostError, RequestError
from aurum_orchestration.fleet.table_id import TableId, literal_id, literal_prefix, matches
from aurum_orchestration.history.codec import metrics_from_text, result_of, row_of, storable, to_text
from aurum_orchestration.history.schema import facts, operations
from aurum_orchestration.history.sql import upsert, upsert_row
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.planner.facts import NEVER_STARTED, PastRun, RunFacts, facts_of
from aurum_orchestration.maintenance.planner.rank import Spent

_RUNS_LOOKED_AT = 20
_NO_FACTS_YET = {"consecutive_failures": 0, "consecutive_no_gain": 0, "engaged": False}
_MANY_TABLES = 500
_UNENDED = select(operations.c.operation_id, operations.c.operation, operations.c.who).where(
    operations.c.table_id == bindparam("table"),
    operations.c.finished_at.is_(None),
    operations.c.operation_id != bindparam("besides"),
)
_NEWEST_RUNS = (
    select(
        operations.c.status,
        operations.c.finished_at,
        operations.c.seconds,
        operations.c.metrics,
        operations.c.problem_type,
    )
    .where(
        operations.c.table_id == bindparam("table"),
        operations.c.operation == bindparam("name"),
        operations.c.finished_at.is_not(None),
        operations.c.dry_run.is_(False),
        operations.c.problem_type.is_(None) | operations.c.problem_type.not_in(NEVER_STARTED),
    )
    .order_by(operations.c.finished_at.desc(), operations.c.id.desc())
    .limit(_RUNS_LOOKED_AT)
)
_SET_FACTS = (
    update(facts)
    .where(facts.c.table_id == bindparam("table"), facts.c.operation == bindparam("name"))
    .values({column.name: bindparam(column.name) for column in facts.columns if not column.primary_key})
)


def record(connection: Connection, result: MaintenanceResult, who: str) -> None:
    """Write the result; one with the same operation id (an earlier state of it) is replaced."""
    row = row_of(result, who)
    connection.execute(upsert_row(connection.dialect.name, operations, ("operation_id",)), row)
    if result.finished_at is not None and not result.config.dry_run:
        _refresh_facts(connection, row["table_id"], row["operation"])


def end_abandoned(connection: Connection, table: str, besides: str, at: datetime) -> list[str]:
    """Record as failed what still says that it runs on the table, but for one operation; their ids."""
    left = unended(connection, table, besides)
    for row in left:
        problem = LeaseLostError(
            f"{row.who} ended without recording how; noticed when the table's lease was taken again", table=table
        ).problem(instance=row.operation_id, operation=row.operation)
        connection.execute(
            update(operations)
            .where(operations.c.operation_id == row.operation_id)
            .values(
                status=MaintenanceStatus.FAILED.value,
                reason=problem.detail,
                problem=to_text(problem.model_dump()),
                problem_type=problem.type,
                finished_at=at,
            )
        )
        _refresh_facts(connection, table, row.operation)
    return [row.operation_id for row in left]


def unended(connection: Connection, table: str, besides: str) -> Sequence[Any]:
    """What says that it runs on the table, but for one operation: its id, name and who runs it."""
    return connection.execute(_UNENDED, {"table": table, "besides": storable(besides)}).all()


def results(
    connection: Connection,
    *,
    limit: int | None,
    since: datetime | None,
    tables: Sequence[str],
    operation_names: Sequence[str],
    statuses: Sequence[str],
) -> list[MaintenanceResult]:
    """Recorded results, newest first; ``tables`` are globs over table ids."""
    query = select(operations).order_by(operations.c.started_at.desc(), operations.c.id.desc())
    if since is not None:
        query = query.where(operations.c.started_at >= since)
    if operation_names:
        query = query.where(operations.c.operation.in_([str(name) for name in operation_names]))
    if statuses:
        query = query.where(operations.c.status.in_([str(status) for status in statuses]))
    if not tables:
        return [result_of(row) for row in connection.execute(query.limit(limit))]

    @cache
    def wanted(table: str) -> bool:
        try:
            name = TableId.parse(table)
        except RequestError:
            return False
        return any(matches(glob, name) for glob in tables)

    # what SQL cannot tell of a glob is looked at here, row by row, until there are enough
    with connection.execution_options(yield_per=500).execute(query.where(_may_match(tables))) as rows:
        return [result_of(row) for row in islice((row for row in rows if wanted(row.table_id)), limit)]


def spent(connection: Connection, backend: str, since: datetime) -> Spent:
    """What was done on a backend since the moment, as a budget counts it: runs that only looked do not."""
    rows = connection.execute(
        select(operations.c.table_id, operations.c.metrics, operations.c.seconds).where(
            operations.c.backend == backend,
            operations.c.started_at >= since,
            operations.c.dry_run.is_(False),
            operations.c.status != MaintenanceStatus.SKIPPED.value,
        )
    ).all()
    moved = ("bytes_rewritten", "bytes_added")
    numbers = [metrics_from_text(row.metrics) for row in rows]
    return Spent(
        tables=frozenset(row.table_id for row in rows),
        bytes=sum(metrics.get(name, 0.0) for metrics in numbers for name in moved),
        seconds=sum(row.seconds for row in rows),
    )


def result(connection: Connection, operation_id: str) -> MaintenanceResult | None:
    """The recorded result of one operation."""
    row = connection.execute(select(operations).where(operations.c.operation_id == storable(operation_id))).first()
    return None if row is None else result_of(row)


def all_facts(connection: Connection, tables: Collection[str] | None) -> dict[tuple[str, str], RunFacts]:
    """Facts by table id and operation, of the given tables (None: of all), in one query."""
    query = select(facts)
    if tables is not None and len(tables) <= _MANY_TABLES:
        query = query.where(facts.c.table_id.in_(list(tables)))
    wanted = None if tables is None else frozenset(tables)
    return dict(_facts_of_rows(connection.execute(query), wanted))


def prune(connection: Connection, older_than: datetime, batch: int) -> int:
    """Delete at most ``batch`` of the operations that started before, the oldest first; how many it were."""
    old = select(operations.c.id).where(operations.c.started_at < older_than).order_by(operations.c.started_at)
    return connection.execute(delete(operations).where(operations.c.id.in_(old.limit(batch)))).rowcount


def _may_match(globs: Sequence[str]) -> ColumnElement[bool]:
    """A condition that every match of the globs fulfils, and few others."""
    if len(globs) > _MANY_TABLES:
        return true()
    conditions: list[ColumnElement[bool]] = []
    for glob in globs:
        table, names = literal_id(glob), literal_prefix(glob)
        if table is not None:
            conditions.append(operations.c.table_id == storable(str(table)))
        elif names:
            start = storable(str(TableId(names[0], names[1:])))
            conditions.append(operations.c.table_id.startswith(start, autoescape=True))
        else:
            return true()
    return or_(*conditions)


def _facts_of_rows(rows: Any, wanted: Collection[str] | None) -> Iterator[tuple[tuple[str, str], RunFacts]]:
    statuses = {status.value: status for status in MaintenanceStatus}
    for table, operation, finished, status, completed, failures, no_gain, rate, engaged in rows:
        if wanted is None or table in wanted:
            yield (
                (table, operation),
                RunFacts(finished, statuses.get(status), completed, failures, no_gain, rate, engaged),
            )


def _refresh_facts(connection: Connection, table: str, operation: str) -> None:
    # the row is locked first: of two that record at once, the second one sees the run of the first
    key = {"table_id": table, "operation": operation}
    before = connection.execute(_lock_facts(connection.dialect.name), key).scalar_one()
    runs = connection.execute(_NEWEST_RUNS, {"table": table, "name": operation})
    now = facts_of(
        PastRun(
            MaintenanceStatus(run.status),
            run.finished_at,
            run.seconds,
            metrics_from_text(run.metrics),
            run.problem_type,
        )
        for run in runs
    )
    connection.execute(
        _SET_FACTS,
        {
            "table": table,
            "name": operation,
            "last_finished": now.last_finished,
            "last_status": now.last_status,
            "last_completed": now.last_completed or before,
            "consecutive_failures": now.consecutive_failures,
            "consecutive_no_gain": now.consecutive_no_gain,
            "seconds_per_gib": now.seconds_per_gib,
            "engaged": now.engaged,
        },
    )


@cache
def _lock_facts(dialect: str) -> Any:
    key: dict[str, Any] = {"table_id": bindparam("table_id"), "operation": bindparam("operation")}
    statement = upsert(dialect, facts, {**key, **_NO_FACTS_YET}, key=list(key), change=key)
    return statement.returning(facts.c.last_completed)
