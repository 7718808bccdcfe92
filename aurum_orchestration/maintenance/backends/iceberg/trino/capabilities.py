"""What a Trino server can do to tables of its catalog, and the floors that its catalog sets: asked, not assumed.

``EXPLAIN`` analyses a statement without running it, so it tells whether the server knows a procedure or a value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from aurum_orchestration.errors import AccessDeniedError, RequestError, UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import ident, literal

if TYPE_CHECKING:
    from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient

EXPIRE_FLOOR = "expire_snapshots_min_retention"
ORPHAN_FLOOR = "remove_orphan_files_min_retention"

_FORMATS = (3, 2)
_UNITS = {"ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class Capabilities:
    """``version`` of the coordinator; ``session``: the catalog's session properties by name (without the catalog).

    ``newest_format`` is the newest version of the Iceberg format that this server writes. ``calls`` remembers which
    procedure calls it knows.
    """

    version: int
    session: Mapping[str, str] = field(default_factory=dict)
    newest_format: int = 2
    calls: dict[str, bool] = field(default_factory=dict)

    @property
    def expire_floor(self) -> timedelta | None:
        """The shortest retention that expire_snapshots takes, None when the catalog does not say."""
        return duration(self.session.get(EXPIRE_FLOOR))

    @property
    def orphan_floor(self) -> timedelta | None:
        """The shortest retention that remove_orphan_files takes, None when the catalog does not say."""
        return duration(self.session.get(ORPHAN_FLOOR))

    def has_session_property(self, name: str) -> bool:
        """True when the catalog has a session property of that name."""
        return name in self.session

    def knows(self, client: TrinoClient, relation: str, call: str) -> bool:
        """True when the server knows a table procedure with these arguments: ``expire_snapshots(retain_last => 1)``.

        ``relation``: the quoted name of any table that is there. Nothing is executed.
        """
        if call not in self.calls:
            try:
                client.query(f"EXPLAIN ALTER TABLE {relation} EXECUTE {call}", operation="probe", retry=True)
                self.calls[call] = True
            except (UnsupportedError, RequestError):
                self.calls[call] = False
        return self.calls[call]


def probe(client: TrinoClient) -> Capabilities:
    """Ask the server. Raises the client's errors."""
    version = client.version
    listed = client.query(f"SHOW SESSION LIKE {literal(client.catalog + '.%')}", operation="probe", retry=True)
    prefix = f"{client.catalog}."
    session = {str(name).removeprefix(prefix): str(value) for name, value, *_ in listed.rows}
    return Capabilities(version, session, _newest_format(client))


def _newest_format(client: TrinoClient) -> int:
    nowhere = f"{ident(client.catalog)}.{ident('aurum_probe')}.{ident('aurum_probe')}"
    for version in _FORMATS:
        try:
            client.query(
                f"EXPLAIN CREATE TABLE {nowhere} WITH (format_version = {version}) AS SELECT 1 AS one",
                operation="probe",
                retry=True,
            )
        except RequestError as error:
            if "INVALID_TABLE_PROPERTY" in error.detail:
                continue
        except AccessDeniedError:
            # the right to create is looked at after the value
            pass
        return version
    return _FORMATS[-1]


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
