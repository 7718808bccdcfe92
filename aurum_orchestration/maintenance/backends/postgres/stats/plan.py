"""What is reported, and which tables are analyzed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import sql

from aurum_orchestration.errors import TableNotFoundError
from aurum_orchestration.fleet.fleet import DATABASE
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.catalog import hypertables, list_tables
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.measure import measure
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.backends.postgres.stats.report import index_report, since, usage_of
from aurum_orchestration.maintenance.backends.postgres.table import Database, PgTable, only
from aurum_orchestration.maintenance.backends.postgres.vacuum.plan import FEW_ROWS, require_maintainable
from aurum_orchestration.maintenance.backends.reports import report_step
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep, TableHealth
from aurum_orchestration.maintenance.operations.stats import StatsParameters
from aurum_orchestration.maintenance.planner.debt import number
from aurum_orchestration.maintenance.planner.words import count, size

_RISK = "None: it reads a sample of the table and locks neither readers nor writers out."
_NOT_HERE = "scans on replicas are not counted here: look there, too, before an index is dropped"
_TOLD = ("rows", "dead_tuples", "table_bytes", "index_bytes", "rows_changed_since_analyze", "seconds_since_analyze")

_PLACED = """
SELECT w.ordinal::int AS ordinal, c.oid::bigint AS oid, c.relkind = 'p' AS partitioned,
       pg_stat_get_last_analyze_time(c.oid) IS NULL AS never,
       ARRAY(SELECT p.relid::oid::bigint FROM pg_partition_tree(c.oid) p WHERE p.relid <> c.oid) AS parts,
       pg_has_role(c.relowner, 'USAGE') OR %(everything)s AS maintainable
  FROM unnest(%(schemas)s::text[], %(names)s::text[]) WITH ORDINALITY AS w(schema, name, ordinal)
  JOIN pg_namespace n ON n.nspname = w.schema
  JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name AND c.relkind IN ('r', 'p', 'm')
"""


def plan_stats(target: Database, parameters: StatsParameters) -> MaintenancePlan:
    """The report as a step, then an ANALYZE for each table whose statistics are stale; nothing is ever dropped."""
    one = isinstance(target, PgTable)
    ids = [target.id] if one else _tables(target)
    healths = measure(target.id.backend, target.sessions, target.server, ids)
    if one and healths[0].problem is not None:
        raise TableNotFoundError(healths[0].problem.detail or healths[0].problem.title, table=str(target.id))
    with target.look(OperationType.STATS) as session:
        placed = _placed(target, session, ids)
        known = [
            (health, placed[at]) for at, health in enumerate(healths, 1) if health.problem is None and at in placed
        ]
        detail = _report(session, known, parameters)
        hyper = hypertables(session, target.server)
    stale = _stale(known, parameters)
    warnings = []
    if isinstance(target, PgTable) and stale:
        target.server.refuse_writes(OperationType.STATS)
        require_maintainable(target, OperationType.STATS)
    elif stale and (target.server.replica or target.server.read_only):
        warnings.append(f"{count(len(stale), 'table')} with stale statistics; this server takes no writes")
        stale = []
    closed = [health for health, place in stale if not isinstance(target, PgTable) and not place.maintainable]
    if closed:
        names = ", ".join(str(health.table) for health in closed[:5])
        warnings.append(f"role {target.server.user} may not analyze {count(len(closed), 'stale table')}: {names}")
        stale = [(health, place) for health, place in stale if place.maintainable]
    reason = _reason(known, stale, detail)
    steps = [report_step(reason, detail)]
    steps += [
        _analyze(number, target.server, health, with_parts=place.partitioned or health.table.parts in hyper)
        for number, (health, place) in enumerate(stale, 2)
    ]
    return target.plan(OperationType.STATS, parameters.model_dump(), reason, steps, warnings)


def _tables(target: Database) -> list[TableId]:
    found = list_tables(target.id.backend, target.sessions, target.server, target.config.discover)
    return [one.table for one in found if one.kind != DATABASE]


def _placed(target: Database, session: Session, ids: Sequence[TableId]) -> dict[int, Any]:
    named = {"schemas": [id.parts[0] for id in ids], "names": [id.name for id in ids]}
    rows = session.rows(_PLACED, {**named, "everything": target.server.maintains_everything})
    return {row.ordinal: row for row in rows}


def _stale(known: Sequence[tuple[TableHealth, Any]], parameters: StatsParameters) -> list[tuple[TableHealth, Any]]:
    """The tables to analyze, the most changed first; partitions not where their parent's ANALYZE reads them anyway."""
    found = [
        (health, place)
        for health, place in known
        if is_stale(health.metrics, parameters, partitioned=place.partitioned, never=place.never)
    ]
    covered = {part for _, place in found if place.partitioned for part in place.parts}
    found = [(health, place) for health, place in found if place.oid not in covered]
    return sorted(found, key=lambda pair: -number(pair[0].metrics, "rows_changed_since_analyze"))


def is_stale(metrics: Mapping[str, float], parameters: StatsParameters, *, partitioned: bool, never: bool) -> bool:
    """Whether statistics are to be collected anew.

    A partitioned table has statistics of its own, which autovacuum never collects.
    """
    if parameters.analyze != "stale":
        return parameters.analyze == "all"
    changed, rows = number(metrics, "rows_changed_since_analyze"), number(metrics, "rows")
    missing = rows > 0 and ("seconds_since_analyze" not in metrics or (partitioned and never))
    return missing or changed >= FEW_ROWS + parameters.stale_ratio * rows


def _report(session: Session, known: Sequence[tuple[TableHealth, Any]], parameters: StatsParameters) -> dict[str, Any]:
    began, hit_ratio, database_bytes = since(session)
    # a partitioned table holds nothing itself
    single = sorted(((h, p) for h, p in known if not p.partitioned), key=lambda pair: -_bytes(pair[0]))
    top = single[: parameters.top]
    usage = usage_of(session, [place.oid for _, place in top])
    indexes = index_report(session, [place.oid for _, place in single], parameters.top)
    metrics = {"database_bytes": database_bytes, "cache_hit_ratio": hit_ratio}
    metrics |= {name: indexes.pop(name) for name in ("unused_index_bytes", "duplicate_index_bytes")}
    return {
        "metrics": {name: value for name, value in metrics.items() if value is not None},
        "statistics_since": began,
        "tables": [
            {
                "table": str(health.table),
                "bytes": _bytes(health),
                **{name: health.metrics[name] for name in _TOLD if name in health.metrics},
                **usage.get(place.oid, {}),
            }
            for health, place in top
        ],
        **indexes,
        "note": _NOT_HERE,
    }


def _bytes(health: TableHealth) -> float:
    return number(health.metrics, "table_bytes") + number(health.metrics, "index_bytes")


def _reason(known: Sequence[Any], stale: Sequence[Any], detail: Mapping[str, Any]) -> str:
    unused, twins = len(detail["unused_indexes"]), len(detail["duplicate_indexes"])
    told = f"{count(len(known), 'table')}, {size(detail['metrics']['database_bytes'])} in the database"
    told += f"; {len(stale):,} with stale statistics" if stale else "; no statistics are stale"
    waste = size(detail["metrics"]["unused_index_bytes"])
    return f"{told}; {unused:,} of their indexes unused ({waste}), {twins:,} there twice"


def _analyze(number_: int, server: ServerFacts, health: TableHealth, *, with_parts: bool) -> PlanStep:
    changed, rows = number(health.metrics, "rows_changed_since_analyze"), number(health.metrics, "rows")
    why = (
        f"{changed:,.0f} of {rows:,.0f} rows changed since the last ANALYZE"
        if changed
        else "it has none, or is asked for"
    )
    return PlanStep(
        number=number_,
        action="sql",
        summary=f"Analyze {health.table}: {why}.",
        risk=_RISK,
        detail={
            "sql": analyze_statement(server, health.table, with_parts=with_parts).as_string(None),
            "table": str(health.table),
            "with_parts": with_parts,
            "rows": rows,
        },
    )


def analyze_statement(server: ServerFacts, table: TableId, *, with_parts: bool) -> sql.Composed:
    """SKIP_LOCKED: a lock that is waited for would end an autovacuum of the table.

    ``with_parts``: each partition or chunk gets its own statistics, too.
    """
    name = sql.Identifier(*table.parts)
    return sql.SQL("ANALYZE (SKIP_LOCKED) {}").format(name if with_parts else only(server, name))
