"""Takes old rows out of a table, batch by batch: each batch a transaction that checks itself before it is committed.

Rows are found in the order of the index on their time where there is one, else in the order in which they lie in the
table, so that no batch reads again what the ones before it have read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from psycopg import sql

from aurum_orchestration.errors import VerificationError
from aurum_orchestration.maintenance.backends.postgres.connection import Session, patiently
from aurum_orchestration.maintenance.backends.postgres.rows.condition import old_rows, surely_old
from aurum_orchestration.maintenance.backends.postgres.rows.ledger import Ledger
from aurum_orchestration.maintenance.backends.postgres.rows.relation import Leaf, RowTable
from aurum_orchestration.maintenance.backends.rules.work import Taken
from aurum_orchestration.maintenance.interfaces import RunContext

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.postgres.rows.export import Export

FIRST_BLOCKS, FEWEST_BLOCKS, MOST_BLOCKS = 64, 8, 4096
"""Blocks of a table that one statement looks through, where no index leads to old rows."""

_BATCH = """
WITH picked AS MATERIALIZED (
  SELECT ctid AS place, {column} AS moment FROM ONLY {leaf} WHERE {old} AND {where}
  {order} LIMIT {rows} FOR UPDATE SKIP LOCKED
), gone AS (
  DELETE FROM ONLY {leaf} WHERE ctid = ANY (ARRAY(SELECT place FROM picked)) AND {old} RETURNING {columns}
){moved}
"""
_COUNTED = """
SELECT (SELECT count(*) FROM gone) AS deleted, (SELECT count(*) FROM picked) AS picked,
       (SELECT max(moment)::text FROM picked) AS last, {kept} AS archived,
       (SELECT coalesce(bool_and({judge}), true) FROM gone) AS old
"""
_MOVED = ", moved AS (INSERT INTO {archive} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM gone RETURNING 1)"


@dataclass(frozen=True)
class Removal:
    """Which rows leave ``table``, and where to: nowhere, to another table or into files."""

    table: RowTable
    column: str
    before: datetime
    time_zone: str = "UTC"
    marked: str | None = None
    archive: RowTable | None = None

    @property
    def old(self) -> sql.Composed:
        """The condition for its rows."""
        return old_rows(self.table, self.column, self.before, self.time_zone, self.marked)

    @property
    def names(self) -> sql.Composed:
        """The columns that are archived; generated ones are made anew."""
        kept = [one for one in self.table.columns if not one.generated] if self.archive else self.table.columns
        return sql.SQL(", ").join(sql.Identifier(one.name) for one in kept)

    def batch(self, leaf: Leaf, where: sql.Composable, rows: int, *, ordered: bool) -> sql.Composed:
        """The part of a statement that picks, deletes and moves a batch of so many rows."""
        moved = (
            sql.SQL("")
            if self.archive is None
            else sql.SQL(_MOVED).format(archive=self.archive.identifier, columns=self.names)
        )
        every = sql.SQL(", ").join(sql.Identifier(one.name) for one in self.table.columns)
        return sql.SQL(_BATCH).format(
            column=sql.Identifier(self.column),
            leaf=leaf.identifier,
            old=self.old,
            where=where,
            rows=sql.Literal(rows),  # not a parameter: a name may hold what looks like one
            order=sql.SQL("ORDER BY {}").format(sql.Identifier(self.column)) if ordered else sql.SQL(""),
            columns=every,
            moved=moved,
        )

    def judge(self) -> sql.Composed:
        """Whether a deleted row was old, found in another way than it was picked."""
        return surely_old(self.table, self.column, sql.Identifier(self.column), self.before, self.time_zone)

    def counted(self, leaf: Leaf, where: sql.Composable, rows: int, *, ordered: bool) -> sql.Composed:
        """A whole batch in one statement, which answers with what it did."""
        kept = sql.SQL("0") if self.archive is None else sql.SQL("(SELECT count(*) FROM moved)")
        return self.batch(leaf, where, rows, ordered=ordered) + sql.SQL(_COUNTED).format(kept=kept, judge=self.judge())

    def shown(self, leaf: Leaf, rows: int) -> str:
        """The statement of a batch as a plan shows it."""
        return self.counted(leaf, sql.SQL("true"), rows, ordered=leaf.by_time).as_string(None).strip()

    def count(self) -> sql.Composed:
        """How many rows are old."""
        return sql.SQL("SELECT count(*) FROM {} WHERE {}").format(self.table.relation, self.old)


class Remover:
    """Carries a removal out over the parts of a table, one after the other."""

    def __init__(
        self,
        removal: Removal,
        leaves: Sequence[Leaf],
        session: Session,
        run: RunContext,
        *,
        ledger: Ledger,
        export: Export | None = None,
    ) -> None:
        self._removal, self._session, self._run = removal, session, run
        self._ledger, self._export = ledger, export
        self._walks = [_ByTime(removal, leaf) if leaf.by_time else _ByPlace(removal, leaf) for leaf in leaves]

    def take(self, rows: int) -> Taken:
        """One batch, committed. Locks that are not had are asked for again."""
        if not self._walks:
            return Taken(0, 0, more=False)
        walk = self._walks[0]
        taken, last = patiently(lambda: self._once(walk, rows), self._run)
        if walk.ended(taken.picked, rows, last):
            self._walks.pop(0)
        return replace(taken, more=bool(self._walks))

    def _once(self, walk: _ByTime | _ByPlace, rows: int) -> tuple[Taken, str | None]:
        if self._export is not None:
            return self._export.take(self._removal, self._ledger, walk.leaf, walk.where(), rows, ordered=walk.ordered)
        query = self._removal.counted(walk.leaf, walk.where(), rows, ordered=walk.ordered)
        with self._session.transaction(), self._ledger.page(self._session) as page:
            found = self._session.row(query)
            page.deleted = found.deleted
            require_right(found.deleted, found.archived if self._removal.archive else found.deleted, found.old)
        return Taken(found.deleted, found.picked, more=True, archived=found.archived, counted=page.gone), found.last


def require_right(deleted: int, archived: int, old: Any) -> None:
    """Raise VerificationError, inside the transaction, when a batch is not what it has to be."""
    if not old:
        raise VerificationError("a row that is not old was among those to be deleted; nothing of the batch was")
    if deleted != archived:
        raise VerificationError(f"{archived} of {deleted} rows reached the archive; nothing of the batch was deleted")


class _ByTime:
    """From the oldest row on, by the index: index entries of deleted rows are not read again."""

    ordered = True

    def __init__(self, removal: Removal, leaf: Leaf) -> None:
        self.leaf = leaf
        self._column, self._type = sql.Identifier(removal.column), removal.table.column(removal.column).base
        self._from: str | None = None

    def where(self) -> sql.Composable:
        """Where the next batch begins."""
        if self._from is None:
            return sql.SQL("true")
        return sql.SQL("{} >= {}::{}").format(self._column, sql.Literal(self._from), sql.Identifier(self._type))

    def ended(self, picked: int, rows: int, last: str | None) -> bool:
        """Take note of a batch; whether it was the last one."""
        self._from = last or self._from
        return picked < rows


class _ByPlace:
    """Block by block, each read until it holds no old row that could be had."""

    ordered = False

    def __init__(self, removal: Removal, leaf: Leaf) -> None:  # noqa: ARG002 - as the other walk
        self.leaf = leaf
        self._from, self._blocks = 0, FIRST_BLOCKS

    def where(self) -> sql.Composable:
        """The blocks of the next batch."""
        first, end = (sql.Literal(f"({block},0)") for block in (self._from, self._from + self._blocks))
        return sql.SQL("ctid >= {}::tid AND ctid < {}::tid").format(first, end)

    def ended(self, picked: int, rows: int, last: str | None) -> bool:  # noqa: ARG002 - as the other walk
        """Take note of a batch; whether it was the last one."""
        if picked >= rows:
            self._blocks = max(FEWEST_BLOCKS, self._blocks // 2)
            return False
        self._from += self._blocks
        if picked < rows / 2:
            self._blocks = min(MOST_BLOCKS, self._blocks * 2)
        return self._from >= self.leaf.blocks
