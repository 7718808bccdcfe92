"""What a vacuum is planned from, and judged by afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from aurum_orchestration.errors import TableNotFoundError
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.horizon import (
    LONG,
    LONG_SECONDS,
    Holder,
    Locker,
    in_the_way,
    told_long,
)
from aurum_orchestration.maintenance.backends.postgres.table import PgTable

_STATES = """
SELECT c.oid::bigint,
       coalesce(pg_stat_get_live_tuples(c.oid), 0)::float8 AS live,
       coalesce(pg_stat_get_dead_tuples(c.oid), 0)::float8 AS dead,
       greatest(pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid)) AS vacuumed,
       greatest(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)) AS analyzed,
       coalesce(pg_stat_get_mod_since_analyze(c.oid), 0)::float8 AS changed,
       greatest(age(c.relfrozenxid), age(nullif(t.relfrozenxid, '0')))::bigint AS xid_age,
       coalesce((SELECT option_value::bigint FROM pg_options_to_table(c.reloptions)
                  WHERE option_name = 'autovacuum_freeze_max_age'),
                current_setting('autovacuum_freeze_max_age')::bigint) AS freeze_max_age,
       pg_total_relation_size(c.oid)::float8 AS bytes,
       (SELECT count(*) FROM pg_index i WHERE i.indrelid = c.oid)::int AS indexes
  FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid AND c.reltoastrelid <> 0
 WHERE c.oid = ANY (%s::oid[])
"""


@dataclass(frozen=True, slots=True)
class VacuumState:
    """A table as the statistics have it; ``bytes`` with indexes and TOAST."""

    live: float
    dead: float
    vacuumed: datetime | None
    analyzed: datetime | None
    changed: float
    xid_age: int
    freeze_max_age: int
    bytes: float
    indexes: int

    @property
    def freeze_share(self) -> float:
        """How far the table is on the way to a forced vacuum."""
        return self.xid_age / self.freeze_max_age


@dataclass(frozen=True, slots=True)
class Scene:
    """A table that is to be vacuumed, and who is in the way. ``long``: sentences about old transactions."""

    state: VacuumState
    lockers: list[Locker]
    holders: list[Holder]
    long: list[str]


def scene(session: Session, table: PgTable) -> Scene:
    """All of it in one round trip. Raises TableNotFoundError when the table is gone."""
    locked, held, (states, long) = in_the_way(session, table.oid, (_STATES, ([table.oid],)), (LONG, (LONG_SECONDS,)))
    if not states:
        raise TableNotFoundError("the table was dropped meanwhile", table=str(table.id))
    return Scene(VacuumState(*states[0][1:]), locked, held, told_long(long))


def vacuum_state(session: Session, table: PgTable) -> VacuumState | None:
    """The state now; None when the table is gone."""
    return vacuum_states(session, [table.oid]).get(table.oid)


def vacuum_states(session: Session, oids: Sequence[int]) -> dict[int, VacuumState]:
    """The states of many tables by oid; what is gone is absent."""
    return {oid: VacuumState(*values) for oid, *values in session.rows(_STATES, (list(oids),), again=True)}
