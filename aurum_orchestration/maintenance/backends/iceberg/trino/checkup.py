"""What ``aurum doctor`` tells of a coordinator: version, rights, floors, and what this version cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC

from aurum_orchestration.errors import AccessDeniedError, AurumError
from aurum_orchestration.maintenance.backends.iceberg.trino.capabilities import Capabilities
from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import relation
from aurum_orchestration.maintenance.findings import Finding, HealthStatus, clock, ok, warning
from aurum_orchestration.maintenance.interfaces import DiscoveredTable

_NEWER = {
    "optimize_manifests": "rewriting manifests",
    "expire_snapshots(retain_last => 1)": "keeping a number of snapshots at expiry",
    "expire_snapshots(clean_expired_metadata => true)": "cleaning up expired schemas and specs",
}
_RIGHTS = ("optimize", "expire_snapshots", "remove_orphan_files")
_PROBED = 3


def checkup(client: TrinoClient, capabilities: Capabilities, tables: Sequence[DiscoveredTable]) -> Iterator[Finding]:
    """The findings about a coordinator that answers and lists these tables. Nothing is executed: EXPLAIN tells."""
    yield ok("reachable", f"{client.connection.address} answers, with {len(tables):,} tables in {client.catalog}")
    yield ok("version", f"Trino {client.version}, user {client.connection.user}")
    yield clock(
        client.query("SELECT current_timestamp", operation="probe", retry=True).first()[0].astimezone(UTC), "Trino"
    )
    yield _floors(capabilities)
    names = [relation(client.catalog, one.table) for one in tables[:_PROBED]]
    if names:
        yield from _rights(client, names)
        yield _missing(client, capabilities, names[0])


def _floors(capabilities: Capabilities) -> Finding:
    floors = [("expiry", capabilities.expire_floor), ("orphan removal", capabilities.orphan_floor)]
    told = ", ".join(f"{name} no sooner than {floor}" for name, floor in floors if floor is not None)
    return ok("floors", f"the catalog allows {told}" if told else "the catalog does not say how soon expiry may be")


def _rights(client: TrinoClient, names: Sequence[str]) -> Iterator[Finding]:
    denied: list[Finding] = []
    for name in names:
        for procedure in _RIGHTS:
            try:
                client.query(f"EXPLAIN ALTER TABLE {name} EXECUTE {procedure}", operation="probe", retry=True)
            except AccessDeniedError as error:
                denied.append(
                    Finding(
                        check="rights",
                        status=HealthStatus.FAILED,
                        detail=f"{procedure} on {name} is not allowed: {error.detail}",
                        hint=error.hint,
                    )
                )
            except AurumError:
                continue  # not a question of rights: the operation itself will tell
    if denied:
        yield denied[0]
    else:
        yield ok("rights", f"{', '.join(_RIGHTS)} are allowed on the {len(names)} tables that were tried")


def _missing(client: TrinoClient, capabilities: Capabilities, name: str) -> Finding:
    missing = [what for call, what in _NEWER.items() if not capabilities.knows(client, name, call)]
    if capabilities.newest_format < 3:
        missing.append(f"tables of format version {capabilities.newest_format + 1}")
    if not missing:
        return ok("features", "this version has all that is used")
    return warning(
        "features", f"Trino {client.version} lacks: {', '.join(missing)}", "Operations say so where it matters."
    )
