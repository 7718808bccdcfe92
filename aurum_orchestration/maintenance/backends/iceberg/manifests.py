"""The live files of a snapshot, as much of them as measuring needs, from its manifest list and manifests."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from aurum_orchestration.errors import CorruptTableError
from aurum_orchestration.maintenance.backends.iceberg.avro import AvroError, Projection, read_avro
from aurum_orchestration.maintenance.backends.iceberg.files import Files, in_threads
from aurum_orchestration.maintenance.backends.iceberg.metadata import TableState

DATA, POSITION_DELETES, EQUALITY_DELETES = 0, 1, 2
DELETED = 2
"""Status of an entry whose file is no longer part of the table."""

_LIST: Projection = (500, 502, 517, 504, 505, 515, 501)
_ENTRY: Projection = (0, 3, (2, (134, 101, 102, 103, 104, 131)))


class Manifest(NamedTuple):
    """A manifest of a snapshot. ``live`` counts the files it adds to the snapshot, ``length`` is in bytes.

    Both are None when unknown.
    """

    path: str
    spec_id: int | None = None
    deletes: bool = False
    live: int | None = None
    sequence_number: int = 0
    length: int | None = None


class LiveFile(msgspec.Struct, frozen=True, gc=False):
    """A live data or delete file. ``partition`` holds the values as stored, good for comparing only."""

    content: int
    file_format: str
    partition: tuple[Any, ...]
    record_count: int
    file_size_in_bytes: int
    key_metadata: bytes | None
    spec_id: int
    sequence_number: int


def read_manifest_list(location: str, content: bytes) -> list[Manifest]:
    """The manifests that a manifest list names. Raises CorruptTableError."""
    try:
        return [
            Manifest(path.decode(), spec_id, kind == 1, _sum(added, existing), number or 0, length)
            for path, spec_id, kind, added, existing, number, length in read_avro(content, _LIST).records
        ]
    except (AvroError, AttributeError) as error:
        raise CorruptTableError(f"manifest list {location}: {error}") from error


def _sum(added: int | None, existing: int | None) -> int | None:
    return None if added is None or existing is None else added + existing


def read_manifest(manifest: Manifest, content: bytes) -> list[LiveFile]:
    """The live files of a manifest. Raises CorruptTableError."""
    try:
        return list(_live_files(manifest, content))
    except (AvroError, AttributeError, TypeError) as error:
        raise CorruptTableError(f"manifest {manifest.path}: {error}") from error


def _live_files(manifest: Manifest, content: bytes) -> Iterator[LiveFile]:
    file = read_avro(content, _ENTRY)
    spec_id = manifest.spec_id
    if spec_id is None:
        spec_id = int(file.metadata.get("partition-spec-id", b"0"))
    formats: dict[bytes, str] = {}
    inherited = manifest.sequence_number
    for status, number, (kind, format_, partition, rows, size, key) in file.records:
        if status != DELETED:
            name = formats.get(format_) or formats.setdefault(format_, format_.decode().upper())
            yield LiveFile(
                kind or DATA, name, partition, rows, size, key, spec_id, inherited if number is None else number
            )


class Contents(NamedTuple):
    """The manifests of a snapshot, and its live files, data and delete files apart."""

    manifests: list[Manifest]
    data: list[LiveFile]
    deletes: list[LiveFile]


class ManifestReader:
    """Reads what a snapshot holds; keeps the manifests read lately, since commits leave most as they are."""

    def __init__(self, max_files: int) -> None:
        self._kept: OrderedDict[str, list[LiveFile]] = OrderedDict()
        self._room = max_files
        self._lock = threading.Lock()

    def contents(self, state: TableState, files: Files, give_up: Callable[[], bool]) -> Contents | None:
        """The current snapshot's live files, or None when ``give_up`` said so. Raises CorruptTableError."""
        if state.manifest_list is not None:
            manifests = read_manifest_list(state.manifest_list, files.read(state.manifest_list))
        else:
            manifests = [Manifest(path) for path in state.manifests]
        wanted = [manifest for manifest in manifests if manifest.live != 0]
        contents = Contents(manifests, [], [])

        def read(manifest: Manifest) -> list[LiveFile] | None:
            return None if give_up() else self._files_of(manifest, files)

        remote = len(wanted) > 1 and not files.is_local(wanted[0].path)
        for manifest, found in zip(wanted, in_threads(read, wanted) if remote else map(read, wanted), strict=True):
            if found is None:
                return None
            (contents.deletes if manifest.deletes else contents.data).extend(found)
        return contents

    def _files_of(self, manifest: Manifest, files: Files) -> list[LiveFile]:
        with self._lock:
            if (kept := self._kept.get(manifest.path)) is not None:
                self._kept.move_to_end(manifest.path)
                return kept
        found = read_manifest(manifest, files.read(manifest.path))
        with self._lock:
            if manifest.path not in self._kept:
                self._kept[manifest.path] = found
                self._room -= len(found) + 1
            while self._room < 0 and self._kept:
                self._room += len(self._kept.popitem(last=False)[1]) + 1
        return found
