"""A digest of rows in the order in which they stand: for comparing rows with a copy that keeps their order.

Stronger than :mod:`aurum_orchestration.maintenance.checksum`, because order counts, and several times cheaper:
what lies in memory is digested as it is (xxHash), in one pass and without a number per value. Two sequences
of rows have the same digest when every value is the same bit by bit; how the rows are cut into tables and
chunks, what stands under nulls, widths that a column was promoted from, and the order and names of the fields
in structs (which are found by their Parquet field ids) do not matter.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from aurum_orchestration.maintenance.arrow_memory import (
    bit_values,
    dtype_of,
    fixed_values,
    is_bytes,
    is_plain,
    offset_values,
    validity,
)
from aurum_orchestration.maintenance.checksum import RowChecksum, value_hashes

type_ = pa.types


def columns_as_bytes(tables: Sequence[pa.Table]) -> frozenset[int]:
    """Positions of the columns of strings that none of the tables has dictionary-encoded.

    Of these :func:`sequence_checksum` digests the bytes; of other strings a number per distinct value. Both
    sides of a comparison must do the same.
    """
    count = tables[0].num_columns if tables else 0
    return frozenset(
        index for index in range(count) if all(_bytes_or_none(table.schema.field(index).type) for table in tables)
    )


def sequence_checksum(
    columns: Iterable[Sequence[pa.ChunkedArray]], schema: pa.Schema, as_bytes: frozenset[int]
) -> RowChecksum:
    """Rows and the digest of their sequence. ``columns`` gives each column of ``schema`` in turn, in parts.

    The digest is no sum of rows: only the numbers of whole sequences may be added up and compared.
    """
    rows, digest = 0, xxhash.xxh3_64()
    for index, (field, parts) in enumerate(zip(schema, columns, strict=True)):
        column = _part(field.type, as_bytes=index in as_bytes)
        for _, alike in itertools.groupby(parts, key=lambda part: part.type):
            column.feed([chunk for part in alike for chunk in part.chunks])
        digest.update(column.digest())
        rows = sum(map(len, parts))
    return RowChecksum(rows, digest.intdigest())


class _Part(Protocol):
    """What is digested of one column, or of one field inside."""

    def feed(self, chunks: Sequence[pa.Array]) -> None:
        """Values that follow those so far, in arrays of one type."""

    def digest(self) -> bytes:
        """The digest of all values."""


def _part(kind: pa.DataType, *, as_bytes: bool = True) -> _Part:
    if isinstance(kind, pa.BaseExtensionType):
        return _part(kind.storage_type, as_bytes=as_bytes)
    if type_.is_struct(kind):
        return _Struct(kind)
    if type_.is_map(kind) or type_.is_list(kind) or type_.is_large_list(kind):
        return _Lists(kind)
    if is_bytes(kind) and as_bytes:
        return _Bytes(kind)
    if type_.is_boolean(kind) or _width(kind) or is_plain(kind):
        return _Fixed(kind)
    return _Numbers(kind)


def _bytes_or_none(kind: pa.DataType) -> bool:
    return is_bytes(kind) or bool(type_.is_null(kind))


def _width(kind: pa.DataType) -> int:
    """Bytes of a value that is neither number nor time but has a fixed width; 0 of others."""
    if type_.is_decimal128(kind) or type_.is_fixed_size_binary(kind):
        return int(kind.bit_width) // 8
    return 0


def _memory(values: npt.NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(values).data


class _Fixed:
    """Numbers, times, booleans, decimals and bytes of a fixed length: as they lie in memory."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._width = _width(kind)
        self._dtype = dtype_of(kind) if is_plain(kind) else np.dtype(np.uint8)
        self._values, self._nulls = xxhash.xxh3_128(), _Nulls()

    def feed(self, chunks: Sequence[pa.Array]) -> None:
        width = self._dtype.itemsize if chunks and chunks[0].type == self._kind and is_plain(self._kind) else 0
        for chunk in chunks:
            if width and not chunk.null_count:
                self._nulls.skip(len(chunk))
                start = chunk.offset * width
                self._values.update(memoryview(chunk.buffers()[1])[start : start + len(chunk) * width])
                continue
            array = _plain(chunk, self._kind)
            valid = self._nulls.feed(array)
            values = self._in_memory(array)
            if valid is not None:
                values = np.where(valid if values.ndim == 1 else valid[:, None], values, values.dtype.type(0))
            self._values.update(_memory(values))

    def _in_memory(self, array: pa.Array) -> npt.NDArray[Any]:
        kind = array.type
        if not len(array):
            return np.zeros(0, np.uint8)
        if type_.is_boolean(self._kind) and type_.is_boolean(kind):
            return bit_values(array.buffers()[1], array.offset, len(array)).view(np.uint8)
        if self._width and type_.is_decimal(kind) and _width(kind) != self._width:
            array = array.cast(self._kind)
            kind = array.type
        if self._width and _width(kind) == self._width:
            raw = np.frombuffer(array.buffers()[1], np.uint8, len(array) * self._width, array.offset * self._width)
            return raw.reshape(len(array), self._width)
        if not self._width and is_plain(kind):
            values = fixed_values(array, dtype_of(kind))
            with np.errstate(invalid="ignore"):
                # widened like a promoted column; a number is never taken for one of another kind
                alike = (values.dtype.kind == "f") == (self._dtype.kind == "f")
                return values.astype(self._dtype, copy=False) if alike else values
        return next(value_hashes([array]))

    def digest(self) -> bytes:
        return bytes(self._values.digest() + self._nulls.digest())


class _Bytes:
    """Strings: their lengths, and their bytes one after the other."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._lengths, self._data, self._nulls = xxhash.xxh3_128(), xxhash.xxh3_128(), _Nulls()

    def feed(self, chunks: Sequence[pa.Array]) -> None:
        for chunk in chunks:
            array = _plain(chunk, self._kind)
            valid = self._nulls.feed(array)
            if not is_bytes(array.type):
                self._data.update(_memory(next(value_hashes([array]))))
                continue
            offsets = offset_values(array)
            lengths = np.diff(offsets)
            if valid is not None and lengths[~valid].any():
                array = pc.fill_null(array, "" if "string" in str(array.type) else b"")
                offsets = offset_values(array)
                lengths = np.diff(offsets)
            self._lengths.update(_memory(lengths.astype(np.int32, copy=False)))
            if offsets[-1] > offsets[0]:
                self._data.update(memoryview(array.buffers()[2])[int(offsets[0]) : int(offsets[-1])])

    def digest(self) -> bytes:
        return bytes(self._lengths.digest() + self._data.digest() + self._nulls.digest())


class _Numbers:
    """Anything else, above all strings that repeat: a number per value, made once per distinct one."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._values = xxhash.xxh3_128()

    def feed(self, chunks: Sequence[pa.Array]) -> None:
        chunks = [pa.nulls(len(chunk), self._kind) if type_.is_null(chunk.type) else chunk for chunk in chunks]
        for numbers in value_hashes(chunks):
            self._values.update(_memory(numbers))

    def digest(self) -> bytes:
        return bytes(self._values.digest())


class _Lists:
    """Lists and maps: their lengths, and what is in them one after the other."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._lengths, self._nulls = xxhash.xxh3_128(), _Nulls()
        inner = [kind.key_type, kind.item_type] if type_.is_map(kind) else [kind.value_type]
        self._inner = [_part(one) for one in inner]

    def feed(self, chunks: Sequence[pa.Array]) -> None:
        for chunk in chunks:
            array = _plain(chunk, self._kind)
            valid = self._nulls.feed(array)
            offsets = offset_values(array)
            lengths = np.diff(offsets)
            children = [array.keys, array.items] if type_.is_map(array.type) else [array.values]
            first, count = int(offsets[0]), int(offsets[-1] - offsets[0])
            children = [child.slice(first, count) for child in children]
            if valid is not None and lengths[~valid].any():
                kept = pa.array(np.repeat(valid, lengths))
                children = [child.filter(kept) for child in children]
                lengths = np.where(valid, lengths, 0)
            self._lengths.update(_memory(lengths.astype(np.int32, copy=False)))
            for part, child in zip(self._inner, children, strict=True):
                part.feed([child])

    def digest(self) -> bytes:
        return bytes(self._lengths.digest() + self._nulls.digest() + b"".join(part.digest() for part in self._inner))


class _Struct:
    """Structs: which are null, and their fields, of which those of a null struct are null."""

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._nulls = _Nulls()
        self._fields = [_part(field.type) for field in kind]

    def feed(self, chunks: Sequence[pa.Array]) -> None:
        for chunk in chunks:
            array = _plain(chunk, self._kind)
            self._nulls.feed(array)
            children = array.flatten()
            for part, field, position in zip(self._fields, self._kind, _positions(array.type, self._kind), strict=True):
                part.feed([pa.nulls(len(array), field.type) if position is None else children[position]])

    def digest(self) -> bytes:
        return bytes(self._nulls.digest() + b"".join(part.digest() for part in self._fields))


def _positions(kind: pa.DataType, target: pa.DataType) -> list[int | None]:
    """For each field of ``target`` its place in ``kind``: by field id, or as they stand where there are none."""
    if kind.equals(target, check_metadata=True) or all(_field_id(field) is None for field in target):
        return list(range(kind.num_fields))
    by_id = {_field_id(kind.field(index)): index for index in range(kind.num_fields)}
    return [by_id.get(_field_id(field)) for field in target]


def _field_id(field: pa.Field) -> bytes | None:
    return (field.metadata or {}).get(b"PARQUET:field_id")


class _Nulls:
    """Where nulls are."""

    def __init__(self) -> None:
        self._row = 0
        self._digest = xxhash.xxh3_128()

    def feed(self, array: pa.Array) -> npt.NDArray[np.bool_] | None:
        """True for each value that is there; None when all are."""
        begin, self._row = self._row, self._row + len(array)
        valid = validity(array)
        if valid is not None:
            self._digest.update(_memory(np.flatnonzero(~valid) + begin))
        return valid

    def skip(self, count: int) -> None:
        """So many values that are there."""
        self._row += count

    def digest(self) -> bytes:
        """The digest of their places and of how many values there were."""
        return bytes(self._digest.digest() + self._row.to_bytes(8, "little"))


def _plain(array: pa.Array, kind: pa.DataType) -> pa.Array:
    """The array without what wraps its values; one without values as nulls of ``kind``."""
    if isinstance(array, pa.ExtensionArray):
        return _plain(array.storage, kind)
    if type_.is_null(array.type):
        return pa.nulls(len(array), kind)
    if type_.is_dictionary(array.type):
        return array.dictionary_decode()
    if type_.is_fixed_size_list(array.type):
        return array.cast(pa.list_(array.type.value_field))
    if _is_view(array.type):
        return array.cast(kind)
    return array


def _is_view(kind: pa.DataType) -> bool:
    return kind in (pa.string_view(), pa.binary_view())
