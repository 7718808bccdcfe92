"""Theta sketches of distinct values, as Apache DataSketches has them and the Puffin specification wants them.

A sketch keeps the smallest hashes of the values it has seen; how dense they lie says how many there are. Hashed
are the bytes of each value (:mod:`~aurum_orchestration.maintenance.backends.iceberg.stats.values`), by
MurmurHash3_x64_128 with DataSketches' seed, many at a time. DataSketches' own library for Python takes numbers
and text only, and would hash an ``int`` or a ``date`` in eight bytes where Iceberg has four.
"""

from __future__ import annotations

import struct

import numpy as np

from aurum_orchestration.maintenance.backends.iceberg.stats.values import Packed, Words

Hashes = Words

SEED, _SEED_HASH = 9001, 0x93CC
_ALL = 2**63 - 1
_AT_ONCE = 16_384
"""Values hashed together: what fits a processor's cache."""

_C1, _C2 = np.uint64(0x87C37B91114253D5), np.uint64(0x4CF5AD432745937F)
_READ_ONLY, _EMPTY, _COMPACT, _ORDERED = 2, 4, 8, 16
_FORMAT, _FAMILY = 3, 3


class ThetaSketch:
    """Distinct values of one column. At least ``2 ** lg_k`` hashes are kept: the error is about their root.

    So many distinct values and fewer are counted exactly.
    """

    def __init__(self, lg_k: int) -> None:
        self._k = 1 << lg_k
        self._theta = _ALL
        self._kept: Hashes = np.empty(0, np.uint64)
        self._new: list[Hashes] = []
        self._waiting = 0

    def add(self, values: Packed) -> None:
        """Add values."""
        for start in range(0, len(values), _AT_ONCE):
            found = hashes(values[start : start + _AT_ONCE])
            found = found[(found < self._theta) & (found > 0)]
            if len(found):
                self._new.append(found)
                self._waiting += len(found)
                if self._waiting >= 2 * self._k:
                    self._gather()

    def _gather(self) -> None:
        kept = np.unique(np.concatenate([self._kept, *self._new]))
        self._new, self._waiting = [], 0
        if len(kept) > self._k:
            self._theta = int(kept[self._k])
            kept = kept[: self._k].copy()
        self._kept = kept

    @property
    def estimate(self) -> int:
        """How many distinct values there were, about."""
        self._gather()
        return len(self._kept) if self._theta == _ALL else round(len(self._kept) * (_ALL / self._theta))

    def compact(self) -> bytes:
        """The sketch in DataSketches' format of compact, ordered sketches (serial version 3)."""
        self._gather()
        count, flags = len(self._kept), _READ_ONLY | _COMPACT | _ORDERED
        exact = self._theta == _ALL
        if exact and count < 2:
            longs, flags, rest = 1, flags | (0 if count else _EMPTY), b""
        elif exact:
            longs, rest = 2, struct.pack("<II", count, 0)
        else:
            longs, rest = 3, struct.pack("<IIQ", count, 0, self._theta)
        head = struct.pack("<BBBBBBH", longs, _FORMAT, _FAMILY, 0, 0, flags, _SEED_HASH)
        return head + rest + self._kept.astype("<u8").tobytes()


def hashes(values: Packed) -> Hashes:
    """DataSketches' 63-bit hash of each value."""
    h1, h2 = np.full(len(values), SEED, np.uint64), np.full(len(values), SEED, np.uint64)
    words = values.words
    for number in range(0, len(words), 2):
        whole = number < 2 * values.blocks
        h1 ^= _rotated(words[number] * _C1, 31) * _C2
        if whole:
            h1 = (_rotated(h1, 27) + h2) * np.uint64(5) + np.uint64(0x52DCE729)
        if number + 1 < len(words):
            h2 ^= _rotated(words[number + 1] * _C2, 33) * _C1
        if whole:
            h2 = (_rotated(h2, 31) + h1) * np.uint64(5) + np.uint64(0x38495AB5)
    h1 ^= values.lengths
    h2 ^= values.lengths
    h1 += h2
    h2 += h1
    found: Hashes = (_mixed(h1) + _mixed(h2)) >> np.uint64(1)
    return found


def _rotated(values: Hashes, bits: int) -> Hashes:
    return (values << np.uint64(bits)) | (values >> np.uint64(64 - bits))


def _mixed(values: Hashes) -> Hashes:
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        values = values ^ (values >> np.uint64(33))
        values *= np.uint64(factor)
    return values ^ (values >> np.uint64(33))
