"""Arrow arrays as NumPy sees their memory, without copies where possible."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

type_ = pa.types
U64 = npt.NDArray[np.uint64]


def is_plain(kind: pa.DataType) -> bool:
    """Whether values of a type are numbers of a fixed width: integers, floats, dates and times."""
    return bool(
        type_.is_integer(kind) or type_.is_floating(kind) or (type_.is_temporal(kind) and not type_.is_interval(kind))
    ) and kind.bit_width in (8, 16, 32, 64)


def is_bytes(kind: pa.DataType) -> bool:
    """Whether values of a type are strings, of text or bytes, found by their offsets."""
    return bool(
        type_.is_string(kind) or type_.is_binary(kind) or type_.is_large_string(kind) or type_.is_large_binary(kind)
    )


def dtype_of(kind: pa.DataType) -> np.dtype[Any]:
    """How the values of a plain type stand in memory: floats, unsigned, or signed like every date and time."""
    letter = "f" if type_.is_floating(kind) else "u" if type_.is_unsigned_integer(kind) else "i"
    return np.dtype(f"{letter}{kind.bit_width // 8}")


def fixed_values(array: pa.Array, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The values of a plain array (of a dictionary: its codes) without a copy, garbage where null."""
    buffer = array.buffers()[1]
    if buffer is None or len(array) == 0:
        return np.zeros(len(array), dtype)
    return np.frombuffer(buffer, dtype, len(array), array.offset * dtype.itemsize)


def validity(array: pa.Array) -> npt.NDArray[np.bool_] | None:
    """True for each value that is not null; None when none is."""
    if array.null_count == 0:
        return None
    if type_.is_null(array.type):
        return np.zeros(len(array), np.bool_)
    return bit_values(array.buffers()[0], array.offset, len(array))


def bit_values(buffer: pa.Buffer, offset: int, length: int) -> npt.NDArray[np.bool_]:
    """Bits as booleans, of a byte each."""
    raw = np.frombuffer(buffer, np.uint8)[offset // 8 : (offset + length + 7) // 8]
    return np.unpackbits(raw, bitorder="little")[offset % 8 : offset % 8 + length].view(np.bool_)


def offset_values(array: pa.Array) -> npt.NDArray[Any]:
    """Where each string or list begins in what the array holds, and where the last one ends."""
    wide = type_.is_large_string(array.type) or type_.is_large_binary(array.type) or type_.is_large_list(array.type)
    dtype = np.dtype(np.int64 if wide else np.int32)
    buffer = array.buffers()[1]
    if buffer is None or len(array) == 0:
        return np.zeros(len(array) + 1, dtype)
    return np.frombuffer(buffer, dtype, array.offset + len(array) + 1)[array.offset :]
