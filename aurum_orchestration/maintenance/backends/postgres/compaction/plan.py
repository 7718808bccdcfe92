"""Whether a table is worth writing anew, and by what."""

from __future__ import annotations

from psycopg import sql

from aurum_orchestration.errors import AccessDeniedError, TableNotFoundError, UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.compaction.client import NAME, arguments, find_client
from aurum_orchestration.maintenance.backends.postgres.compaction.leftovers import at_work, leftovers
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.horizon import long_transactions
from aurum_orchestration.maintenance.backends.postgres.measure import measure
from aurum_orchestration.maintenance.backends.postgres.space import MIB, rooms
from aurum_orchestration.maintenance.backends.postgres.table import PgTable
from aurum_orchestration.maintenance.backends.postgres.vacuum.plan import require_maintainable
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters
from aurum_orchestration.maintenance.planner.debt import number
from aurum_orchestration.maintenance.planner.words import size

DROP, REPACK, VACUUM_FULL = "drop", "repack", "vacuum-full"
"""What a step does."""

_ALTERNATIVES = (
    "Without a rewrite: vacuum lets the space be used again, reindex shrinks the indexes. With one: install pg_repack, "
    "extension and program of the same version, and set online_rewrite; or set vacuum_full, which locks readers and "
    "writers out while it runs."
)
_REPACK_RISK = (
    "Readers and writers go on; the table is locked for a moment at the beginning and at the end. A trigger copies "
    "what is written meanwhile. Statements of others that wait to alter the table are cancelled by pg_repack. The copy "
    "replaces the table in one transaction; what a killed run leaves, the next one removes."
)
_FULL_RISK = "Readers and writers wait until it is done. The copy replaces the table in one transaction, or not at all."

_KEY = """
SELECT EXISTS (
  SELECT FROM pg_index i
   WHERE i.indrelid = %s::oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
     AND 0 <> ALL (i.indkey::int2[])
     AND NOT EXISTS (SELECT FROM pg_attribute a
                      WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey::int2[]) AND NOT a.attnotnull))
"""


def plan_compaction(table: PgTable, parameters: CompactionParameters) -> MaintenancePlan:
    """First what a killed pg_repack left, then the rewrite; no step where the table is not worth one.

    Raises UnsupportedError with the alternatives where nothing is allowed or possible, AccessDeniedError.
    """
    table.server.refuse_writes(OperationType.COMPACTION)
    if table.kind in {"partitioned", "hypertable"}:
        raise UnsupportedError("its partitions or chunks are looked after by themselves")
    if not (parameters.online_rewrite or parameters.vacuum_full):
        raise UnsupportedError(
            "a table is never rewritten unless online_rewrite or vacuum_full is set", hint=_ALTERNATIVES
        )
    require_maintainable(table, OperationType.COMPACTION)
    (health,) = measure(table.id.backend, table.sessions, table.server, [table.id])
    if health.problem is not None:
        raise TableNotFoundError(health.problem.detail or health.problem.title, table=str(table.id))
    whole = number(health.metrics, "table_bytes") + number(health.metrics, "index_bytes")
    unused, share = number(health.metrics, "table_bloat_bytes"), number(health.metrics, "table_bloat_ratio")
    told = f"{size(unused)} ({share:.0%}) of the table are unused"
    worth = unused > 0 and unused >= parameters.min_bloat_mb * MIB and share >= parameters.min_bloat_ratio
    steps: list[PlanStep] = []
    warnings: list[str] = []
    with table.look() as session:
        busy = at_work(session, table)
        if busy:
            raise UnsupportedError(f"a pg_repack is at work on the table: {busy}", operation=OperationType.COMPACTION)
        left = leftovers(session, table)
        if left:
            steps.append(_drop(left))
            told += f"; {len(left)} things are there that a killed pg_repack left"
        if worth:
            steps.append(_rewrite(session, table, parameters, whole=whole, told=told, warnings=warnings))
            warnings += long_transactions(session)
    if not worth:
        told += f"; a rewrite is worth it at {size(parameters.min_bloat_mb * MIB)} and {parameters.min_bloat_ratio:.0%}"
    steps = [step.model_copy(update={"number": place}) for place, step in enumerate(steps, 1)]
    return table.plan(
        OperationType.COMPACTION, parameters.model_dump(mode="json"), told, steps, warnings,
        filenode=table.relation.filenode,
    )  # fmt: skip


def _drop(left: list[sql.Composed]) -> PlanStep:
    return PlanStep(
        number=0,
        action=DROP,
        summary=f"Remove {len(left)} things that a killed pg_repack left.",
        risk="None: the table is whole without them. It is locked for a moment.",
        detail={"sql": [statement.as_string(None) for statement in left]},
    )


def _rewrite(
    session: Session, table: PgTable, parameters: CompactionParameters, *, whole: float, told: str, warnings: list[str]
) -> PlanStep:
    refuse_without_room(session, table, parameters, whole)
    detail = {"bytes": whole}
    try:
        if not parameters.online_rewrite:
            raise UnsupportedError("online_rewrite is not set")
        refuse_repack(session, table)
        client = find_client(table.server)
    except UnsupportedError as why:
        if not parameters.vacuum_full:
            raise UnsupportedError(f"{why.detail}; {told}", hint=_ALTERNATIVES) from why
        warnings.append(f"VACUUM FULL locks readers and writers out: {why.detail}")
        statement = full_statement(table).as_string(None)
        summary = f"Write {table.id} anew with VACUUM FULL, with readers and writers locked out: {told}."
        return PlanStep(
            number=0, action=VACUUM_FULL, summary=summary, risk=_FULL_RISK, detail={**detail, "sql": statement}
        )
    command = [str(client), *arguments(table, parameters.wait_timeout_seconds)]
    summary = f"Write {table.id} anew with pg_repack beside its readers and writers: {told}."
    return PlanStep(number=0, action=REPACK, summary=summary, risk=_REPACK_RISK, detail={**detail, "command": command})


def refuse_without_room(session: Session, table: PgTable, parameters: CompactionParameters, whole: float) -> None:
    """Raise UnsupportedError unless there is room for a second copy of the table and its indexes."""
    room = rooms(session, [table.oid])[table.oid]
    room.refuse(whole, parameters.free_space_factor, parameters.unknown_space_limit_mb, "a second copy")


def refuse_repack(session: Session, table: PgTable) -> None:
    """Raise UnsupportedError, AccessDeniedError where pg_repack cannot work on the table."""
    if table.kind != "table":
        raise UnsupportedError(f"pg_repack works on tables, this is a {table.kind}")
    if NAME in table.server.extensions and not session.value(_KEY, (table.oid,)):
        raise UnsupportedError("pg_repack needs a primary key, or a unique index over columns that are NOT NULL")
    owned = session.value("SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = %s", (table.oid,))
    if not (table.server.superuser or owned):
        raise AccessDeniedError(
            f"pg_repack needs the table's owner, {table.relation.owner}, or a superuser", table=str(table.id)
        )


def full_statement(table: PgTable) -> sql.Composed:
    """The rewrite that locks everybody out."""
    return sql.SQL("VACUUM (FULL, ANALYZE) {}").format(table.only)
