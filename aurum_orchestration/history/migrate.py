"""Bringing a store to the schema that this code knows, once, whoever comes first.

The alembic migrations ship inside the package and run from here, never from a command line. The
caller's transaction holds the lock under which the version is looked at and changed, so two processes
may create the same store at once: the second finds it made.
"""

from __future__ import annotations

import threading
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from aurum_orchestration.errors import HistoryUnusableError
from aurum_orchestration.history.schema import HEAD, VERSION_TABLE

MIGRATIONS = Path(__file__).parent / "migrations"
_alembic = threading.Lock()
"""Alembic keeps the migration at work in its modules, so one process runs one at a time."""
_ADVISORY_LOCK = 0x6175_7275_6D68_6973  # "aurumhis": any number nobody else takes


def revision(connection: Connection) -> str | None:
    """Revision of the store's schema, None for a store without one. Reads only."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    return None if found is None else str(found)


def upgrade(connection: Connection) -> None:
    """Create or migrate the schema inside the connection's transaction, which must be one that writes.

    Raises HistoryUnusableError when a newer version of this package made the store.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
    found = revision(connection)
    if found != HEAD:
        _migrate(connection, found)


def _migrate(connection: Connection, found: str | None) -> None:
    # takes time, and most processes find a store that is current
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise HistoryUnusableError(
            f"the history store has schema {found}, this version of aurum-orchestration knows schemas up to {HEAD}",
            hint="A newer version made this store: upgrade aurum-orchestration here, "
            "or point AURUM_HISTORY_URL to another store.",
        )
    config.attributes["connection"] = connection
    with _alembic:
        command.upgrade(config, HEAD)
