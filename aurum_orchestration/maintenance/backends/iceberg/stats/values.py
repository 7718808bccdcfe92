"""The bytes of single values as Iceberg has them (Appendix D of its specification), many at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

Words = npt.NDArray[np.uint64]

_WORDS = (IntegerType, DateType, FloatType), (LongType, DoubleType, TimeType, TimestampType, TimestamptzType)
_TEXT = (StringType, BinaryType)


def has_bytes(kind: IcebergType) -> bool:
    """Whether values of a type can be told as bytes here."""
    return isinstance(kind, (BooleanType, DecimalType, FixedType, UUIDType, *_WORDS[0], *_WORDS[1], *_TEXT))


@dataclass(frozen=True, slots=True)
class Packed:
    """Values as bytes, eight to a word, the first one lowest; as many words each. What lies beyond a value is zero.

    ``words`` are arrays of a word per value, ``lengths`` the bytes of each, of which all have ``blocks`` times 16.
    """

    words: Sequence[Words]
    lengths: Words
    blocks: int

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, part: slice) -> Packed:
        return Packed([word[part] for word in self.words], self.lengths[part], self.blocks)


def packed(column: pa.ChunkedArray, kind: IcebergType) -> Iterator[Packed]:
    """The values that are not null; text only once each. Empty ones are left out: DataSketches does not count them."""
    if isinstance(kind, _TEXT):
        unique = pc.unique(column)
        chunks = [unique.dictionary_decode() if pa.types.is_dictionary(unique.type) else unique]
    else:
        chunks = column.chunks
    for chunk in chunks:
        given = (chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk).drop_null()
        if len(given):
            yield from _packed(given, kind)


def _packed(values: pa.Array, kind: IcebergType) -> Iterator[Packed]:
    if isinstance(kind, BooleanType):
        yield _words(np.asarray(values.cast(pa.uint8())), 1)
    elif isinstance(kind, _WORDS[0]):
        yield _words(_stored(values, "<u4", 4), 4)
    elif isinstance(kind, _WORDS[1]):
        yield _words(_stored(values, "<u8", 8), 8)
    elif isinstance(kind, DecimalType):
        yield from _decimals(_stored(values, np.uint8, 16).reshape(-1, 16)[:, ::-1])
    elif isinstance(kind, _TEXT):
        yield from _texts(values)
    else:
        width = values.type.byte_width
        begins = np.arange(len(values), dtype=np.int64) * width
        yield from _gathered(_stored(values, np.uint8, width), begins, np.full(len(values), width))


def _stored(values: pa.Array, kind: Any, width: int) -> npt.NDArray[Any]:
    """Values of one width as they lie in memory."""
    size = np.dtype(kind).itemsize
    count, offset = len(values) * width // size, values.offset * width
    return np.frombuffer(values.buffers()[1], kind, count, offset)


def _words(values: npt.NDArray[Any], length: int) -> Packed:
    return Packed([values.astype(np.uint64)], np.full(len(values), length, np.uint64), 0)


def _decimals(values: npt.NDArray[np.uint8]) -> Iterator[Packed]:
    """Unscaled values, big end first, in as few bytes as hold the number and its sign."""
    values = np.ascontiguousarray(values)
    plain = values ^ np.where(values[:, :1] & 0x80, np.uint8(0xFF), np.uint8(0))
    first = np.where(plain.any(axis=1), (plain != 0).argmax(axis=1), 15)
    first -= plain[np.arange(len(plain)), first] >= 0x80  # a bit is left for the sign
    yield from _gathered(values.reshape(-1), np.arange(len(values)) * 16 + first, 16 - first)


def _texts(values: pa.Array) -> Iterator[Packed]:
    values = values.cast(pa.large_binary())
    buffers: Any = values.buffers()
    if buffers[2] is not None:
        offsets = np.frombuffer(buffers[1], np.int64, len(values) + 1, values.offset * 8)
        data = np.frombuffer(buffers[2], np.uint8, int(offsets[-1] - offsets[0]), int(offsets[0]))
        yield from _gathered(data, offsets[:-1] - offsets[0], np.diff(offsets))


def _gathered(
    data: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> Iterator[Packed]:
    """Values that lie somewhere in ``data``."""
    padded = np.concatenate([data, np.zeros(16, np.uint8)])
    anywhere: Words = np.ndarray((len(data) + 9,), np.dtype("<u8"), buffer=padded.data, strides=(1,))
    for blocks in np.unique(lengths // 16):
        members = np.flatnonzero((lengths // 16 == blocks) & (lengths > 0))
        for start in range(0, len(members), _AT_ONCE):
            chosen = members[start : start + _AT_ONCE]
            at, tail = begins[chosen], lengths[chosen] - 16 * blocks
            words = [anywhere[at + 8 * number] for number in range(2 * int(blocks))]
            for number in range(2 if tail.max(initial=0) > 8 else 1):
                left = np.clip(tail - 8 * number, 0, 8)
                beyond = np.minimum(at + 16 * blocks + 8 * number, len(data))
                words.append(anywhere[beyond] & _LOW_BYTES[left])
            yield Packed(words, lengths[chosen].astype(np.uint64), int(blocks))


_AT_ONCE = 65_536
_LOW_BYTES = np.array([(1 << (8 * count)) - 1 for count in range(9)], np.uint64)
