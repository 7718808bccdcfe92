"""What leaves a table in a transaction, by the server's own count of it.

``RETURNING`` tells of the rows that a statement itself deleted. Those that triggers, rules and foreign keys take along
it does not tell; PostgreSQL's counters of the running transaction do, and other sessions' work is not in them. So a
row too many is seen whatever took it out, without reading one that stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from aurum_orchestration.errors import VerificationError
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.rows.relation import Leaf, RowTable

_REFERRING = """
SELECT DISTINCT relid::oid::bigint
  FROM pg_constraint k,
       LATERAL (SELECT k.conrelid AS relid UNION SELECT relid FROM pg_partition_tree(k.conrelid) WHERE isleaf) leaf
 WHERE k.contype = 'f' AND k.conrelid <> k.confrelid AND k.conparentid = 0 AND k.confdeltype IN ('c', 'n', 'd')
   AND k.confrelid IN (SELECT %(table)s::oid UNION SELECT relid FROM pg_partition_ancestors(%(table)s::oid))
"""
"""Tables whose rows a foreign key deletes or changes with those of a table, or of a partition of it."""

_FACTS = """
SELECT current_setting('track_counts')::bool AS counts,
       EXISTS (SELECT FROM pg_constraint
                WHERE contype = 'f' AND conrelid = confrelid AND confdeltype = 'c' AND conparentid = 0
                  AND confrelid IN (SELECT %(table)s::oid UNION
                                    SELECT relid FROM pg_partition_ancestors(%(table)s::oid))) AS cascades,
       EXISTS (SELECT FROM pg_trigger WHERE tgrelid = ANY (%(leaves)s::oid[]) AND tgdeferrable) AS waits
"""

_COUNTERS = """
SELECT (SELECT coalesce(sum(pg_stat_get_xact_tuples_deleted(one)), 0)::bigint FROM unnest(%s::oid[]) one),
       (SELECT coalesce(sum(pg_stat_get_xact_tuples_deleted(one) + pg_stat_get_xact_tuples_updated(one)), 0)::bigint
          FROM unnest(%s::oid[]) one)
"""
"""Rows that left the first tables in this transaction, and rows of the others that left or changed."""


class Page:
    """One transaction. ``deleted``: rows that its statement says it deleted; whoever runs that sets it.

    ``gone``: rows that left by the server's count, once that was compared; None where nothing is.
    """

    deleted = 0
    gone: int | None = None


@dataclass(frozen=True)
class Ledger:
    """Compares, in each transaction, what was deleted with what was meant to be.

    ``leaves``: the parts that hold the table's rows. ``referring``: tables of which no row may go or change along.
    ``waits``: it has triggers that may wait for the commit. ``warning`` says why there is no proof, where there is
    none; then nothing is compared.
    """

    table: str
    leaves: Sequence[int]
    referring: Sequence[int]
    waits: bool
    warning: str | None = None

    @classmethod
    def of(cls, session: Session, table: RowTable, leaves: Sequence[Leaf], *, cascade: bool) -> Ledger:
        """The ledger of a table. ``cascade``: rows of referring tables may go or change along."""
        referring = [] if cascade else [row[0] for row in session.tuples(_REFERRING, {"table": table.oid})]
        parts = [leaf.oid for leaf in leaves]
        facts = session.row(_FACTS, {"table": table.oid, "leaves": parts})
        warning = None
        if not facts.counts:
            warning = "the server counts no rows (track_counts is off): nobody proves that only old ones went"
        elif facts.cascades:
            warning = f"{table.shown} refers to itself ON DELETE CASCADE: what goes along is not in the proof"
        return cls(table.shown, parts, referring, facts.waits, warning)

    @contextmanager
    def page(self, session: Session) -> Iterator[Page]:
        """Within a transaction. Raises VerificationError at the end when more, or fewer, rows went than were meant."""
        page = Page()
        if self.warning is not None:
            yield page
            return
        before = self._read(session)
        yield page
        if self.waits:
            session.execute("SET CONSTRAINTS ALL IMMEDIATE")
        gone, touched = (now - then for now, then in zip(self._read(session), before, strict=True))
        if gone != page.deleted:
            raise VerificationError(
                f"{gone:,} rows left {self.table} where {page.deleted:,} old ones were to go; nothing of the batch did",
                hint="A trigger or rule of the table takes other rows along, or keeps some.",
            )
        if touched:
            raise VerificationError(
                f"{touched:,} rows that refer to {self.table} went or changed along; nothing of the batch did",
                hint="Set cascade: true if that is meant. They came after the plan, or a trigger touches them.",
            )
        page.gone = gone

    def _read(self, session: Session) -> tuple[int, int]:
        gone, touched = session.tuples(_COUNTERS, (list(self.leaves), list(self.referring)))[0]
        return gone, touched
