"""Statements that commit: which snapshot is ours, told from those of others, also when the connection broke."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aurum_orchestration.errors import (
    AurumError,
    BackendUnavailableError,
    CommitStateUnknownError,
    OperationCancelledError,
    StatementKilledError,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.client import Answer
from aurum_orchestration.maintenance.backends.iceberg.trino.history import history_of
from aurum_orchestration.maintenance.backends.iceberg.trino.readback import reading_back, wait_until_over
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import literal
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration.maintenance.interfaces import RunContext

if TYPE_CHECKING:
    from pyiceberg.table import Table

_log = logging.getLogger(__name__)
_MAY_ARRIVE_LATE = (CommitStateUnknownError, OperationCancelledError, StatementKilledError)


@dataclass(frozen=True, slots=True)
class Made:
    """The snapshot that a statement of ours committed, and the one that it was committed on."""

    snapshot_id: int
    parent_id: int
    summary: Mapping[str, str]
    seen: Table | None = field(default=None, compare=False, repr=False)
    """The table in which the catalog showed it, None where Trino did."""

    def number(self, key: str) -> int:
        """A number of the summary, 0 when it is not there."""
        return int(self.summary.get(key, 0))


@dataclass(frozen=True, slots=True)
class Committed:
    """How a statement ended: what it committed (None: nothing had to be), what it took (None: read back)."""

    made: Made | None
    answer: Answer | None


def uncancelled(table: TrinoTable) -> TrinoTable:
    """The same table for questions that have to be asked although the run is to stop."""
    return table.asked_by(RunContext(table.run.operation_id) if table.run is not None else None)


def commit(
    table: TrinoTable,
    sql: str,
    run: RunContext,
    operation: str,
    session: Mapping[str, str],
    *,
    keeps_rows: bool = True,
) -> Committed:
    """Send a statement that commits at most one snapshot, and find that snapshot by the statement's query id.

    What Trino answers is not believed where the snapshots can tell: a statement that was cancelled, killed or cut off
    may have committed. What ``keeps_rows`` is taken over by whoever rewrites next if it commits later. Raises what the
    client raises once it is known that nothing was committed, CommitStateUnknownError when nobody can tell.
    """
    # by its text Trino finds this statement again, and no other
    marked = f"{sql} /* aurum {run.operation_id} {uuid.uuid4().hex[:8]} */"
    asking = uncancelled(table)
    try:
        answer = table.change(marked, run, operation=operation, session=session)
    except AurumError as error:
        try:
            made = _read_back(asking, marked, error)
        except CommitStateUnknownError:
            if keeps_rows:
                _may_arrive_late(table, error)
            raise
        if made is not None:
            return Committed(made, None)
        if keeps_rows:
            _may_arrive_late(table, error)
        if isinstance(error, CommitStateUnknownError):
            raise BackendUnavailableError(f"{error.detail}; read back: nothing was committed") from error
        raise
    with reading_back(answer.query_id):
        return Committed(_made_by(asking, [answer.query_id]), answer)


def late_commits(table: TrinoTable) -> list[Made]:
    """What statements committed after they had been read back as not committed, in this order; told once.

    Trino may die, or a statement be ended, while the catalog's database still holds its last step back. That step
    compares the table's metadata with what the statement began with: it comes before our next commit, or never.
    """
    waiting = table.client.unsure.get(str(table.table_id), [])
    found = []
    for query_id in list(waiting):
        made = _made_by(uncancelled(table), [query_id])
        if made is not None:
            waiting.remove(query_id)
            _log.warning("%s: query %s committed snapshot %s late", table.table_id, query_id, made.snapshot_id)
            found.append(made)
    return found


def _may_arrive_late(table: TrinoTable, error: AurumError) -> None:
    if error.query_id and isinstance(error, _MAY_ARRIVE_LATE):
        table.client.unsure.setdefault(str(table.table_id), []).append(error.query_id)


def _read_back(table: TrinoTable, marked: str, error: AurumError) -> Made | None:
    # never from the text: names of data files hold the ids of the statements that wrote them
    ids = [error.query_id] if error.query_id else []
    if not ids and not isinstance(error, OperationCancelledError):
        return None  # it never started
    unknown = CommitStateUnknownError(f"{error.detail}; and nobody can tell whether it committed")
    asked = f"SELECT query_id FROM system.runtime.queries WHERE query = {literal(marked)}"
    try:
        with suppress(BackendUnavailableError):  # it may be starting anew, which is waited for
            ids += [str(row[0]) for row in table.query(asked).rows]
            # a statement whose answer nobody fetches is never over, though it has committed
            made = _made_by(table, ids)
            if made is not None:
                return made
        wait_until_over(table, marked, unknown)
        return _made_by(table, ids)
    except BackendUnavailableError:
        raise unknown from error
    except CommitStateUnknownError:
        made = _made_by(table, ids)
        if made is None:
            raise
        return made


def _made_by(table: TrinoTable, query_ids: list[str]) -> Made | None:
    if not query_ids:
        return None
    if table.embedded is not None:
        seen = table.loaded()
        history = history_of(table, seen, clock=False)
        found = next((one for id_ in query_ids if (one := history.made_by(id_)) is not None), None)
        if found is None or found.parent_snapshot_id is None:
            return None
        return Made(found.snapshot_id, found.parent_snapshot_id, found.summary, seen)
    listed = ", ".join(literal(one) for one in dict.fromkeys(query_ids))
    rows = table.rows(
        f"SELECT snapshot_id, parent_id, summary FROM {table.relation('$snapshots')} "
        f"WHERE element_at(summary, 'trino_query_id') IN ({listed}) AND parent_id IS NOT NULL"
    )
    if not rows:
        return None
    snapshot_id, parent_id, summary = rows[0]
    return Made(int(snapshot_id), int(parent_id), dict(summary))
