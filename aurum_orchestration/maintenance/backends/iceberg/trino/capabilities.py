"""What a Trino server can do to tables of its catalog, and the floors that its catalog sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from aurum_orchestration.maintenance.backends.iceberg.trino.sql import literal

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient

EXPIRE_FLOOR = "expire_snapshots_min_retention"
ORPHAN_FLOOR = "remove_orphan_files_min_retention"

_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Capabilities:
    """``version`` of the coordinator; ``session``: the catalog's session properties by name (without the catalog).

    ``newest_format`` is the newest version of the Iceberg format that this server rewrites.
    """

    version: int
    session: Mapping[str, str] = field(default_factory=dict)

    @property
    def expire_floor(self) -> timedelta | None:
        """The shortest retention that expire_snapshots takes, None when the catalog does not say."""
        return duration(self.session.get(EXPIRE_FLOOR))

    @property
    def orphan_floor(self) -> timedelta | None:
        """The shortest retention that remove_orphan_files takes, None when the catalog does not say."""
        return duration(self.session.get(ORPHAN_FLOOR))

    @property
    def newest_format(self) -> int:
        """476 stops at 2."""
        return 2

    def has_session_property(self, name: str) -> bool:
        """True when the catalog has a session property of that name."""
        return name in self.session


def probe(client: TrinoClient) -> Capabilities:
    """Ask the server. Raises the client's errors."""
    version = client.version
    listed = client.query(f"SHOW SESSION LIKE {literal(client.catalog + '.%')}", retry=True)
    prefix = f"{client.catalog}."
    session = {str(name).removeprefix(prefix): str(value) for name, value, *_ in listed.rows}
    return Capabilities(version, session)


def duration(text: str | None) -> timedelta | None:
    """A length of time as Trino writes it: ``7.00d``, ``36h``. None for none."""
    if not text:
        return None
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(number) :]
    try:
        return timedelta(seconds=float(number) * _UNITS[unit])
    except (ValueError, KeyError):
        return None


def session_property(client: TrinoClient, name: str) -> str:
    """The full name of a session property of the catalog, as a statement's session takes it."""
    return f"{client.catalog}.{name}"
