"""Reading the files of a group in bounded pieces."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.table.name_mapping import NameMapping

from aurum_orchestration.errors import BackendUnavailableError, CorruptTableError
from aurum_orchestration.maintenance.backends.iceberg.arrow_types import field_id, select_columns
from aurum_orchestration.maintenance.backends.iceberg.compact.constants import (
    NO_CONSTANTS,
    Constants,
    inner_ids,
    refuse_missing,
    repeated,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.name_mapping import has_ids, identified

_BATCH_ROWS = 131_072
_DICTIONARY_SHARE = 0.8
_FEW_VALUES = 1_000
_PLAIN_ONLY = frozenset({"DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"})
"""Encodings that PyArrow does not decode into a dictionary (not yet implemented)."""


class GroupReader:
    """Reads the files of one group, whose schemas mostly agree. Not safe to share between threads.

    Which string columns stay dictionary-encoded is decided by the footer of the first file and used for
    the next ones, while they have these columns: what a later footer says differently costs speed, not
    correctness. With ``prune`` only wanted columns are read, for a target that has not all of the table's.
    """

    def __init__(
        self, io: FileIO, target: pa.Schema, mapping: NameMapping | None = None, *, prune: bool = False
    ) -> None:
        self._io, self._mapping, self._target, self._prune = io, mapping, target, prune
        self._wanted = [field_id(field) for field in target]
        self._inner = inner_ids(target)
        self._names = target.names
        self._encoded: list[str] | None = None
        self._seen: pa.Schema | None = None
        self._by_name = False
        self._positions: list[int | None] = []

    def pieces(
        self, location: str, piece_bytes: int, groups: Sequence[int] | None = None, constants: Constants = NO_CONSTANTS
    ) -> Iterator[pa.Table]:
        """The file's rows in tables whose columns stand as in the target schema (by field id), types as read.

        Only those of the row groups at the positions ``groups``, if given. A column that the file lacks is
        null, or the value that ``constants`` has for its id. What takes at most about
        ``piece_bytes`` in memory comes in one piece, more in batches of less.
        Raises CorruptTableError, BackendUnavailableError, or UnsupportedError for a file without field
        ids whose columns no mapping names.
        """
        with self._open(location) as file:
            if inside := constants.keys() & self._inner:
                refuse_missing(inside, identified(file.schema_arrow.empty_table(), self._mapping).schema, location)
            chosen = list(range(file.metadata.num_row_groups)) if groups is None else list(groups)
            size, count = _decoded_bytes(file.metadata, chosen)
            columns = self._columns(file)
            with reading(location):
                if size <= piece_bytes:
                    yield self._select(file.read_row_groups(chosen, columns=columns, use_threads=False), constants)
                else:
                    rows = min(_BATCH_ROWS, max(1, count * piece_bytes // (4 * size)))
                    given = {"batch_size": rows, "row_groups": chosen, "columns": columns, "use_threads": False}
                    for batch in file.iter_batches(**given):
                        yield self._select(pa.Table.from_batches([batch]), constants)

    def _columns(self, file: pq.ParquetFile) -> list[str] | None:
        """Names of the columns to read; None for all, also where a dot in a name could mean a field inside a column."""
        names = file.schema_arrow.names
        if not self._prune or any("." in name for name in names):
            return None
        known = identified(file.schema_arrow.empty_table(), self._mapping).schema
        return [known.field(at).name for at in select_columns(known, self._wanted) if at is not None]

    def _open(self, location: str) -> pq.ParquetFile:
        if self._encoded is not None:
            # a file from before a column was added or renamed does not have it
            with contextlib.suppress(KeyError):
                return open_parquet(self._io, location, self._encoded)
        with open_parquet(self._io, location, ()) as file:
            self._encoded = _encoded_strings(file.metadata)
        return open_parquet(self._io, location, self._encoded)

    def _select(self, table: pa.Table, constants: Constants) -> pa.Table:
        # the field ids are in the metadata
        if self._seen is None or not table.schema.equals(self._seen, check_metadata=True):
            self._seen, self._by_name = table.schema, not has_ids(table.schema)
            self._positions = select_columns(identified(table.slice(0, 0), self._mapping).schema, self._wanted)
        if self._by_name:
            table = identified(table, self._mapping)
        columns = [
            self._missing(number, table.num_rows, constants) if position is None else table.column(position)
            for number, position in enumerate(self._positions)
        ]
        return pa.table(columns, names=self._names)

    def _missing(self, number: int, rows: int, constants: Constants) -> pa.Array:
        value = constants.get(self._wanted[number] or 0)
        return pa.nulls(rows) if value is None else repeated(value, self._target.field(number), rows)


def _decoded_bytes(metadata: pq.FileMetaData, groups: Sequence[int]) -> tuple[int, int]:
    """About what row groups take in memory: their pages, but no less than a word a value, null or not; their rows."""
    chosen = [metadata.row_group(index) for index in groups]
    rows = sum(group.num_rows for group in chosen)
    return max(sum(group.total_byte_size for group in chosen), rows * metadata.num_columns * 8), rows


def open_parquet(io: FileIO, location: str, dictionaries: Sequence[str]) -> pq.ParquetFile:
    """The file, opened; the columns in ``dictionaries`` are read dictionary-encoded, where PyArrow can do so.

    Raises CorruptTableError when it is missing or no Parquet file, BackendUnavailableError when the
    storage does not answer.
    """
    with reading(location):
        file = _opened(io, location, dictionaries)
        if dictionaries and (plain := _never_encoded(file.metadata, dictionaries)):
            metadata = file.metadata
            file.close(force=True)
            file = _opened(io, location, [name for name in dictionaries if name not in plain], metadata)
        return file


def _opened(
    io: FileIO, location: str, dictionaries: Sequence[str], metadata: pq.FileMetaData | None = None
) -> pq.ParquetFile:
    return pq.ParquetFile(
        io.new_input(location).open(),
        metadata=metadata,
        read_dictionary=list(dictionaries),
        pre_buffer=False,
        coerce_int96_timestamp_unit="us",
    )


def _never_encoded(metadata: pq.FileMetaData, names: Sequence[str]) -> set[str]:
    """Those of the columns with pages that PyArrow decodes to plain values only, as Trino 483 writes them."""
    at = [index for index in range(metadata.num_columns) if metadata.schema.column(index).path in names]
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return {
        column.path_in_schema
        for group in groups
        for column in map(group.column, at)
        if not _PLAIN_ONLY.isdisjoint(column.encodings)
    }


_OF_A_STORE = re.compile(r"AWS Error|google::cloud|Azure|curlCode")
"""How PyArrow's clients of object stores begin what they say."""


@contextlib.contextmanager
def reading(location: str) -> Iterator[None]:
    """Turns what reading a data file raises into CorruptTableError or BackendUnavailableError.

    PyArrow raises OSError for broken pages too: the storage failed where there is an error number, or a store's name.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise CorruptTableError(f"data file {location} is missing") from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        if getattr(error, "errno", None) is not None or _OF_A_STORE.search(str(error)):
            raise BackendUnavailableError(f"data file {location}: {error}") from error
        raise CorruptTableError(f"data file {location} cannot be read: {error}") from error


def _encoded_strings(metadata: pq.FileMetaData) -> list[str]:
    """Top-level string columns whose values repeat: their dictionary page is a small part of the chunk."""
    if metadata.num_row_groups == 0:
        return []
    group = metadata.row_group(0)
    names = []
    for index in range(group.num_columns):
        column = group.column(index)
        if column.physical_type != "BYTE_ARRAY" or not column.has_dictionary_page or "." in column.path_in_schema:
            continue
        if metadata.schema.column(index).logical_type.type not in {"STRING", "NONE"}:
            continue
        dictionary = column.data_page_offset - (column.dictionary_page_offset or column.data_page_offset)
        if dictionary <= column.total_compressed_size * _DICTIONARY_SHARE or column.num_values < _FEW_VALUES:
            names.append(column.path_in_schema)
    return names
