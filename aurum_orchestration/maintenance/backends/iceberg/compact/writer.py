"""Writing the replacement files: bounded row groups, the table's own Parquet properties, rolling at the target."""

from __future__ import annotations

import contextlib
import math
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import parquet_path_to_id_mapping
from pyiceberg.schema import Schema
from pyiceberg.table import TableProperties
from pyiceberg.types import BooleanType

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.planner.binpack import SMALL_SHARE, files_out

ROW_GROUP_ROWS = 500_000
ROW_GROUP_BYTES = 64 * 1024 * 1024
"""A row group holds at most this much, decoded: what bounds the memory of a rewrite."""

_CODECS = {"none", "snappy", "gzip", "brotli", "lz4", "zstd"}
_BLOOM_RATE = "write.parquet.bloom-filter-fpp.column."
_SAMPLE = 8_192
_DISTINCT_SHARE = 0.9
_LEAST_SHARE = SMALL_SHARE + 1 / 16
_DICTIONARY_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """How the table wants its Parquet files written, from its properties."""

    target_bytes: int
    row_group_rows: int
    row_group_bytes: int
    codec: str
    level: int | None
    page_bytes: int
    page_rows: int
    dictionary_bytes: int
    bloom_bytes: int
    bloom: Mapping[str, float]
    """Parquet paths of the columns that get a bloom filter, with its rate of false positives."""

    @classmethod
    def of(cls, properties: Mapping[str, str], target_bytes: int, schema: Schema) -> WriteOptions:
        """Options from table properties; names and defaults as in Apache Iceberg's documentation.

        Raises UnsupportedError for a value that is none or a codec that is not there.
        """

        def number(name: str, default: int) -> int:
            value = properties.get(name) or default
            try:
                return int(value)
            except ValueError as error:
                raise UnsupportedError(f"the table's property {name} is {value!r}, not a number") from error

        codec = properties.get(TableProperties.PARQUET_COMPRESSION, TableProperties.PARQUET_COMPRESSION_DEFAULT).lower()
        codec = "none" if codec == "uncompressed" else codec
        if codec not in _CODECS or not (codec == "none" or pa.Codec.is_available(codec)):
            raise UnsupportedError(f"the table's Parquet files are compressed by {codec!r}, which cannot be written")
        leveled = codec != "none" and pa.Codec.supports_compression_level(codec)
        level = number(TableProperties.PARQUET_COMPRESSION_LEVEL, 3 if codec == "zstd" else 0) if leveled else 0
        return cls(
            target_bytes=target_bytes,
            row_group_rows=min(
                ROW_GROUP_ROWS,
                number(TableProperties.PARQUET_ROW_GROUP_LIMIT, TableProperties.PARQUET_ROW_GROUP_LIMIT_DEFAULT),
            ),
            row_group_bytes=min(
                ROW_GROUP_BYTES,
                number(
                    TableProperties.PARQUET_ROW_GROUP_SIZE_BYTES, TableProperties.PARQUET_ROW_GROUP_SIZE_BYTES_DEFAULT
                ),
            ),
            codec=codec,
            level=level or None,
            page_bytes=number(TableProperties.PARQUET_PAGE_SIZE_BYTES, TableProperties.PARQUET_PAGE_SIZE_BYTES_DEFAULT),
            page_rows=number(TableProperties.PARQUET_PAGE_ROW_LIMIT, TableProperties.PARQUET_PAGE_ROW_LIMIT_DEFAULT),
            dictionary_bytes=number(
                TableProperties.PARQUET_DICT_SIZE_BYTES, TableProperties.PARQUET_DICT_SIZE_BYTES_DEFAULT
            ),
            bloom_bytes=number(
                TableProperties.PARQUET_BLOOM_FILTER_MAX_BYTES, TableProperties.PARQUET_BLOOM_FILTER_MAX_BYTES_DEFAULT
            ),
            bloom=_bloom_columns(properties, schema),
        )

    def bloom_filters(self, rows: int) -> dict[str, dict[str, float]]:
        """Bloom filters for row groups of so many rows, as distinct values as fit into the bytes allowed."""
        return {
            path: {"ndv": max(1, min(rows, int(-self.bloom_bytes * math.log(1 - rate**0.125)))), "fpp": rate}
            for path, rate in self.bloom.items()
        }


def _bloom_columns(properties: Mapping[str, str], schema: Schema) -> dict[str, float]:
    prefix = f"{TableProperties.PARQUET_BLOOM_FILTER_COLUMN_ENABLED_PREFIX}."
    wanted = [
        key.removeprefix(prefix) for key, value in properties.items() if key.startswith(prefix) and value == "true"
    ]
    paths = {identity: path for path, identity in parquet_path_to_id_mapping(schema).items()} if wanted else {}
    rates: dict[str, float] = {}
    for name in wanted:
        with contextlib.suppress(ValueError):  # a column that was dropped
            column = schema.find_field(name)
            if column.field_id in paths and not isinstance(column.field_type, BooleanType):
                rates[paths[column.field_id]] = float(properties.get(_BLOOM_RATE + name) or 0.01)
    return rates


@dataclass
class WrittenFile:
    """A replacement file on storage, not yet part of the table."""

    location: str
    bytes: int
    metadata: pq.FileMetaData
    dictionaries: list[str] = field(default_factory=list)


class RollingWriter:
    """Writes row groups into files near the target size, as many as the planner counts on."""

    def __init__(self, io: FileIO, schema: pa.Schema, options: WriteOptions, location: Callable[[str], str]) -> None:
        self._io, self._schema, self._options, self._location = io, schema, options, location
        self._prefix = uuid.uuid4()
        self._current: OpenFile | None = None
        self.files: list[WrittenFile] = []
        self.locations: list[str] = []

    def write(self, table: pa.Table, remaining_share: float) -> None:
        """Write one row group. ``remaining_share`` is the input still to come over the input so far."""
        table = table.unify_dictionaries()
        if self._current is None:
            name = f"{len(self.locations):05d}-0-{self._prefix}.parquet"
            where = self._location(name)
            self.locations.append(where)
            sink = self._io.new_output(where).create(overwrite=False)
            self._current = OpenFile(sink, where, table, self._schema, self._options)
        before = self._current.sink.tell()
        self._current.write(table)
        so_far = self._current.sink.tell()
        written = so_far + sum(file.bytes for file in self.files)
        # share what is left evenly and end nearest to the share, unless a small file might be left
        after = written * remaining_share
        share = (so_far + after) / files_out(int(so_far + after), self._options.target_bytes)
        if so_far + (so_far - before) / 2 >= share and after >= self._options.target_bytes * _LEAST_SHARE:
            self._roll()

    def close(self) -> None:
        """Finish the last file."""
        if self._current is not None:
            self._roll()

    def abandon(self) -> None:
        """Close what is open without finishing it; the caller deletes ``locations``."""
        current, self._current = self._current, None
        if current is not None:
            current.abandon()

    def _roll(self) -> None:
        if self._current is not None:
            self.files.append(self._current.finish())  # where this fails, the file is still to be abandoned
        self._current = None


class OpenFile:
    """One Parquet file being written; its encodings are chosen by the rows that come ``first``."""

    def __init__(self, sink: Any, location: str, first: pa.Table, schema: pa.Schema, options: WriteOptions) -> None:
        self.sink, self.location = sink, location
        encoded = [name for name in first.column_names if _worth_a_dictionary(first.column(name), options)]
        self.strings = [name for name in encoded if pa.types.is_dictionary(first.schema.field(name).type)]
        self._schema = pa.schema(
            [
                field.with_type(first.schema.field(field.name).type) if field.name in self.strings else field
                for field in schema
            ]
        )
        self._writer = pq.ParquetWriter(
            self.sink,
            self._schema,
            compression=options.codec,
            compression_level=options.level,
            use_dictionary=encoded + _nested_leaves(schema) or False,
            data_page_size=options.page_bytes,
            dictionary_pagesize_limit=options.dictionary_bytes,
            write_batch_size=options.page_rows,
            max_rows_per_page=options.page_rows,
            store_decimal_as_integer=True,
            bloom_filter_options=options.bloom_filters(first.num_rows) or None,
            store_schema=False,
        )

    def write(self, table: pa.Table) -> None:
        """Append the rows as one row group."""
        columns = [_as_type(table.column(index), field.type) for index, field in enumerate(self._schema)]
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=max(1, table.num_rows))

    def finish(self) -> WrittenFile:
        """Write the footer and close the sink."""
        self._writer.close()
        size = self.sink.tell()
        self.sink.close()
        return WrittenFile(self.location, size, self._writer.writer.metadata, self.strings)

    def abandon(self) -> None:
        """Close the sink without a footer. A full disk refuses that, too, which hides no error of the write."""
        self._writer.is_open = False  # else PyArrow finishes the file once it is collected
        with contextlib.suppress(OSError):
            self.sink.close()


def _as_type(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column if column.type == kind else column.cast(kind)


def _nested_leaves(schema: pa.Schema) -> list[str]:
    """Parquet paths of leaves inside nested columns, which keep the dictionary the writer tries by itself."""
    nested = [index for index, field in enumerate(schema) if pa.types.is_nested(field.type)]
    if not nested:
        return []
    names = {schema.field(index).name for index in nested}
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, store_schema=False) as writer:
        pass
    leaves = writer.writer.metadata.schema
    return [
        leaves.column(index).path for index in range(len(leaves)) if leaves.column(index).path.split(".", 1)[0] in names
    ]


def _worth_a_dictionary(column: pa.ChunkedArray, options: WriteOptions) -> bool:
    """True when a dictionary page is likely to pay: few distinct values for the rows there are."""
    kind = column.type
    if pa.types.is_nested(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return False
    if pa.types.is_dictionary(kind):
        dictionary = column.chunk(0).dictionary if column.num_chunks else None
        return dictionary is None or (
            len(dictionary) <= column.length() * _DICTIONARY_SHARE and dictionary.nbytes <= options.dictionary_bytes
        )
    rows = column.length()
    if rows <= _SAMPLE:
        return True
    sample = column.take(pa.array(np.linspace(0, rows - 1, _SAMPLE).astype(np.int64)))
    return bool(pc.count_distinct(sample).as_py() < _SAMPLE * _DISTINCT_SHARE)
