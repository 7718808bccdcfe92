"""An order-independent checksum of rows, for every type that Arrow reads from Parquet.

Every value becomes a 64-bit number from its exact bits, so that ``-0.0`` differs from ``0.0``, one NaN
from another, a null from an empty list. A row is the sum of its columns' numbers, each times an odd
constant of the column, passed through a finalizer; a multiset of rows is the sum of its rows. All
arithmetic is modulo 2**64, so the order and the grouping of rows do not matter, and parts can be
checksummed apart and added. It guards against faults, not against an adversary.

Integers and floats of different widths hash alike when equal: a column promoted from int to long keeps
its checksum. The finalizer is that of MurmurHash3 (Austin Appleby, public domain), shortened by a round.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from aurum_orchestration.maintenance.arrow_memory import (
    U64,
    bit_values,
    dtype_of,
    fixed_values,
    is_bytes,
    is_plain,
    offset_values,
    validity,
)

type_ = pa.types

_BLOCK = 32_768
_MIX = np.uint64(0xFF51AFD7ED558CCD)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0xC2B2AE3D27D4EB4F)
_ONE, _EIGHT, _SIXTY_THREE = np.uint64(1), np.uint64(8), np.uint64(63)
_S29, _S32 = np.uint64(29), np.uint64(32)


@dataclass(frozen=True, slots=True)
class RowChecksum:
    """Rows counted and the sum of their hashes."""

    rows: int = 0
    value: int = 0

    def __add__(self, other: RowChecksum) -> RowChecksum:
        return RowChecksum(self.rows + other.rows, (self.value + other.value) & 0xFFFFFFFFFFFFFFFF)


def checksum(table: pa.Table | pa.RecordBatch, schema: pa.Schema | None = None) -> RowChecksum:
    """The checksum of all rows; tables that are to compare must have their columns in the same order.

    With ``schema`` the fields of structs, at any depth, are those of its columns, found by their Parquet
    field ids, nulls where they are missing: what an older file holds compares with its rewrite.
    """
    value = 0
    sums = row_hashes(table, schema)
    for start in range(0, len(sums), _BLOCK):
        value += int(sums[start : start + _BLOCK].sum(dtype=np.uint64))
    return RowChecksum(len(sums), value & 0xFFFFFFFFFFFFFFFF)


def row_hashes(table: pa.Table | pa.RecordBatch, schema: pa.Schema | None = None) -> U64:
    """A 64-bit number per row, equal for equal rows; what :func:`checksum` adds up."""
    rows = table.num_rows
    sums = np.full(rows, _STEP, np.uint64)
    scratch = np.empty(min(_BLOCK, rows), np.uint64)
    with np.errstate(over="ignore", invalid="ignore"):
        for index, column in enumerate(table.columns):
            chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
            _add_column(chunks, schema.field(index).type if schema else None, _constant(index), sums, scratch)
        for start in range(0, rows, _BLOCK):
            block = sums[start : start + _BLOCK]
            _finalize(block, scratch[: len(block)])
    return sums


def value_hashes(chunks: Sequence[pa.Array]) -> Iterator[U64]:
    """A 64-bit number per value of the chunks, which are of one type, in blocks that last until the next one.

    Equal values have equal numbers, dictionary-encoded or not; those of a dictionary are made once.
    """
    if not chunks or not type_.is_dictionary(chunks[0].type):
        yield from (_hash_array(chunk) for chunk in chunks)
        return
    dtype = dtype_of(chunks[0].type.index_type)
    scratch = np.empty(min(_BLOCK, max(map(len, chunks))), np.uint64)
    for chunk, dictionary in zip(chunks, _hash_dictionaries(chunks, _ONE), strict=True):
        codes, valid = fixed_values(chunk, dtype), validity(chunk)
        for start in range(0, len(codes), _BLOCK):
            part = codes[start : start + _BLOCK]
            numbers = dictionary.take(part, out=scratch[: len(part)], mode="clip")
            if valid is not None:
                np.putmask(numbers, ~valid[start : start + len(part)], _NULL)
            yield numbers


def _constant(index: int) -> np.uint64:
    """An odd constant per position, from the splitmix64 sequence."""
    state = (0x9E3779B97F4A7C15 * (index + 1)) & 0xFFFFFFFFFFFFFFFF
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return np.uint64((state ^ (state >> 31)) | 1)


def _finalize(values: U64, scratch: U64) -> None:
    np.right_shift(values, _S32, out=scratch)
    np.bitwise_xor(values, scratch, out=values)
    np.multiply(values, _MIX, out=values)
    np.right_shift(values, _S29, out=scratch)
    np.bitwise_xor(values, scratch, out=values)


def _add_column(chunks: list[pa.Array], like: pa.DataType | None, constant: np.uint64, sums: U64, scratch: U64) -> None:
    """Add each value's number times the column's constant to the sum of its row."""
    if not chunks:
        return
    kind = chunks[0].type
    dictionaries = _hash_dictionaries(chunks, constant) if type_.is_dictionary(kind) else None
    dtype = dtype_of(kind.index_type if dictionaries is not None else kind) if _has_dtype(kind) else None
    position = 0
    for number, chunk in enumerate(chunks):
        valid = validity(chunk)
        values = _hash_array(chunk, like) if dtype is None else fixed_values(chunk, dtype)
        for start in range(0, len(chunk), _BLOCK):
            part = values[start : start + _BLOCK]
            out = scratch[: len(part)]
            if dictionaries is not None:
                dictionaries[number].take(part, out=out, mode="clip")
            elif dtype is None:
                np.multiply(part, constant, out=out)
            else:
                np.multiply(_spread(_widen(part), out), constant, out=out)
            if valid is not None:
                np.putmask(out, ~valid[start : start + len(part)], _NULL * constant)
            target = sums[position : position + len(part)]
            np.add(target, out, out=target)
            position += len(part)


def _has_dtype(kind: pa.DataType) -> bool:
    return bool(type_.is_dictionary(kind)) or is_plain(kind)


def _hash_dictionaries(chunks: Sequence[pa.Array], constant: np.uint64) -> list[U64]:
    """The hashed dictionary of every chunk, made in one go."""
    dictionaries = [chunk.dictionary for chunk in chunks]
    hashed = _hash_array(pa.concat_arrays(dictionaries)) * constant
    ends = np.cumsum([len(dictionary) for dictionary in dictionaries])
    # an all-null chunk may have an empty dictionary, from which nothing can be taken
    return [
        hashed[end - len(dictionary) : end] if len(dictionary) else np.zeros(1, np.uint64)
        for dictionary, end in zip(dictionaries, ends, strict=True)
    ]


def _widen(values: npt.NDArray[Any]) -> U64:
    """64 bits of each value: integers sign-extended, floats as doubles."""
    if values.dtype.itemsize == 8:
        return values.view(np.uint64)
    if values.dtype.kind == "f":
        return values.astype(np.float64).view(np.uint64)
    return values.astype(np.int64).view(np.uint64)


def _spread(bits: U64, out: U64) -> U64:
    """``bits`` with the upper half folded into the lower, into ``out``.

    Doubles often differ in their highest bits only, and products with odd constants pass a change of
    those on to nothing lower: changes of two columns would cancel each other (two flipped signs always).
    """
    np.right_shift(bits, _S32, out=out)
    return np.bitwise_xor(out, bits, out=out)


def _hash_array(array: pa.Array, like: pa.DataType | None = None) -> U64:
    """A 64-bit number per value of any type; nulls get the null number."""
    hashed = _hash_nested(array, like) if type_.is_nested(array.type) else _hash_values(array)
    valid = validity(array)
    return hashed if valid is None else np.where(valid, hashed, _NULL)


def _hash_values(array: pa.Array) -> U64:  # noqa: PLR0911 - one return per kind of type
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _hash_array(array.storage)
    if type_.is_null(kind):
        return np.zeros(len(array), np.uint64)
    if type_.is_boolean(kind):
        return bit_values(array.buffers()[1], array.offset, len(array)).astype(np.uint64)
    if is_plain(kind):
        bits = _widen(fixed_values(array, dtype_of(kind)))
        return _spread(bits, np.empty_like(bits))
    if type_.is_dictionary(kind):
        if len(array.dictionary) == 0:
            return np.zeros(len(array), np.uint64)
        return _hash_array(array.dictionary).take(fixed_values(array, dtype_of(kind.index_type)), mode="clip")
    if type_.is_decimal32(kind) or type_.is_decimal64(kind):
        return _hash_values(array.cast(pa.decimal128(kind.precision, kind.scale)))
    if type_.is_fixed_size_binary(kind) or type_.is_decimal(kind):
        width = kind.bit_width // 8
        starts = (np.arange(len(array) + 1, dtype=np.int64) + array.offset) * width
        return _hash_bytes(array.buffers()[1], starts)
    if is_bytes(kind):
        return _hash_bytes(array.buffers()[2], offset_values(array).astype(np.int64))
    return _hash_values(array.cast(pa.large_binary()))


def _hash_nested(array: pa.Array, like: pa.DataType | None) -> U64:
    kind = array.type
    if type_.is_struct(kind):
        return _hash_struct(_struct_fields(array, like), len(array))
    if type_.is_fixed_size_list(kind):
        offsets = (np.arange(len(array) + 1, dtype=np.int64) + array.offset) * kind.list_size
    elif type_.is_map(kind) or type_.is_list(kind) or type_.is_large_list(kind):
        offsets = offset_values(array).astype(np.int64)
    else:
        raise TypeError(f"no checksum of {kind}")
    first, count = int(offsets[0]), int(offsets[-1] - offsets[0])
    if type_.is_map(kind):
        key, item = (like.key_type, like.item_type) if like is not None else (None, None)
        entries = [(array.keys.slice(first, count), key), (array.items.slice(first, count), item)]
        return _hash_lists(_hash_struct(entries, count), offsets - first)
    inner = like.value_type if like is not None else None
    return _hash_lists(_hash_array(array.values.slice(first, count), inner), offsets - first)


def _struct_fields(array: pa.StructArray, like: pa.DataType | None) -> list[tuple[pa.Array, pa.DataType | None]]:
    """The fields to hash, in the order of ``like``, each with its own type there."""
    if like is None:
        return [(array.field(index), None) for index in range(array.type.num_fields)]
    positions = {_field_id(array.type.field(index)): index for index in range(array.type.num_fields)}
    return [
        (
            array.field(position)
            if (position := positions.get(_field_id(field))) is not None
            else pa.nulls(len(array)),
            field.type,
        )
        for field in like
    ]


def _field_id(field: pa.Field) -> bytes | None:
    return (field.metadata or {}).get(b"PARQUET:field_id")


def _hash_struct(fields: list[tuple[pa.Array, pa.DataType | None]], length: int) -> U64:
    sums = np.full(length, _STEP, np.uint64)
    for index, (field, like) in enumerate(fields):
        sums += _hash_array(field, like) * _constant(index)
    _finalize(sums, np.empty_like(sums))
    return sums


def _hash_lists(elements: U64, offsets: npt.NDArray[np.int64]) -> U64:
    """Elements times a constant of their position, summed per list, with the length mixed in."""
    lengths = np.diff(offsets)
    positions = np.arange(len(elements)) - np.repeat(offsets[:-1], lengths)
    weighted = elements * _powers(int(lengths.max(initial=0)))[positions]
    running = np.concatenate(([np.uint64(0)], np.cumsum(weighted, dtype=np.uint64)))
    sums = running[offsets[1:]] - running[offsets[:-1]]
    sums += lengths.astype(np.uint64) * _STEP
    _finalize(sums, np.empty_like(sums))
    return sums


def _powers(count: int) -> U64:
    """1, c, c**2, ...: different odd factors for the positions in a list."""
    return np.cumprod(np.concatenate(([_ONE], np.full(max(count - 1, 0), _MIX, np.uint64))), dtype=np.uint64)


def _hash_bytes(buffer: pa.Buffer | None, offsets: npt.NDArray[np.int64]) -> U64:
    """Strings of bytes: their length, then eight bytes a step with zeros after the last."""
    sums = np.diff(offsets).astype(np.uint64) * _STEP
    data = np.frombuffer(buffer if buffer is not None else b"", np.uint8)
    for start in range(0, len(sums), _BLOCK):
        stop = min(start + _BLOCK, len(sums))
        _mix_strings(data, offsets[start : stop + 1], sums[start:stop])
    _finalize(sums, np.empty_like(sums))
    return sums


def _mix_strings(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64], sums: U64) -> None:
    """Mix the bytes of each string into its sum."""
    lengths = np.diff(offsets)
    first, last, longest = int(offsets[0]), int(offsets[-1]), int(lengths.max())
    if longest == 0:
        return
    if longest == int(lengths.min()):
        padded = np.zeros((len(sums), -(-longest // 8) * 8), np.uint8)
        padded[:, :longest] = data[first:last].reshape(len(sums), longest)
        for word in padded.view(np.uint64).T:
            _mix_word(sums, word)
        return
    # two words of zeros at the end, so that reading past the last string is harmless
    words = np.zeros((last - first) // 8 + 3, np.uint64)
    words.view(np.uint8)[: last - first] = data[first:last]
    starts, alive = offsets[:-1] - first, np.arange(len(sums))
    for position in range(0, longest, 8):
        alive = alive[lengths[alive] > position]
        at = starts[alive] + position
        index, shift = at >> 3, ((at & 7) << 3).astype(np.uint64)
        word = (words[index] >> shift) | ((words[index + 1] << _ONE) << (_SIXTY_THREE - shift))
        beyond = np.maximum(8 - (lengths[alive] - position), 0).astype(np.uint64) * _EIGHT
        part = sums[alive]
        _mix_word(part, (word << beyond) >> beyond)
        sums[alive] = part


def _mix_word(sums: U64, word: U64) -> None:
    np.bitwise_xor(sums, word, out=sums)
    np.multiply(sums, _MIX, out=sums)
    np.bitwise_xor(sums, sums >> _S32, out=sums)
