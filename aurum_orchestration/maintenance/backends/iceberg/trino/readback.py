"""After a statement that changes a table: what it did is read back, also when Trino or the way to it goes meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aurum_orchestration.errors import BackendUnavailableError, CommitStateUnknownError
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import literal

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable

PATIENCE = 120.0
"""Seconds after which a statement counts as one that nobody knows the end of."""


@contextmanager
def reading_back(query_id: str | None) -> Iterator[None]:
    """Around what is read once a statement has ended: where nobody answers by then, nobody can tell what it did.

    Raises CommitStateUnknownError instead of BackendUnavailableError, which would say that nothing was done.
    """
    try:
        yield
    except BackendUnavailableError as error:
        raise CommitStateUnknownError(
            f"query {query_id} ended, and what it did cannot be read: {error.detail}",
            hint="See whether that query made the newest snapshot; running again plans from what is there.",
        ) from error


def wait_until_over(table: TrinoTable, statement: str, error: CommitStateUnknownError) -> None:
    """Return once the statement runs no more; reading the table then tells whether it took place.

    A Trino that was started anew runs nothing. Raises ``error`` when that cannot be found out.
    """
    # the text that asks holds the text that is asked for: only equal ones count
    asked = (
        "SELECT count(*) FROM system.runtime.queries "
        f"WHERE state NOT IN ('FINISHED', 'FAILED') AND query = {literal(statement)}"
    )
    until = time.monotonic() + PATIENCE
    pause = 0.2
    while time.monotonic() < until:
        try:
            if not table.query(asked).first()[0]:
                return
        except BackendUnavailableError:
            pass
        time.sleep(pause)
        pause = min(2 * pause, 5.0)
    raise error
