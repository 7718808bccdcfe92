"""How far a long statement is, asked of the server from another session while it runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aurum_orchestration.errors import AurumError
from aurum_orchestration.maintenance.backends.postgres.connection import Query, Sessions
from aurum_orchestration.maintenance.interfaces import RunContext

ASK_EVERY = 1.0
TELL_EVERY = 30.0
"""Seconds between two questions, and between two lines in the log about the same phase."""

VACUUM = """
SELECT phase, heap_blks_scanned::float8 AS done, heap_blks_total::float8 AS total, 'blocks' AS unit
  FROM pg_stat_progress_vacuum WHERE pid = %s
"""
CREATE_INDEX = """
SELECT phase, blocks_done::float8 AS done, blocks_total::float8 AS total, 'blocks' AS unit
  FROM pg_stat_progress_create_index WHERE pid = %s
"""

_log = logging.getLogger(__name__)


@contextmanager
def watched(sessions: Sessions, question: Query, pid: int, run: RunContext, what: str) -> Iterator[None]:
    """Within, what the process ``pid`` does is told: to ``run.progress``, and each phase to the log.

    ``question`` gives phase, done, total and unit for a pid. That it cannot be asked changes nothing.
    """
    ended = threading.Event()

    def watch() -> None:
        # what is over in a second needs no progress, and no session for it
        if ended.wait(ASK_EVERY):
            return
        told, quiet = "", 0.0
        try:
            with sessions.look("progress") as session:
                while not ended.wait(ASK_EVERY):
                    quiet += ASK_EVERY
                    row = session.row(question, (pid,))
                    if row is None:
                        continue
                    run.progress(row.done, row.total, row.unit)
                    if row.phase != told or quiet >= TELL_EVERY:
                        told, quiet = row.phase, 0.0
                        share = f", {row.done / row.total:.0%} of {row.total:,.0f} {row.unit}" if row.total else ""
                        _log.info("%s: %s%s", what, row.phase, share)
        except AurumError as error:
            _log.debug("%s: no progress is told: %s", what, error)

    watcher = threading.Thread(target=watch, name="progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
