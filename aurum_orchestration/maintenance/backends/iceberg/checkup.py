"""What ``aurum doctor`` tells of an Iceberg catalog: versions, rights, free space, clocks. Writes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC
from pathlib import Path

from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from sqlalchemy import func, select

from aurum_orchestration.errors import redact
from aurum_orchestration.maintenance.backends.iceberg.files import local_path
from aurum_orchestration.maintenance.findings import Finding, HealthStatus, clock, ok, space
from aurum_orchestration.maintenance.interfaces import DiscoveredTable
from aurum_orchestration.maintenance.planner.words import count


def checkup(catalog: Catalog, tables: Sequence[DiscoveredTable]) -> list[Finding]:
    """The findings about a catalog that answers and lists these tables."""
    kind = next(one.__name__ for one in type(catalog).__mro__ if not one.__name__.startswith("_"))
    uri = redact(str(catalog.properties.get("uri", "")))
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("pyiceberg", "pyarrow"))
    return [
        ok("reachable", f"{kind} {uri} answers, with {count(len(tables), 'table')}"),
        ok("version", versions),
        *_clock(catalog),
        *_storage(catalog, tables),
    ]


def _clock(catalog: Catalog) -> Iterator[Finding]:
    if isinstance(catalog, SqlCatalog) and catalog.engine.dialect.name == "postgresql":
        with catalog.engine.connect() as connection:
            now = connection.execute(select(func.clock_timestamp())).scalar_one()
        yield clock(now.astimezone(UTC), "the catalog's database")


def _storage(catalog: Catalog, tables: Sequence[DiscoveredTable]) -> Iterator[Finding]:
    locations = {str(catalog.properties.get("warehouse", "")), *(table.location for table in tables)}
    folders = sorted({Path(path) for location in locations if location and (path := local_path(location))})
    there = [folder for folder in folders if folder.is_dir()]
    remote = sum(1 for location in locations if location and local_path(location) is None)
    if remote:
        yield ok("rights", f"{remote:,} locations are on object storage: only writing shows whether it is allowed")
    locked = [folder for folder in there if not os.access(folder, os.W_OK | os.X_OK)]
    if locked:
        more = f" and {len(locked) - 1:,} more" if len(locked) > 1 else ""
        yield Finding(
            check="rights",
            status=HealthStatus.FAILED,
            detail=f"{locked[0]}{more} cannot be written to by this user",
            hint="Run maintenance as a user who may write there, or open the folder to this one.",
        )
    elif there:
        yield ok("rights", f"{len(there):,} local folders can be written to")
    for folder in {folder.stat().st_dev: folder for folder in there}.values():
        usage = shutil.disk_usage(folder)
        yield space(usage.free, usage.total, f"at {folder}")
