"""Whether everything that a snapshot needs is there: asked before main goes back to it, or a backup promises it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from aurum_orchestration.errors import CorruptTableError
from aurum_orchestration.maintenance.backends.iceberg.avro import AvroError, Projection, read_avro
from aurum_orchestration.maintenance.backends.iceberg.files import Files, in_threads, local_path
from aurum_orchestration.maintenance.interfaces import RunContext, Verification

METHOD = "every-file-present"

_LIST: Projection = (500, 501)
_ENTRY: Projection = (0, (2, (134, 100, 103, 104)))
_DELETED = 2
_NAMED = 3


@dataclass
class Presence:
    """The live files of a snapshot, data and delete files; ``missing`` are gone, or shorter than they were written.

    ``rows`` are those of all data files, ``rows_present`` of those that are there.
    """

    files: int = 0
    bytes: int = 0
    rows: int = 0
    rows_present: int = 0
    missing: list[str] = field(default_factory=list)

    def require(self, snapshot: Snapshot) -> None:
        """Raise CorruptTableError when a file is missing."""
        if self.missing:
            named = ", ".join(self.missing[:_NAMED])
            raise CorruptTableError(
                f"{len(self.missing):,} of {self.files:,} files of snapshot {snapshot.snapshot_id} are missing, "
                f"e.g. {named}"
            )

    def verification(self) -> Verification:
        """The proof: rows in all files against rows in those that are there."""
        return Verification(
            method=METHOD, rows_before=self.rows, rows_after=self.rows_present, checksum_equal=not self.missing
        )


def presence(table: Table, snapshot: Snapshot, run: RunContext) -> Presence:
    """Look for every file of the snapshot. Raises CorruptTableError when a manifest is gone."""
    files = Files(table.io.properties, table.io)
    found = Presence()
    manifests = [(path.decode(), length) for path, length in _read(files, snapshot.manifest_list, _LIST)]
    for number, (manifest, length) in enumerate(manifests):
        run.check()
        run.progress(number, len(manifests), "manifests")
        live = [
            (content, path.decode(), rows, size)
            for status, (content, path, rows, size) in _read(files, manifest, _ENTRY, length)
            if status != _DELETED
        ]
        sizes = sizes_on_storage(files, table, [path for _, path, _, _ in live])
        for (content, path, rows, size), there in zip(live, sizes, strict=True):
            found.files += 1
            found.bytes += size
            present = there is not None and there >= size
            if not present:
                found.missing.append(path)
            if not content:
                found.rows += rows
                found.rows_present += rows * present
    return found


def sizes_on_storage(files: Files, table: Table, paths: list[str]) -> Iterator[int | None]:
    """Sizes on storage; None for a file that is not there."""

    def remote(path: str) -> int | None:
        given = table.io.new_input(path)
        return len(given) if given.exists() else None

    if paths and files.is_local(paths[0]):
        return (_local_size(path) if files.is_local(path) else remote(path) for path in paths)
    return in_threads(remote, paths)


def _local_size(location: str) -> int | None:
    try:
        return os.stat(local_path(location) or "").st_size  # noqa: PTH116 - a hundred thousand times
    except OSError:
        return None


def _read(files: Files, location: str, projection: Projection, length: int | None = None) -> list[tuple]:  # type: ignore[type-arg]
    content = files.read(location)
    if len(content) < (length or 0):
        raise CorruptTableError(f"{location} is cut short")
    try:
        return read_avro(content, projection).records
    except AvroError as error:
        raise CorruptTableError(f"{location}: {error}") from error
