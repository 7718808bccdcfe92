"""Equality deletes (what Flink writes): an anti-join that becomes deleted positions.

Only the key columns of the data files are read here. A row's key is hashed, looked up among the sorted hashes
of the deleted keys, and then compared value by value, null with null: a hash alone deletes nothing. A key counts
for a data file when a delete newer than the file has it. Memory is bounded: deleted keys come in chunks, each
of which passes over the key columns, and what it finds is a bit per row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io import FileIO
from pyiceberg.manifest import ManifestEntry
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.name_mapping import NameMapping
from pyiceberg.types import DoubleType, FloatType, NestedField, StructType

from aurum_orchestration.errors import CorruptTableError, UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.arrow_types import arrow_schema, conform, field_id
from aurum_orchestration.maintenance.backends.iceberg.compact.constants import (
    NO_CONSTANTS,
    Constants,
    constants_of,
    repeated,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.deletes import BATCH_ROWS, DeletedRows, sequence_of
from aurum_orchestration.maintenance.backends.iceberg.compact.name_mapping import identified, mapping_of
from aurum_orchestration.maintenance.backends.iceberg.compact.reader import open_parquet
from aurum_orchestration.maintenance.checksum import row_hashes

KEYS_AT_ONCE = 1_000_000
KEY_BYTES_AT_ONCE = 64 * 1024 * 1024
"""Deleted keys held at a time."""

_SPARE_BITS, _MOST_BITS = 4, 24


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """A column of a key: the field ids that lead to it from the top level, and its type."""

    path: tuple[int, ...]
    field: pa.Field


def key_columns(metadata: TableMetadata, ids: Sequence[int]) -> list[KeyColumn]:
    """The columns of an equality delete, in order of their ids. A dropped column still counts, as it last was.

    Raises UnsupportedError for an id that no schema of the table has, or whose type cannot be a key.
    """
    schemas = [metadata.schema(), *sorted(metadata.schemas, key=lambda schema: -schema.schema_id)]
    found = []
    for identity in sorted(ids):
        fields = next((path for schema in schemas if (path := path_to(schema.as_struct(), identity))), None)
        if fields is None or not fields[-1].field_type.is_primitive:
            raise UnsupportedError(
                f"an equality delete file compares field {identity}, which is no plain column",
                hint="Such a table needs a rewrite by Spark.",
            )
        if isinstance(fields[-1].field_type, FloatType | DoubleType):
            raise UnsupportedError(
                f"an equality delete file compares {fields[-1].name!r}, a {fields[-1].field_type}, "
                "which the format forbids",
                hint="Such a table needs a rewrite by Spark.",
            )
        found.append(KeyColumn(tuple(field.field_id for field in fields), arrow_schema(Schema(fields[-1])).field(0)))
    return found


def path_to(struct: StructType, identity: int) -> tuple[NestedField, ...]:
    """The fields from the top of a struct to one inside it; none when it has no such field outside lists and maps."""
    for field in struct.fields:
        if field.field_id == identity:
            return (field,)
        if isinstance(field.field_type, StructType) and (rest := path_to(field.field_type, identity)):
            return (field, *rest)
    return ()


def fold_equality(
    io: FileIO,
    metadata: TableMetadata,
    deletes: Iterable[ManifestEntry],
    data: Mapping[str, Sequence[ManifestEntry]],
    into: DeletedRows,
) -> None:
    """Mark the rows that equality delete files delete.

    ``data`` has for each delete file, by location, the data files that it applies to, as their sequence numbers
    tell; they are compared again key by key, since keys of several delete files are looked up together.
    """
    mapping = mapping_of(metadata.properties)
    by_ids: defaultdict[tuple[int, ...], list[ManifestEntry]] = defaultdict(list)
    for item in deletes:
        ids = item.data_file.equality_ids
        if not ids:
            raise CorruptTableError(f"equality delete file {item.data_file.file_path} names no columns")
        by_ids[tuple(sorted(ids))].append(item)
    for key, items in by_ids.items():
        columns = key_columns(metadata, key)
        touched = {file.data_file.file_path: file for item in items for file in data[item.data_file.file_path]}
        for chunk in _chunks(io, items, columns):
            for path, file in touched.items():
                if sequence_of(file) < chunk.newest:
                    start = 0
                    constants = constants_of(metadata, file.data_file)
                    for keys in _read_keys(io, path, columns, mapping, constants):
                        into.add(path, start + np.flatnonzero(chunk.match(keys, sequence_of(file))))
                        start += keys.num_rows


class DeletedKeys:
    """Some deleted keys with the sequence numbers of their deletes, ready to look up."""

    def __init__(self, keys: pa.Table, numbers: npt.NDArray[np.int64]) -> None:
        hashes = row_hashes(keys)
        order = np.lexsort((-numbers, hashes))
        hashes, numbers, keys = hashes[order], numbers[order], keys.take(pa.array(order))
        # of the same key's deletes the newest is enough
        same = np.flatnonzero(hashes[1:] == hashes[:-1]) + 1
        repeated = same[_equal(keys, same, keys, same - 1)]
        kept = np.setdiff1d(np.arange(len(hashes)), repeated, assume_unique=True)
        self._hashes, self._numbers, self._keys = hashes[kept], numbers[kept], keys.take(pa.array(kept))
        runs = np.diff(np.flatnonzero(np.concatenate(([True], self._hashes[1:] != self._hashes[:-1], [True]))))
        self._longest = int(runs.max(initial=1))
        self.newest = int(self._numbers.max(initial=0))
        # most rows have no deleted key: the leading bits of their hashes tell, without a search
        self._shift = np.uint64(64 - min(max(len(kept).bit_length() + _SPARE_BITS, 1), _MOST_BITS))
        self._leading = np.zeros(1 << (64 - int(self._shift)), np.bool_)
        self._leading[self._hashes >> self._shift] = True

    def match(self, rows: pa.Table, number: int) -> npt.NDArray[np.bool_]:
        """True for each row whose key was deleted after the sequence number ``number``."""
        matched = np.zeros(rows.num_rows, np.bool_)
        if not len(self._hashes):
            return matched
        hashes = row_hashes(rows)
        likely = np.flatnonzero(self._leading[hashes >> self._shift])
        hashes = hashes[likely]
        first = np.searchsorted(self._hashes, hashes)
        for step in range(self._longest):  # more than one only where different keys have the same hash
            at = np.minimum(first + step, len(self._hashes) - 1)
            found = np.flatnonzero((self._hashes[at] == hashes) & (self._numbers[at] > number))
            candidates = likely[found]
            matched[candidates[_equal(rows, candidates, self._keys, at[found])]] = True
        return matched


def _equal(
    left: pa.Table, at_left: npt.NDArray[np.int64], right: pa.Table, at_right: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Whether rows of two tables are equal, pair by pair; null equals null."""
    equal = np.ones(len(at_left), np.bool_)
    if not len(at_left):
        return equal
    for one, other in zip(left.columns, right.columns, strict=True):
        a, b = one.take(pa.array(at_left)), other.take(pa.array(at_right))
        both_null = pc.and_(a.is_null(), b.is_null())
        equal &= pc.or_(pc.fill_null(pc.equal(a, b), False), both_null).to_numpy()
    return equal


def _chunks(io: FileIO, items: Sequence[ManifestEntry], columns: Sequence[KeyColumn]) -> Iterator[DeletedKeys]:
    parts: list[pa.Table] = []
    numbers: list[npt.NDArray[np.int64]] = []
    rows = size = 0
    for item in items:
        for keys in _read_keys(io, item.data_file.file_path, columns):
            parts.append(keys)
            numbers.append(np.full(keys.num_rows, sequence_of(item), np.int64))
            rows, size = rows + keys.num_rows, size + keys.nbytes
            if rows >= KEYS_AT_ONCE or size >= KEY_BYTES_AT_ONCE:
                yield DeletedKeys(pa.concat_tables(parts), np.concatenate(numbers))
                parts, numbers, rows, size = [], [], 0, 0
    if parts:
        yield DeletedKeys(pa.concat_tables(parts), np.concatenate(numbers))


def _read_keys(
    io: FileIO,
    location: str,
    columns: Sequence[KeyColumn],
    mapping: NameMapping | None = None,
    constants: Constants = NO_CONSTANTS,
) -> Iterator[pa.Table]:
    """The key columns of a data or delete file, in batches, in the types of the keys.

    One that the file lacks is null, or the value that ``constants`` has for its id.
    """
    with open_parquet(io, location, ()) as file:
        schema = identified(file.schema_arrow.empty_table(), mapping).schema
        top = {identity: field.name for field in schema if (identity := field_id(field)) is not None}
        if len(top) < len(schema):
            raise UnsupportedError(
                f"{location} has columns without field ids",
                hint="Such files need the table property schema.name-mapping.default, or a rewrite by Spark.",
            )
        names = list(dict.fromkeys(top[column.path[0]] for column in columns if column.path[0] in top))
        if not names:
            for start in range(0, file.metadata.num_rows, BATCH_ROWS):
                count = min(BATCH_ROWS, file.metadata.num_rows - start)
                yield pa.table([_absent(column, count, constants) for column in columns], _names(columns))
            return
        try:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=names, use_threads=False):
                part = _identified(batch, mapping)
                yield pa.table([_key(part, column, constants) for column in columns], _names(columns))
        except (pa.ArrowInvalid, OSError) as error:
            raise CorruptTableError(f"{location} cannot be read: {error}") from error


def _identified(batch: pa.RecordBatch, mapping: NameMapping | None) -> pa.RecordBatch:
    if mapping is None:
        return batch
    return identified(pa.Table.from_batches([batch]), mapping).combine_chunks().to_batches()[0]


def _names(columns: Sequence[KeyColumn]) -> list[str]:
    return [str(number) for number in range(len(columns))]


def _absent(column: KeyColumn, rows: int, constants: Constants) -> pa.ChunkedArray:
    kind = _comparable(column.field.type)
    value = constants.get(column.path[-1])
    missing = pa.nulls(rows, kind) if value is None else repeated(value, column.field, rows).cast(kind)
    return pa.chunked_array([missing])


def _key(batch: pa.RecordBatch, column: KeyColumn, constants: Constants) -> pa.ChunkedArray:
    values: pa.Array | None = None
    fields: Iterable[pa.Field] = batch.schema
    for depth, identity in enumerate(column.path):
        position = next((index for index, field in enumerate(fields) if field_id(field) == identity), None)
        if position is None:
            return _absent(column, batch.num_rows, constants)
        # a field of a null struct is null
        values = pc.struct_field(values, position) if depth else batch.column(position)
        fields = values.type if pa.types.is_struct(values.type) else ()
    found = conform(pa.chunked_array([values]), column.field)
    if pa.types.is_dictionary(found.type):
        found = found.cast(found.type.value_type)
    if isinstance(found.type, pa.BaseExtensionType):
        found = pa.chunked_array([chunk.storage for chunk in found.chunks], found.type.storage_type)
    return found


def _comparable(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
