"""Triggers and debt of SQL databases and their tables. A trigger that answers None is not meant for this kind of table.

Sources of the thresholds: autovacuum's own formula (dead rows over threshold + factor x rows), at 1.5 times of it;
REINDEX from 30 % and 100 MB of unused space on; a rewrite, where somebody allows it, from 50 % and 1 GB on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from msgspec.structs import replace
from pydantic import BaseModel

from aurum_orchestration.maintenance.interfaces import Cost, Gain
from aurum_orchestration.maintenance.operations.compaction import MIB, CompactionPolicy
from aurum_orchestration.maintenance.operations.reindex import ReindexPolicy
from aurum_orchestration.maintenance.operations.retention import RetentionPolicy
from aurum_orchestration.maintenance.operations.stats import StatsPolicy
from aurum_orchestration.maintenance.operations.vacuum import VacuumPolicy
from aurum_orchestration.maintenance.planner.assessment import Assessment, Trigger
from aurum_orchestration.maintenance.planner.debt import Penalty, number
from aurum_orchestration.maintenance.planner.facts import GIB, RunFacts
from aurum_orchestration.maintenance.planner.words import count, size

TABLE, DATABASE, CHUNKS = "table_bytes", "database_bytes", "chunks"
"""Metrics that every table, every database, and every hypertable of this family has, and no other."""

PENALTIES: Mapping[str, Penalty] = {
    "autovacuum_debt": Penalty(35, 0.5, 2, "1 is where autovacuum should have come, 1.5 where the planner acts"),
    "table_bloat": Penalty(15, 16 * MIB, GIB, "a rewrite is worth it from 1 GB on"),
    "index_bloat": Penalty(25, 16 * MIB, 256 * MIB, "a reindex is worth it from 100 MB on"),
    "xid_age_share": Penalty(20, 0.5, 1, "at 1 autovacuum freezes the table whatever else is going on"),
    "invalid_indexes": Penalty(5, 0, 1, "each is written to and never read"),
    "wraparound_share": Penalty(60, 0.1, 0.5, "at 1 the server stops taking writes"),
    "longest_transaction_seconds": Penalty(30, 300, 3600, "what it can still see, no vacuum removes"),
    "connections_share": Penalty(10, 0.6, 0.9, "at 1 nobody else gets in"),
}
"""Penalties of tables (the first five) and of databases, by what they count."""

GIB_PER_SECOND = 0.2
START_SECONDS = 0.2
"""What reading and writing is taken to cost until the history knows better."""


def debt(metrics: Mapping[str, float]) -> float:
    """Points of debt of a table or a database, 0 to 100."""
    if DATABASE in metrics:
        names = ("wraparound_share", "longest_transaction_seconds", "connections_share")
        return sum(PENALTIES[name].points(number(metrics, name)) for name in names)
    points = sum(
        PENALTIES[name].points(number(metrics, name))
        for name in ("autovacuum_debt", "xid_age_share", "invalid_indexes")
    )
    return points + bloat_points(metrics, "table") + bloat_points(metrics, "index")


def bloat_points(metrics: Mapping[str, float], of: str) -> float:
    """Penalty for unused space in the ``table`` or its ``index``es: in full where half of it is unused."""
    share = min(1.0, 2 * number(metrics, f"{of}_bloat_ratio"))
    return PENALTIES[f"{of}_bloat"].points(number(metrics, f"{of}_bloat_bytes")) * share


def vacuum(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:
    """Acts on dead rows that autovacuum should have taken, and on old transaction ids."""
    if TABLE not in metrics:
        return _by_table(metrics)
    rules = cast(VacuumPolicy, policy)
    dead, rows, owed = (number(metrics, name) for name in ("dead_tuples", "rows", "autovacuum_debt"))
    share = number(metrics, "xid_age_share")
    gain = Gain(
        debt_score=round(PENALTIES["autovacuum_debt"].points(owed) + PENALTIES["xid_age_share"].points(share), 2),
        bytes=number(metrics, "table_bytes") * dead / max(1.0, dead + rows),
    )
    cost = _cost(number(metrics, "table_bytes") + number(metrics, "index_bytes"), facts)
    if rules.freeze != "never" and share >= rules.freeze_at_share:
        told = f"its transaction ids are at {share:.0%} of autovacuum_freeze_max_age"
        return Assessment(True, f"{told}, rows are frozen from {rules.freeze_at_share:.0%} on", gain, cost)
    told = f"{dead:,.0f} of {dead + rows:,.0f} rows are dead, {owed:.2g} times what autovacuum leaves"
    if owed >= rules.trigger_autovacuum_debt:
        return Assessment(True, told, gain, cost)
    waits = f"{told}; acts at {rules.trigger_autovacuum_debt:g} times"
    forced = rules.freeze == "always" and rows > 0
    return Assessment(False, waits, gain, cost, possible=dead > 0 or forced or _never(metrics))


def _never(metrics: Mapping[str, float]) -> bool:
    return number(metrics, "rows") > 0 and "seconds_since_analyze" not in metrics


def reindex(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:
    """Acts on an index with ``min_bloat_ratio`` and ``min_bloat_mb`` of unused space, and on invalid ones."""
    if TABLE not in metrics:
        return _by_table(metrics, possible=cast(ReindexPolicy, policy).scope == "database")
    rules = cast(ReindexPolicy, policy)
    unused, share = number(metrics, "worst_index_bloat_bytes"), number(metrics, "worst_index_bloat_ratio")
    invalid = number(metrics, "invalid_indexes")
    gain = Gain(
        debt_score=round(bloat_points(metrics, "index") + PENALTIES["invalid_indexes"].points(invalid), 2),
        bytes=number(metrics, "index_bloat_bytes"),
    )
    cost = _cost(number(metrics, "table_bytes") + number(metrics, "index_bytes"), facts)
    told = f"of its indexes the worst has {size(unused)} ({share:.0%}) unused"
    if unused >= rules.min_bloat_mb * MIB and share >= rules.min_bloat_ratio and unused:
        return Assessment(True, told, gain, cost)
    if invalid:
        told = f"{invalid:,.0f} of its indexes are invalid: written to, never read"
        return Assessment(True, told, gain, cost)
    waits = f"{told}; acts at {size(rules.min_bloat_mb * MIB)} and {rules.min_bloat_ratio:.0%}"
    forced = rules.scope == "table" or bool(rules.indexes)
    return Assessment(False, waits, gain, cost, possible=forced and number(metrics, "indexes") > 0)


def compaction(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:
    """Acts where a policy allows rewrites, on tables with ``min_bloat_ratio`` and ``min_bloat_mb`` of unused space."""
    if TABLE not in metrics:
        return _by_table(metrics)
    rules = cast(CompactionPolicy, policy)
    if CHUNKS in metrics:
        return _chunks(metrics, rules, facts)
    unused, share = number(metrics, "table_bloat_bytes"), number(metrics, "table_bloat_ratio")
    told = f"{size(unused)} ({share:.0%}) of the table are unused"
    gain = Gain(debt_score=round(bloat_points(metrics, "table"), 2), bytes=unused)
    cost = _cost(2 * (number(metrics, "table_bytes") + number(metrics, "index_bytes")), facts)
    bloated = unused >= rules.min_bloat_mb * MIB and share >= rules.min_bloat_ratio and unused > 0
    if bloated and (rules.online_rewrite or rules.vacuum_full):
        return Assessment(True, told, gain, cost)
    if bloated:
        return Assessment(
            False, f"{told}; a rewrite needs online_rewrite: true in its policy", gain, cost, possible=True
        )
    waits = f"{told}; a rewrite is worth it at {size(rules.min_bloat_mb * MIB)} and {rules.min_bloat_ratio:.0%}"
    # a killed rewrite leaves things that only a run can see
    return Assessment(False, waits, gain, cost, possible=rules.online_rewrite or rules.vacuum_full)


def _chunks(metrics: Mapping[str, float], rules: CompactionPolicy, facts: RunFacts) -> Assessment:
    """Of a hypertable: acts where its policy says from how many chunks on."""
    waiting, chunks = number(metrics, "rowstore_chunks"), number(metrics, CHUNKS)
    if rules.chunks != "columnstore":
        return Assessment(False, f"{rules.chunks} of its old chunks is for whoever asks for it", possible=True)
    told = f"{count(waiting, 'chunk')} older than {rules.chunks_older_than_days:g} days not in the columnstore"
    share = waiting / chunks if chunks else 0.0
    cost = _cost(2 * share * (number(metrics, "table_bytes") + number(metrics, "index_bytes")), facts)
    if rules.trigger_chunks is None:
        return Assessment(False, f"{told}; its policy names no trigger_chunks", cost=cost, possible=True)
    due = waiting >= rules.trigger_chunks
    return Assessment(due, told if due else f"{told}; acts at {rules.trigger_chunks:,}", cost=cost, possible=True)


def retention(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:  # noqa: ARG001 - a trigger's signature
    """Acts once per cooldown on tables whose policy names a time column and how many days rows are kept."""
    if TABLE not in metrics:
        return _by_table(metrics)
    rules = cast(RetentionPolicy, policy)
    if rules.time_column is None:
        return Assessment(False, "its policy names no time_column, so no row is ever too old")
    if rules.row_days is None:
        told = f"its policy names {rules.time_column} but no row_days, so no row is ever too old"
        return Assessment(False, told, possible=True)
    told = f"rows older than {rules.row_days:g} days by {rules.time_column} are looked for"
    return Assessment(number(metrics, "rows") > 0, told, cost=Cost(seconds=START_SECONDS), routine=True, possible=True)


def stats(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:  # noqa: ARG001 - a trigger's signature
    """Acts on tables whose statistics are stale, and on the database once per cooldown, for the report."""
    if DATABASE in metrics:
        return Assessment(True, "it is due by its policy", routine=True)
    if TABLE not in metrics:
        return None
    rules = cast(StatsPolicy, policy)
    changed, rows = number(metrics, "rows_changed_since_analyze"), number(metrics, "rows")
    told = f"{changed:,.0f} of {rows:,.0f} rows changed since the last ANALYZE"
    stale = rules.analyze == "all" or changed >= 50 + rules.stale_ratio * rows
    if rules.analyze != "none" and (stale or _never(metrics)):
        return Assessment(True, told if changed or not _never(metrics) else "it was never analyzed")
    return Assessment(False, f"{told}; stale at {rules.stale_ratio:.0%} and 50", possible=True)


def groups_of(operation: str) -> Trigger:
    """The trigger of ``cleanup``, ``logs`` or ``sessions``: where fleet.yaml has rule groups, once per cooldown.

    They are due on the database. On a table that they are about they are possible: for whoever names it.
    """
    counted = f"{operation}_groups"

    def trigger(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:  # noqa: ARG001
        groups = number(metrics, counted)
        if DATABASE not in metrics:
            if TABLE not in metrics and counted not in metrics:
                return None
            if not groups:
                return Assessment(False, f"no rule group of {operation} is about it")
            return Assessment(False, f"{count(groups, 'rule group')}, done with the whole database's", possible=True)
        if not groups:
            return Assessment(False, f"fleet.yaml has no rule group under {operation} of this backend")
        return Assessment(True, f"{count(groups, 'rule group')}, once per cooldown", routine=True)

    return trigger


def views(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:  # noqa: ARG001 - a trigger's signature
    """Acts once per cooldown on a database with materialized views, and on a hypertable with continuous aggregates."""
    if aggregates := number(metrics, "continuous_aggregates"):
        return Assessment(True, count(aggregates, "continuous aggregate"), routine=True, possible=True)
    if DATABASE not in metrics:
        whole = _by_database(metrics)
        return replace(whole, possible="is_materialized_view" in metrics) if whole else None
    there = number(metrics, "materialized_views")
    told = f"{count(there, 'materialized view')}"
    return Assessment(there > 0, told, routine=True)


def whole_database(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:  # noqa: ARG001 - a trigger's signature
    """Due once per cooldown on the database, never on a table: for backups."""
    if DATABASE in metrics:
        return Assessment(True, "it is due by its policy", routine=True)
    return _by_database(metrics)


def _by_table(metrics: Mapping[str, float], *, possible: bool = False) -> Assessment | None:
    """Of a database: its tables are looked at one by one."""
    return Assessment(False, "its tables are judged one by one", possible=possible) if DATABASE in metrics else None


def _by_database(metrics: Mapping[str, float]) -> Assessment | None:
    """Of a table: it is done for the whole database at once."""
    return Assessment(False, "it is done for the whole database at once") if TABLE in metrics else None


def _cost(moved: float, facts: RunFacts) -> Cost:
    rate = (
        facts.seconds_per_gib if facts.seconds_per_gib is not None and facts.seconds_per_gib > 0 else 1 / GIB_PER_SECOND
    )
    return Cost(seconds=START_SECONDS + min(rate, 1e6) * moved / GIB, bytes=moved)
