"""What the last discovery of each backend found, kept as one file per backend.

The code location loads from these files, so it loads with every backend down. A file is replaced
atomically: readers see the old list or the new one, and of several writers the last one wins.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from aurum_orchestration.errors import StorageWriteError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import DiscoveredTable

_FORMAT = 1
_LONGEST = 150  # of file names; most file systems allow 255 bytes
_log = logging.getLogger(__name__)


class DiscoveryCache:
    """The discovered tables of each backend, in ``folder``. Nothing is created before the first write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, tuple[tuple[int, ...], list[DiscoveredTable]]] = {}

    def file(self, backend: str) -> Path:
        """Where the tables of a backend are kept; any name makes a file name."""
        name = quote(backend, safe="")
        return self._folder / f"{name if len(name) <= _LONGEST else hashlib.sha256(backend.encode()).hexdigest()}.json"

    def load(self, backend: str) -> list[DiscoveredTable]:
        """The tables last seen; empty when never discovered or when the file cannot be understood (logged)."""
        path = self.file(backend)
        try:
            status = path.stat()
            version = (status.st_ino, status.st_mtime_ns, status.st_size)
            known = self._read.get(backend)
            if known is None or known[0] != version:
                # should it be unreadable, that is said once
                self._read[backend] = (version, [])
                known = self._read[backend] = (version, _decode(backend, orjson.loads(path.read_bytes())))
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning(
                "%s, the tables last discovered on %s, cannot be read (%s: %s): going on as if nothing was ever "
                "discovered there. The next discovery replaces the file.",
                path,
                backend,
                type(error).__name__,
                error,
            )
            return []
        return known[1]

    def save(self, backend: str, tables: Sequence[DiscoveredTable]) -> None:
        """Replace what is known of a backend. Raises StorageWriteError."""
        path = self.file(backend)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, orjson.dumps(_encode(tables)))
        except OSError as error:
            raise StorageWriteError(
                f"the tables discovered on {backend} cannot be written to {path}: {error}",
                hint="Make the folder writable or set AURUM_HOME to one that is.",
            ) from error


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        with fresh.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _encode(tables: Sequence[DiscoveredTable]) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "tables": [[found.table.parts, found.kind, found.location, found.comment, found.columns] for found in tables],
    }


def _decode(backend: str, data: Any) -> list[DiscoveredTable]:
    if data["format"] != _FORMAT:
        raise ValueError(f"format {data['format']!r} is not {_FORMAT}")
    return [
        DiscoveredTable(TableId(backend, tuple(parts)), kind, location, comment, tuple(map(tuple, columns)))
        for parts, kind, location, comment, columns in data["tables"]
    ]
