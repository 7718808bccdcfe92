"""Which files a table's snapshots refer to: what expiry and orphan removal must keep.

Everything that any snapshot, ref, statistics file or logged metadata file names is reachable. Paths are
kept as they were written; :func:`normalised` makes one spelling of those that mean the same file, and is
what paths are compared by.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from aurum_orchestration.errors import CorruptTableError, UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.avro import AvroError, Projection, SuccessiveFiles, read_avro
from aurum_orchestration.maintenance.backends.iceberg.files import Files, in_threads
from aurum_orchestration.maintenance.backends.iceberg.refusals import GC_ENABLED, foreign_files_refusal

T = TypeVar("T")

_LIST: Projection = (500, 501)
_ENTRY: Projection = (0, (2, (100, 104)))
_DELETED = 2
_SCHEME = re.compile(r"^(?P<scheme>[a-z][a-z0-9+.-]*):/*", re.IGNORECASE)
_SAME_STORE = {"s3a": "s3", "s3n": "s3"}


def normalised(location: str) -> str:
    """One spelling for paths of the same file: ``s3a`` and ``s3n`` are ``s3``, ``file:/x``, ``file:///x`` and
    ``/x`` are one, slashes in a row are one. Percent signs stay: they are part of the name.
    """
    if _is_plain(location):
        return location
    match = _SCHEME.match(location)
    scheme = match["scheme"].lower() if match else "file"
    rest = location[match.end() :] if match else location
    path = re.sub("/+", "/", rest).strip("/")
    return f"{_SAME_STORE.get(scheme, scheme)}://{'/' if scheme == 'file' else ''}{path}"


def _is_plain(location: str) -> bool:
    """True for what nearly all writers write, where there is nothing to normalise: a million paths are a second."""
    if location.endswith("/"):
        return False
    slashes = location.rfind("//")
    return (slashes == 6 and location.startswith("file:///")) or (slashes == 3 and location.startswith("s3://"))


class References:
    """Reads what snapshots refer to, each file at most once a call. Raises CorruptTableError for what is missing."""

    def __init__(self, files: Files) -> None:
        self._files = files

    def manifests(self, snapshots: Sequence[Snapshot]) -> tuple[dict[bytes, int], dict[str, int]]:
        """Sizes of all manifests of the snapshots, by path as written, and of their manifest lists, by location."""
        found: dict[bytes, int] = {}
        sizes: dict[str, int] = {}
        lists = SuccessiveFiles(_LIST)
        locations = list(dict.fromkeys(snapshot.manifest_list for snapshot in snapshots))
        for location, content in zip(locations, self._contents(locations), strict=True):
            sizes[location] = len(content)
            try:
                found.update(lists.new_records(content))
            except AvroError as error:
                raise CorruptTableError(f"manifest list {location}: {error}") from error
        if None in found:
            raise CorruptTableError("a manifest list names no path for a manifest")
        return found, sizes

    def content_files(self, manifests: Mapping[bytes, int]) -> Iterator[tuple[str, int]]:
        """Data and delete files that the manifests list as live, with their sizes.

        The manifests come with their sizes: what is cut short between two blocks decodes without an error.
        """
        locations = [path.decode() for path in manifests]
        for location, size_told, content in zip(locations, manifests.values(), self._contents(locations), strict=True):
            if len(content) < (size_told or 0):
                raise CorruptTableError(f"manifest {location} is cut short")
            try:
                for status, (path, size) in read_avro(content, _ENTRY).records:
                    if status != _DELETED:
                        yield path.decode(), size or 0
            except (AvroError, AttributeError, TypeError, UnicodeDecodeError) as error:
                raise CorruptTableError(f"manifest {location}: {error}") from error

    def _contents(self, locations: Sequence[str]) -> Iterator[bytes]:
        read: Callable[[str], bytes] = self._files.read
        remote = len(locations) > 1 and not self._files.is_local(locations[0])
        return in_threads(read, locations) if remote else map(read, locations)


def without(candidates: Mapping[str, T], others: Iterable[str]) -> dict[str, T]:
    """The candidates, by path as written, that mean none of the same files as ``others``."""
    left = {normalised(path): path for path in candidates}
    if len(left) < len(candidates):  # spelled in several ways: one of them stands for the file
        candidates = {path: candidates[path] for path in left.values()}
    for other in others:
        left.pop(other, None)
        left.pop(normalised(other), None)
    return {path: candidates[path] for path in left.values()}


def metadata_files(metadata: TableMetadata, metadata_location: str) -> Iterator[str]:
    """Files that the metadata itself names: its own, the logged ones, manifest lists, statistics."""
    yield metadata_location
    for entry in metadata.metadata_log:
        yield entry.metadata_file
    for snapshot in metadata.snapshots:
        yield snapshot.manifest_list
    yield from statistics_files(metadata)


def statistics_files(metadata: TableMetadata, snapshots: Iterable[int] | None = None) -> dict[str, int]:
    """Sizes of the statistics and partition-statistics files, by path; of some snapshots or of all."""
    wanted = None if snapshots is None else frozenset(snapshots)
    return {
        file.statistics_path: file.file_size_in_bytes
        for file in (*metadata.statistics, *metadata.partition_statistics)
        if wanted is None or file.snapshot_id in wanted
    }


LOCATION_PROPERTIES = (
    "write.data.path",
    "write.metadata.path",
    "write.object-storage.path",
    "write.folder-storage.path",
)
"""Table properties that let files be written outside the table's location; the last two are deprecated."""


def table_locations(metadata: TableMetadata) -> list[str]:
    """Where the table's files may lie, normalised: its location and those that its properties name."""
    named = (metadata.properties.get(name) for name in LOCATION_PROPERTIES)
    return list(dict.fromkeys(normalised(location) for location in (metadata.location, *named) if location))


def inside(path: str, folders: Iterable[str]) -> bool:
    """True when a path lies in one of the (normalised) folders."""
    plain = normalised(path)
    return any(plain.startswith(f"{folder}/") for folder in folders)


def refuse_foreign_files(metadata: TableMetadata, operation: str) -> None:
    """Raise UnsupportedError when the table's properties say that its files are not its own to delete."""
    if reason := foreign_files_refusal(metadata.properties):
        raise UnsupportedError(
            reason, operation=operation, hint=f"Remove the property {GC_ENABLED} when the table owns its files."
        )
