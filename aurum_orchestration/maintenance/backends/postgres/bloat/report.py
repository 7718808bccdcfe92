"""What tables and indexes take on disk beyond what they hold: estimated for all at once, or read exactly."""

from __future__ import annotations

from typing import Any

from psycopg import sql

from aurum_orchestration.errors import TableNotFoundError
from aurum_orchestration.maintenance.backends.postgres.bloat.exact import exact_indexes, exact_table
from aurum_orchestration.maintenance.backends.postgres.catalog import list_tables
from aurum_orchestration.maintenance.backends.postgres.compaction.leftovers import (
    LEFT_BEHIND,
    REMOVES_THEM,
    tables_with_leftovers,
)
from aurum_orchestration.maintenance.backends.postgres.measure import indexes_of, measure
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable
from aurum_orchestration.maintenance.backends.reports import report_step
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, TableHealth
from aurum_orchestration.maintenance.operations.bloat import BloatParameters
from aurum_orchestration.maintenance.planner.debt import number
from aurum_orchestration.maintenance.planner.words import count, size

_SUMMED = ("dead_tuples", "table_bytes", "index_bytes", "table_bloat_bytes", "index_bloat_bytes", "invalid_indexes")
_TOLD = (
    *_SUMMED, "rows", "table_bloat_ratio", "index_bloat_ratio", "xid_age", "multixact_age", "seconds_since_vacuum",
    "seconds_since_analyze", "autovacuum_debt",
)  # fmt: skip
_NEVER_EXACT = "it is estimated: the extension pgstattuple is not installed in the database"


def of_table(table: PgTable, parameters: BloatParameters) -> MaintenancePlan:
    """The report on one table and its indexes."""
    (health,) = measure(table.id.backend, table.sessions, table.server, [table.id])
    if health.problem is not None:
        raise TableNotFoundError(health.problem.detail or health.problem.title, table=str(table.id))
    missing: list[str] = []
    with table.look("bloat") as session:
        indexes = [_index(row) for row in indexes_of(session, table.server, [table.id])]
        told = dict(health.metrics)
        if parameters.exact and "pgstattuple" not in table.server.extensions:
            missing.append(_NEVER_EXACT)
        elif parameters.exact:
            told |= exact_table(session, table)
            exact_indexes(session, indexes)
    if "table_bloat_bytes" not in told and number(told, "rows"):
        missing.append("the table was never analyzed, or is too small, so its bloat cannot be estimated")
    unused = _unused(told)
    reason = f"{size(unused)} of {size(_all(told))} are unused: {_parts(told)}"
    metrics = {"bloat_bytes": unused, "live_bytes": max(0.0, _all(told) - unused)}
    listed = [index for index in indexes if _worth(index["bloat_bytes"], index["bytes"], parameters)]
    detail = {"metrics": metrics, "table": _plain(told), "indexes": listed, "missing": missing}
    return table.plan(OperationType.BLOAT, parameters.model_dump(), reason, [report_step(reason, detail)])


def of_database(database: Database, parameters: BloatParameters) -> MaintenancePlan:
    """The report on all tables: those from ``report_from_ratio`` on, the most unused space first."""
    backend = database.id.backend
    found = list_tables(backend, database.sessions, database.server, database.config.discover)
    tables = [one.table for one in found if len(one.table.parts) == 2]
    healths = [one for one in measure(backend, database.sessions, database.server, tables) if one.problem is None]
    # partitions are listed by themselves
    single = [one for one in healths if not one.refusals]
    bloated = sorted((one for one in single if _bloated(one, parameters)), key=lambda one: -_unused(one.metrics))
    sums = {name: sum(number(one.metrics, name) for one in single) for name in _SUMMED}
    unused = sums["table_bloat_bytes"] + sums["index_bloat_bytes"]
    reason = (
        f"{count(len(bloated), 'table')} of {len(single):,} with {parameters.report_from_ratio:.0%} or more unused; "
        f"in all {size(unused)} of {size(sums['table_bytes'] + sums['index_bytes'])} are"
    )
    missing = [
        f"{count(len(unknown), 'table')} could not be estimated, never analyzed: {', '.join(unknown[:5])}"
        for unknown in [[str(one.table) for one in single if _not_estimated(one)]]
        if unknown
    ]
    with database.look("bloat") as session:
        left = tables_with_leftovers(session)
    if left:
        missing.append(f"{LEFT_BEHIND}: {', '.join(left[:5])}. {REMOVES_THEM}")
    detail: dict[str, Any] = {
        "metrics": {"bloat_bytes": unused, "live_bytes": sums["table_bytes"] + sums["index_bytes"] - unused},
        "tables": {str(one.table): _plain(one.metrics) for one in bloated},
        "missing": missing,
    }
    return database.plan(OperationType.BLOAT, parameters.model_dump(), reason, [report_step(reason, detail)])


def _index(row: Any) -> dict[str, Any]:
    share = None if row.bloat_bytes is None or not row.bytes else round(row.bloat_bytes / row.bytes, 4)
    return {
        "index": sql.Identifier(row.schema, row.name).as_string(None),
        "bytes": row.bytes,
        "bloat_bytes": row.bloat_bytes,
        "bloat_ratio": share,
        "scans": row.scans,
        "valid": row.valid,
    }


def _worth(unused: float | None, whole: float, parameters: BloatParameters) -> bool:
    return bool(unused) and whole > 0 and (unused or 0.0) / whole >= parameters.report_from_ratio


def _bloated(health: TableHealth, parameters: BloatParameters) -> bool:
    return _worth(_unused(health.metrics), _all(health.metrics), parameters)


def _not_estimated(health: TableHealth) -> bool:
    return "seconds_since_analyze" not in health.metrics and number(health.metrics, "rows") > 0


def _unused(metrics: Any) -> float:
    return number(metrics, "table_bloat_bytes") + number(metrics, "index_bloat_bytes")


def _all(metrics: Any) -> float:
    return number(metrics, "table_bytes") + number(metrics, "index_bytes")


def _parts(told: Any) -> str:
    table, indexes = number(told, "table_bloat_bytes"), number(told, "index_bloat_bytes")
    return f"{size(table)} in the table ({number(told, 'dead_tuples'):,.0f} dead rows), {size(indexes)} in its indexes"


def _plain(metrics: Any) -> dict[str, float]:
    return {name: metrics[name] for name in _TOLD if name in metrics}
