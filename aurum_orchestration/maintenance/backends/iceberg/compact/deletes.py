"""Row-level deletes: which delete files apply to a data file, and which rows they take out of it.

The rules (https://iceberg.apache.org/spec/#scan-planning): a position delete applies to the data file that it
names when that is not newer than the delete; an equality delete to the data files strictly older than it, of
its own spec and partition, or of the whole table when its spec is unpartitioned.

What could go wrong, and what prevents it:

* a deleted row comes back: positions count from the file's first row on, pieces are cut in file order, and
  a delete file leaves the metadata only when no live data file is left that it may touch;
* a row is deleted that was written after the delete: sequence numbers are compared per data file;
* memory: positions become one bit per row of the group's files, delete files are read in batches.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, DataFileContent, ManifestEntry
from pyiceberg.partitioning import PartitionSpec

from aurum_orchestration.errors import CorruptTableError
from aurum_orchestration.maintenance.backends.iceberg.compact.reader import open_parquet
from aurum_orchestration.maintenance.backends.iceberg.entries import applies_everywhere, partition_key

BATCH_ROWS = 131_072
FILE_PATH, POSITION = "file_path", "pos"
_FILE_PATH_ID = 2147483546
"""Field id of ``file_path`` in position delete files (https://iceberg.apache.org/spec/#reserved-field-ids)."""

Key = tuple[int, str]
Specs = Mapping[int, PartitionSpec]


def sequence_of(item: ManifestEntry) -> int:
    """The data sequence number of an entry; 0 in tables of version 1."""
    return item.sequence_number or 0


def path_bounds(delete: DataFile) -> tuple[str | None, str | None]:
    """Lowest and highest data file that a position delete file names, when it says so."""
    low = (delete.lower_bounds or {}).get(_FILE_PATH_ID)
    high = (delete.upper_bounds or {}).get(_FILE_PATH_ID)
    return (low.decode() if low else None, high.decode() if high else None)


def is_equality(item: ManifestEntry) -> bool:
    """True for an equality delete file, False for a position delete file."""
    return item.data_file.content == DataFileContent.EQUALITY_DELETES


def is_readable(item: ManifestEntry) -> bool:
    """Whether this engine can read a delete file: Parquet, not encrypted."""
    file = item.data_file
    return str(getattr(file.file_format, "value", file.file_format)).upper() == "PARQUET" and file.key_metadata is None


class NamedPaths:
    """How many rows of which data files each position delete file names; read once each and kept."""

    def __init__(self, io: FileIO) -> None:
        self._io = io
        self._known: dict[str, Mapping[str, int]] = {}
        self._lock = threading.Lock()

    def of(self, delete: DataFile) -> Mapping[str, int]:
        """Entries per data file. Raises CorruptTableError or BackendUnavailableError when it cannot be read."""
        low, high = path_bounds(delete)
        if low is not None and low == high:
            return {low: delete.record_count}
        with self._lock:
            known = self._known.get(delete.file_path)
        if known is None:
            counts: Counter[str] = Counter()
            for codes, paths, _ in _batches(self._io, delete.file_path, with_positions=False):
                for code, count in enumerate(np.bincount(codes, minlength=len(paths))):
                    counts[paths[code]] += int(count)
            known = {path: count for path, count in counts.items() if count}
            with self._lock:
                self._known[delete.file_path] = known
        return known


class DeleteIndex:
    """The delete files of a snapshot, found by the data files that they apply to."""

    def __init__(self, deletes: Iterable[ManifestEntry], specs: Specs, names: NamedPaths) -> None:
        self._names = names
        self.any = False
        self._unread: defaultdict[Key, list[ManifestEntry]] = defaultdict(list)
        self._by_path: defaultdict[str, list[tuple[ManifestEntry, int]]] = defaultdict(list)
        self._by_scope: defaultdict[Key, list[ManifestEntry]] = defaultdict(list)
        self._equality: defaultdict[Key | None, list[ManifestEntry]] = defaultdict(list)
        for item in sorted(deletes, key=sequence_of):
            self.any = True
            key = partition_key(item.data_file)
            if is_equality(item):
                self._equality[None if applies_everywhere(specs[key[0]]) else key].append(item)
            elif not is_readable(item):
                self._by_scope[key].append(item)
            elif (bounds := path_bounds(item.data_file))[0] is not None and bounds[0] == bounds[1]:
                self._by_path[str(bounds[0])].append((item, item.data_file.record_count))
            else:
                self._unread[key].append(item)

    def positions_of(self, data: ManifestEntry) -> list[tuple[ManifestEntry, int]]:
        """Position delete files that apply to a data file, each with how many entries it has for it.

        The count is 0 for one that cannot be read and is in its partition.
        """
        key = partition_key(data.data_file) if self._unread or self._by_scope else None
        for item in self._unread.pop(key, ()) if key is not None else ():
            for path, count in self._names.of(item.data_file).items():
                self._by_path[path].append((item, count))
        found = list(self._by_path.get(data.data_file.file_path, ()))
        if key is not None:
            found += [(item, 0) for item in self._by_scope.get(key, ())]
        return [(item, count) for item, count in found if sequence_of(item) >= sequence_of(data)]

    def equality_of(self, data: ManifestEntry) -> list[ManifestEntry]:
        """Equality delete files that apply to a data file."""
        found: list[ManifestEntry] = []
        if not self._equality:
            return found
        for key in (partition_key(data.data_file), None):
            listed = self._equality.get(key, [])
            found += listed[bisect_right(listed, sequence_of(data), key=sequence_of) :]
        return found

    def of(self, data: ManifestEntry) -> list[ManifestEntry]:
        """All delete files that apply to a data file."""
        return [item for item, _ in self.positions_of(data)] + self.equality_of(data)


def droppable(
    deletes: Iterable[ManifestEntry], remaining: Iterable[ManifestEntry], specs: Specs, names: NamedPaths
) -> list[ManifestEntry]:
    """The delete files that touch none of the data files that remain."""
    deletes = list(deletes)
    by_scope = any(is_equality(item) or not is_readable(item) for item in deletes)
    paths: set[str] = set()
    oldest: dict[Key | None, int] = {}
    for item in remaining:
        paths.add(item.data_file.file_path)
        for key in () if not by_scope else (partition_key(item.data_file), None):
            oldest[key] = min(oldest.get(key, sequence_of(item)), sequence_of(item))
    none = np.iinfo(np.int64).max

    def idle(item: ManifestEntry) -> bool:
        key = partition_key(item.data_file)
        if is_equality(item):
            return oldest.get(None if applies_everywhere(specs[key[0]]) else key, none) >= sequence_of(item)
        if is_readable(item):
            return paths.isdisjoint(names.of(item.data_file))
        return oldest.get(key, none) > sequence_of(item)

    return [item for item in deletes if idle(item)]


class DeletedRows:
    """Which rows of some data files are deleted, a bit per row."""

    def __init__(self, rows: Mapping[str, int]) -> None:
        self._rows = dict(rows)
        self._bits: dict[str, npt.NDArray[np.uint8]] = {}

    def add(self, path: str, positions: npt.NDArray[np.int64]) -> None:
        """Mark rows by position; positions beyond the file's rows mean nothing."""
        rows = self._rows[path]
        inside = positions[(positions >= 0) & (positions < rows)]
        bits = self._bits.get(path)
        if bits is None:
            bits = self._bits[path] = np.zeros((rows + 7) // 8, np.uint8)
        np.bitwise_or.at(bits, inside >> 3, np.left_shift(1, inside & 7).astype(np.uint8))

    def slice(self, path: str, start: int, length: int) -> npt.NDArray[np.bool_] | None:
        """True for each deleted row of a slice of a file; None when no row of it is."""
        bits = self._bits.get(path)
        if bits is None:
            return None
        part = bits[start // 8 : (start + length + 7) // 8]
        mask = np.unpackbits(part, bitorder="little")[start % 8 : start % 8 + length].view(np.bool_)
        return mask if mask.any() else None

    def living(self, path: str, start: int, length: int) -> pa.BooleanArray | None:
        """The rows of a slice of a file that are not deleted, as a filter; None when all are there."""
        bits = self._bits.get(path)
        if bits is None or not length:
            return None
        part = bits[start // 8 : (start + length + 7) // 8]
        if not part.any():
            return None
        mask = pa.Array.from_buffers(pa.bool_(), length, [None, pa.py_buffer(~part)], offset=start % 8)
        return mask if mask.false_count else None

    def count(self, path: str) -> int:
        """Rows of a file that are deleted."""
        bits = self._bits.get(path)
        return 0 if bits is None else int(np.bitwise_count(bits).sum())


def load_positions(
    io: FileIO, deletes: Iterable[ManifestEntry], data: Mapping[str, ManifestEntry], into: DeletedRows
) -> None:
    """Mark the rows of ``data`` (by location) that position delete files delete."""
    for item in deletes:
        number = sequence_of(item)
        for codes, paths, positions in _batches(io, item.data_file.file_path):
            order = np.argsort(codes, kind="stable")
            ends = np.cumsum(np.bincount(codes, minlength=len(paths)))
            for code, path in enumerate(paths):
                wanted = data.get(path)
                if wanted is not None and sequence_of(wanted) <= number:
                    into.add(path, positions[order[ends[code - 1] if code else 0 : ends[code]]])


def _batches(
    io: FileIO, location: str, *, with_positions: bool = True
) -> Iterator[tuple[npt.NDArray[np.int64], Sequence[str], npt.NDArray[np.int64]]]:
    """A position delete file in batches: per entry the number of its path, the paths, per entry the position."""
    columns = [FILE_PATH, POSITION] if with_positions else [FILE_PATH]
    try:
        with open_parquet(io, location, [FILE_PATH]) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns, use_threads=False):
                path: Any = batch.column(FILE_PATH)
                if not pa.types.is_dictionary(path.type):
                    path = path.dictionary_encode()
                if path.null_count:
                    raise CorruptTableError(f"delete file {location} has entries without a file path")
                positions = (
                    batch.column(POSITION).cast(pa.int64()).to_numpy(zero_copy_only=False)
                    if with_positions
                    else np.zeros(0, np.int64)
                )
                codes = path.indices.cast(pa.int64()).to_numpy(zero_copy_only=False)
                yield codes, pc.cast(path.dictionary, pa.string()).to_pylist(), positions
    except (KeyError, pa.ArrowInvalid, OSError) as error:
        raise CorruptTableError(f"delete file {location} cannot be read: {error}") from error
