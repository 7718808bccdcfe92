"""Trino and PyIceberg on one catalog, on this machine: a Trino, the PostgreSQL that holds the catalog, a warehouse."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines import background, postgres, trino
from aurum_orchestration.local.engines.background import Server
from aurum_orchestration.local.engines.cache import Tell
from aurum_orchestration.local.engines.java import find_java

CATALOG = "lake"
HEAP_MB = 2048
_BESIDES_MB = 768
"""What Trino's process takes besides its heap, and PostgreSQL."""

_POSTGRES, _TRINO = "postgres", "trino"


@dataclass(frozen=True)
class Lake:
    """Where a running Trino and its catalog are."""

    place: Path
    trino_port: int
    postgres_port: int

    @property
    def url(self) -> str:
        """Trino's address."""
        return f"http://127.0.0.1:{self.trino_port}"

    @property
    def warehouse(self) -> str:
        """Where new tables lie."""
        return f"file://{self.place / 'warehouse'}"

    @property
    def uri(self) -> str:
        """Where PyIceberg's ``SqlCatalog("lake")`` finds the catalog."""
        return postgres.url(self.postgres_port)

    @property
    def fleet(self) -> str:
        """A fleet.yaml with this lake as its backend."""
        return (
            "version: 1\n"
            "backends:\n"
            f"  {CATALOG}:\n"
            "    type: iceberg\n"
            "    engine: trino\n"
            "    host: 127.0.0.1\n"
            f"    port: {self.trino_port}\n"
            f"    trino_catalog: {CATALOG}\n"
            "    catalog:\n"
            f"      name: {CATALOG}\n"
            "      type: sql\n"
            f"      uri: {self.uri}\n"
            f"      warehouse: {self.warehouse}\n"
        )


def up(
    place: Path,
    tell: Tell,
    *,
    heap_mb: int = HEAP_MB,
    more_catalogs: Mapping[str, Mapping[str, str]] | None = None,
    more_settings: Mapping[str, str] | None = None,
    quick: bool = False,
) -> Lake:
    """Start what does not run yet in a folder, provision what is missing; where it is.

    ``more_catalogs`` are further names of the same catalog in Trino, each with properties of its own;
    ``more_settings`` are lines of its config.properties. With ``quick``
    Trino starts sooner and runs long statements slower, and the catalog does not survive a crash of the machine.
    Raises ProvisioningError.
    """
    from filelock import FileLock

    place.mkdir(parents=True, exist_ok=True)
    (place / "warehouse").mkdir(exist_ok=True)
    with FileLock(place / "lock"):
        running = _running(place, _TRINO)
        if running is None:
            ready(tell, heap_mb)
        holder = _running(place, _POSTGRES)
        if holder is None:
            if running is not None:  # its catalog was gone meanwhile, and may come back at another port
                running.stop()
                running = None
            tell("PostgreSQL starts")
            holder = _start_postgres(place, quick=quick)
        if running is None:
            _make_catalog(postgres.url(holder.port))
            tell("Trino starts (10 to 60 seconds)")
            running = _start_trino(place, holder.port, heap_mb, more_catalogs or {}, more_settings or {}, quick=quick)
        return Lake(place, running.port, holder.port)


def ready(tell: Tell, heap_mb: int = HEAP_MB) -> None:
    """Provision what is missing and look for Java and memory, so that a start will not fail for want of them.

    Raises ProvisioningError.
    """
    find_java(trino.JAVA)
    _has_room(heap_mb)
    trino.ENGINE.provision(tell)


def down(place: Path) -> list[str]:
    """End what runs in a folder; the names of what did. Tables and catalog stay."""
    ended = []
    for name, how in ((_TRINO, signal.SIGTERM), (_POSTGRES, signal.SIGINT)):  # to PostgreSQL: disconnect everybody
        if (server := _running(place, name)) is not None:
            server.stop(how)
            ended.append(name)
    return ended


def servers(place: Path) -> dict[str, Server | None]:
    """The servers of a folder by name, None for one that does not run."""
    return {name: _running(place, name) for name in (_TRINO, _POSTGRES)}


def _running(place: Path, name: str) -> Server | None:
    known = background.read(place, name)
    return known if known is not None and known.process is not None else None


def _start_postgres(place: Path, *, quick: bool) -> Server:
    folder, runs_as = place / "postgres", postgres.identity()
    if runs_as:  # whom it runs as has to get to its folder
        place.chmod(place.stat().st_mode | 0o111)
    folder.mkdir(exist_ok=True)
    binaries = postgres.made(folder) or postgres.make(folder)
    port = background.port_for(background.read(place, _POSTGRES))
    settings = ["shared_buffers=64MB", "max_connections=200", *(["fsync=off"] if quick else [])]
    command = postgres.command(binaries, folder, port, *settings)
    return background.start(
        place, _POSTGRES, command, port, lambda: postgres.answers(port), cwd=folder, identity=runs_as
    )


def _start_trino(
    place: Path,
    postgres_port: int,
    heap_mb: int,
    more: Mapping[str, Mapping[str, str]],
    settings: Mapping[str, str],
    *,
    quick: bool,
) -> Server:
    folder = place / "trino"
    folder.mkdir(exist_ok=True)
    port = background.port_for(background.read(place, _TRINO))
    lake = Lake(place, port, postgres_port)
    shared = trino.jdbc_catalog(CATALOG, postgres_port, lake.warehouse)
    catalogs = {CATALOG: shared, **{name: {**shared, **properties} for name, properties in more.items()}}
    command = trino.configure(folder, trino.ENGINE.folder, port, heap_mb, catalogs, more=settings, quick=quick)
    return background.start(place, _TRINO, command, port, lambda: trino.answers(port), cwd=folder)


def _make_catalog(uri: str) -> None:
    """Make the catalog's own tables in the database: Trino expects them."""
    from pyiceberg.catalog.sql import SqlCatalog

    SqlCatalog(CATALOG, uri=uri).engine.dispose()


def _has_room(heap_mb: int) -> None:
    import psutil

    free = psutil.virtual_memory().available
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.exists() and used.exists() and (most := limit.read_text().strip()).isdigit():
        free = min(free, int(most) - int(used.read_text()))
    needed = (heap_mb + _BESIDES_MB) * 1024**2
    if free < needed:
        raise ProvisioningError(
            f"{free / 1024**3:.1f} GiB of memory are free, and Trino needs {needed / 1024**3:.1f} GiB",
            hint="End something else, or use a Trino on another machine: docs/trino.md.",
        )
