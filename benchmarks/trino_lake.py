"""A Trino for benchmarks: the one of ``aurum local up``, in a scratch folder, with a heap that large tables fit in."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from pyiceberg.catalog.sql import SqlCatalog

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.fleet.load import load_fleet
from aurum_orchestration.local.engines import background, lake
from aurum_orchestration.local.engines.lake import Lake
from aurum_orchestration.local.engines.trino import ENGINE
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from benchmarks.run import NO_TRINO

HEAP_MB = 4096


@contextmanager
def trino_lake(heap_mb: int = HEAP_MB) -> Iterator[Lake]:
    """A running Trino and its catalog, ended and removed afterwards. Leaves with a sentence where it cannot be had."""
    if ENGINE.find() is None:
        print(f"skipped: {ENGINE.title} is not provisioned ({ENGINE.cost}, once): make trino", file=sys.stderr)
        sys.exit(NO_TRINO)
    with tempfile.TemporaryDirectory(prefix="aurum-bench-trino-") as scratch:
        Path(scratch).chmod(0o711)  # PostgreSQL runs as another user than root
        place = Path(scratch) / "local"
        try:
            found = lake.up(place, lambda line: print(f"  Trino: {line}", file=sys.stderr), heap_mb=heap_mb)
        except ProvisioningError as error:
            print(f"skipped: {error.detail}", file=sys.stderr)
            sys.exit(NO_TRINO)
        try:
            yield found
        finally:
            lake.down(place)


def catalog_of(found: Lake) -> SqlCatalog:
    """The catalog as PyIceberg sees it."""
    return SqlCatalog(lake.CATALOG, uri=found.uri, warehouse=found.warehouse)


def fleet_of(found: Lake, engine: str) -> Path:
    """A fleet file of this lake for one of the engines."""
    path = found.place / f"fleet-{engine}.yaml"
    path.write_text(found.fleet.replace("engine: trino", f"engine: {engine}"))
    return path


def service_of(fleet: Path) -> MaintenanceService:
    """A service over a fleet file, its history beside it."""
    settings = AurumSettings(home=fleet.parent, fleet=fleet, history_url=f"sqlite:///{fleet.parent}/history.db")
    return MaintenanceService(settings, fleet=load_fleet(fleet, settings))


def java(found: Lake) -> Any:
    """Trino's process (psutil)."""
    server = background.read(found.place, "trino")
    assert server is not None
    return psutil.Process(server.pid)


def forget_peak(pid: int) -> None:
    """Let the peak memory of a process begin at what it has now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_mib(pid: int | None = None) -> float:
    """The most memory that a process (default: this one) has had resident since it began or :func:`forget_peak`."""
    lines = Path(f"/proc/{pid or os.getpid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
