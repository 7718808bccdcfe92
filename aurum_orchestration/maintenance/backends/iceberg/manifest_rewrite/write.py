"""Writing manifests out of entries' bytes: Avro blocks, compressed first, then dealt out to as few files as fit."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
from pyiceberg.avro.codecs import KNOWN_CODECS

from aurum_orchestration.maintenance.backends.iceberg.avro import MAGIC, SYNC_BYTES
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.raw import RawEntry
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.schemas import FileSchema
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.sizes import ideal

BLOCK_BYTES = 64 * 1024
_EXISTING = 0


class Packed(NamedTuple):
    """A compressed block and the entries in it."""

    content: bytes
    entries: Sequence[RawEntry]


def packed(entries: Sequence[RawEntry], version: int, codec: str, target_bytes: int) -> Iterable[Packed]:
    """The entries, all as existing ones, in blocks of about 64 KiB, or the target if less, before compression."""
    most = min(BLOCK_BYTES, target_bytes)
    compress = _compressor(codec)
    parts: list[bytes] = []
    size = first = 0
    for number, entry in enumerate(entries, 1):
        head = _head(version, entry.snapshot_id, entry.sequence_number, entry.file_sequence_number)
        parts += (head, entry.data_file)
        size += len(entry.data_file)
        if size >= most or number == len(entries):
            yield Packed(compress(b"".join(parts)), entries[first:number])
            parts, size, first = [], 0, number


def dealt(blocks: Sequence[Packed], target_bytes: int) -> list[list[Packed]]:
    """The blocks in as few files as hold them at about the target size, in order, all of about the same size."""
    total = sum(len(block.content) for block in blocks)
    files: list[list[Packed]] = [[] for _ in range(ideal(total, target_bytes))]
    done = 0
    for block in blocks:
        middle = done + len(block.content) / 2
        files[min(len(files) - 1, int(middle / total * len(files)))].append(block)
        done += len(block.content)
    return [file for file in files if file]


def manifest_bytes(blocks: Sequence[Packed], header: Mapping[str, bytes], codec: str, schema: bytes) -> bytes:
    """A whole manifest file. ``header`` are Iceberg's keys."""
    sync = os.urandom(SYNC_BYTES)
    keys = {**header, "avro.schema": schema, "avro.codec": codec.encode()}
    parts = [MAGIC, _long(len(keys))]
    for key, value in keys.items():
        parts += (_bytes(key.encode()), _bytes(value))
    parts += (_long(0), sync)
    for block in blocks:
        parts += (_long(len(block.entries)), _bytes(block.content), sync)
    return b"".join(parts)


def entry_schema(target: FileSchema, version: int) -> bytes:
    """The Avro schema of an entry around a data file of that schema."""
    number = ["null", "long"]
    fields: list[dict[str, Any]] = [{"name": "status", "type": "int", "field-id": 0}]
    if version == 1:
        fields.append({"name": "snapshot_id", "type": "long", "field-id": 1})
    else:
        fields += [
            {"name": "snapshot_id", "type": number, "default": None, "field-id": 1},
            {"name": "sequence_number", "type": number, "default": None, "field-id": 3},
            {"name": "file_sequence_number", "type": number, "default": None, "field-id": 4},
        ]
    fields.append({"name": "data_file", "type": target.definition, "field-id": 2})
    return orjson.dumps({"type": "record", "name": "manifest_entry", "fields": fields})


@lru_cache(maxsize=4096)
def _head(
    version: int, snapshot_id: int | None, sequence_number: int | None, file_sequence_number: int | None
) -> bytes:
    """An entry's bytes before its data file."""
    status = _long(_EXISTING)
    if version == 1:
        if snapshot_id is None:
            raise ValueError("an entry of a version 1 manifest has no snapshot id")
        return status + _long(snapshot_id)
    return status + b"".join(map(_optional, (snapshot_id, sequence_number, file_sequence_number)))


def _optional(value: int | None) -> bytes:
    return _long(0) if value is None else _long(1) + _long(value)


def _long(value: int) -> bytes:
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def _bytes(value: bytes) -> bytes:
    return _long(len(value)) + value


def _compressor(codec: str) -> Callable[[bytes], bytes]:
    if codec == "deflate":

        def deflate(data: bytes) -> bytes:
            squeezer = zlib.compressobj(wbits=-15)
            return squeezer.compress(data) + squeezer.flush()

        return deflate
    known = KNOWN_CODECS[codec]  # type: ignore[index]
    return (lambda data: data) if known is None else (lambda data: known.compress(data)[0])
