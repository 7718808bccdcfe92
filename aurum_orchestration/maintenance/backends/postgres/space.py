"""Whether there is room for a second copy. PostgreSQL does not tell how much of its disk is free.

Where its processes run on this machine, the operating system tells. Elsewhere a limit in bytes has to do.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.postgres.connection import Question, Session
from aurum_orchestration.maintenance.planner.words import size

MIB = 1024 * 1024

_FOLDERS = """
SELECT c.oid::bigint AS oid,
       coalesce(nullif(pg_tablespace_location(s.oid), ''),
                CASE WHEN pg_has_role(current_user, 'pg_read_all_settings', 'USAGE')
                     THEN current_setting('data_directory') END) AS folder
  FROM pg_class c
  LEFT JOIN pg_tablespace s ON s.oid = CASE WHEN c.reltablespace <> 0 THEN c.reltablespace ELSE
       (SELECT dattablespace FROM pg_database WHERE datname = current_database()) END
 WHERE c.oid = ANY (%s::oid[])
"""
# the role is part of pg_monitor; pg_settings, which needs none, takes longer than everything else here


@dataclass(frozen=True, slots=True)
class Room:
    """What is free where a relation lies, in bytes; None where it cannot be known, with the reason."""

    free: float | None
    told: str

    def refuse(self, needed: float, factor: float, unknown_limit_mb: float | None, what: str) -> None:
        """Raise UnsupportedError unless ``factor`` times ``needed`` bytes are free.

        Where that cannot be known: unless ``needed`` is below the limit (None: no limit).
        """
        if self.free is not None:
            if self.free < factor * needed:
                raise UnsupportedError(
                    f"{what} needs {size(needed)} beside what is there, and {size(self.free)} are free {self.told}; "
                    f"{factor:g} times as much has to be",
                    hint="Free or add space, or lower free_space_factor.",
                )
        elif unknown_limit_mb is not None and needed > unknown_limit_mb * MIB:
            raise UnsupportedError(
                f"{what} needs {size(needed)} beside what is there, and the free space is not known: {self.told}",
                hint=f"Look at the server's disk, and set unknown_space_limit_mb above {needed / MIB:,.0f}.",
            )


def rooms(session: Session, oids: list[int]) -> dict[int, Room]:
    """The room beside each of these tables or indexes."""
    return read_rooms(session, session.rows(*rooms_question(oids)))


def rooms_question(oids: list[int]) -> Question:
    """What :func:`rooms` asks, for :meth:`Session.together`."""
    return _FOLDERS, (oids,)


def read_rooms(session: Session, rows: Sequence[Any]) -> dict[int, Room]:
    """What the rows of :func:`rooms_question` say."""
    local = _server_is_here(session)
    return {row.oid: _room(row.folder, local=local) for row in rows}


def _room(folder: str | None, *, local: bool) -> Room:
    if not local:
        return Room(None, "the server does not run where this does")
    if folder is None:
        return Room(None, "the role may not see data_directory, which pg_monitor may")
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return Room(None, f"{folder} cannot be asked: {error.strerror}")
    return Room(float(found.f_bavail * found.f_frsize), f"in {folder}")


def _server_is_here(session: Session) -> bool:
    """Whether the process that serves us is one of this machine's, by its title."""
    try:
        title = Path(f"/proc/{session.pid}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False
    return title.startswith("postgres:") and f" {session.connection.info.dbname} " in title
