"""Reading chosen fields of Avro files fast: manifests have 16 fields an entry, measuring needs 7.

The reader is compiled once per schema from PyIceberg's C decoder calls. It takes a small part of the
time of PyIceberg's own reader and of fastavro with a reader schema, because both decode, or step
through in Python, the statistics of every column that nobody asked for.
Fields are chosen by Iceberg's field ids, since writers disagree about some names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import orjson
from pyiceberg.avro.codecs import KNOWN_CODECS
from pyiceberg.avro.codecs.codec import Codec
from pyiceberg.avro.decoder import BinaryDecoder, StreamingBinaryDecoder

try:
    from pyiceberg.avro.decoder_fast import CythonBinaryDecoder

    new_decoder: Callable[[bytes], BinaryDecoder] = CythonBinaryDecoder
except ModuleNotFoundError:  # a build of PyIceberg without its C extension
    new_decoder = StreamingBinaryDecoder

MAGIC = b"Obj\x01"
SYNC_BYTES = 16

Projection: TypeAlias = "tuple[int | tuple[int, Projection], ...]"
"""Field ids wanted, in the order of the result; ``(id, Projection)`` for chosen fields of a record."""

Step: TypeAlias = Callable[[BinaryDecoder], Any]


class AvroError(ValueError):
    """The bytes are no Avro file, are cut short, or hold what Iceberg's files never do."""


class AvroFile(NamedTuple):
    """The key-value metadata of a file, and its records as tuples in the order of the projection."""

    metadata: Mapping[str, bytes]
    records: list[tuple[Any, ...]]


def read_avro(content: bytes, projection: Projection) -> AvroFile:
    """The wanted fields of every record of an Avro file; None for a field the file does not have.

    Numbers come as numbers, everything else as the raw bytes stored, which is all that comparing
    and grouping need. Raises AvroError.
    """
    try:
        metadata, position = _header(content)
        codec = metadata.get("avro.codec", b"null").decode()
        if codec not in KNOWN_CODECS:
            raise AvroError(f"unknown codec {codec!r}")
        read = _compiled(metadata["avro.schema"], projection)
        return AvroFile(metadata, _records(content, position, KNOWN_CODECS[codec], read))
    except AvroError:
        raise
    except Exception as error:
        raise AvroError(f"it cannot be decoded: {error!r}") from error


def _header(content: bytes) -> tuple[dict[str, bytes], int]:
    """The metadata of a file and the position of its sync marker."""
    if content[:4] != MAGIC:
        raise AvroError("not an Avro file")
    metadata: dict[str, bytes] = {}
    count, position = _varint(content, len(MAGIC))
    while count:
        if count < 0:
            count = -count
            _, position = _varint(content, position)
        for _ in range(count):
            key, position = _bytes(content, position)
            metadata[key.decode()], position = _bytes(content, position)
        count, position = _varint(content, position)
    return metadata, position


def _records(content: bytes, start: int, codec: type[Codec] | None, read: Step) -> list[tuple[Any, ...]]:
    position = start + SYNC_BYTES
    sync = content[start:position]
    length = len(content)
    records: list[tuple[Any, ...]] = []
    while position < length:
        count, position = _varint(content, position)
        block, position = _bytes(content, position)
        if len(sync) < SYNC_BYTES or content[position : position + SYNC_BYTES] != sync:
            raise AvroError("a block is damaged")
        position += SYNC_BYTES
        if codec is not None:
            block = codec.decompress(block)
        decoder = new_decoder(block)
        if count == 1:
            records.append(read(decoder))
        else:
            records += [read(decoder) for _ in range(count)]
        if decoder.tell() != len(block):  # the C decoder does not look where its buffer ends
            raise AvroError("a block does not hold what its schema says")
    return records


def _bytes(content: bytes, position: int) -> tuple[bytes, int]:
    size, position = _varint(content, position)
    end = position + size
    if size < 0 or end > len(content):
        raise AvroError("the file is cut short")
    return content[position:end], end


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(content):
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position
        shift += 7
    raise AvroError("the file is cut short")


@lru_cache(maxsize=512)
def _compiled(schema: bytes, projection: Projection) -> Step:
    return _Compiler().record(orjson.loads(schema), projection)


_NUMBERS = ("int", "long")
_READ: Mapping[str, Step] = {
    "null": lambda _decoder: None,
    "boolean": lambda decoder: decoder.read_boolean(),
    "int": lambda decoder: decoder.read_int(),
    "long": lambda decoder: decoder.read_int(),
    "float": lambda decoder: decoder.read(4),
    "double": lambda decoder: decoder.read(8),
    "bytes": lambda decoder: decoder.read_bytes(),
    "string": lambda decoder: decoder.read_bytes(),
}
_SKIP: Mapping[str, Step] = {
    "null": lambda _decoder: None,
    "boolean": lambda decoder: decoder.skip_boolean(),
    "int": lambda decoder: decoder.skip_int(),
    "long": lambda decoder: decoder.skip_int(),
    "float": lambda decoder: decoder.skip_float(),
    "double": lambda decoder: decoder.skip_double(),
    "bytes": lambda decoder: decoder.skip_bytes(),
    "string": lambda decoder: decoder.skip_bytes(),
}


class _Compiler:
    """Turns a writer's schema into functions that read or skip a value. Knows the named types seen so far."""

    def __init__(self) -> None:
        self.named: dict[str, Any] = {}

    def record(self, schema: Any, projection: Projection | None) -> Step:
        """Reads a record as a tuple: the fields of the projection, or all of them for None."""
        fields = schema["fields"]
        if projection is None:
            projection = tuple(position for position, _ in enumerate(fields))
            ids = {position: position for position in projection}
        else:
            ids = {position: field.get("field-id", -1) for position, field in enumerate(fields)}
        slots = {item if isinstance(item, int) else item[0]: slot for slot, item in enumerate(projection)}
        steps: list[tuple[int, Step]] = []
        for position, field in enumerate(fields):
            slot = slots.get(ids[position])
            if slot is None:
                steps.append((-1, self.skip(field["type"])))
            else:
                item = projection[slot]
                steps.append((slot, self.read(field["type"], item[1] if isinstance(item, tuple) else None)))
        width = len(projection)

        def read(decoder: BinaryDecoder) -> tuple[Any, ...]:
            out: list[Any] = [None] * (width + 1)  # the last place takes what is stepped over
            for slot, step in steps:
                out[slot] = step(decoder)
            return tuple(out[:width])

        return read

    def read(self, schema: Any, projection: Projection | None = None) -> Step:
        """Reads one value."""
        kind, schema = self._resolve(schema)
        if kind == "union":
            return _union([self.read(branch, projection) for branch in schema])
        if kind == "record":
            return self.record(schema, projection)
        if kind == "fixed":
            size = schema["size"]
            return lambda decoder: decoder.read(size)
        return _READ[kind]

    def skip(self, schema: Any) -> Step:
        """Steps over one value."""
        kind, schema = self._resolve(schema)
        if kind == "union":
            return _union([self.skip(branch) for branch in schema])
        if kind == "record":
            return _in_turn([self.skip(field["type"]) for field in schema["fields"]])
        if kind == "fixed":
            size = schema["size"]
            return lambda decoder: decoder.skip(size)
        if kind == "array":
            return _blocks(self._skip_items(schema["items"]))
        if kind == "map":
            return _blocks(_repeat(_in_turn([_SKIP["string"], self.skip(schema["values"])])))
        return _SKIP[kind]

    def _skip_items(self, items: Any) -> Callable[[BinaryDecoder, int], Any]:
        """Steps over the items of an array; Iceberg's maps are arrays of key and value, done in one call."""
        kind, schema = self._resolve(items)
        types = [field["type"] for field in schema["fields"]] if kind == "record" else [kind]
        if all(isinstance(type_, str) and type_ in _NUMBERS for type_ in types):
            width = len(types)
            return lambda decoder, count: decoder.read_ints(count * width)
        if types in (["int", "bytes"], ["long", "bytes"]):
            return lambda decoder, count: decoder.read_int_bytes_dict(count, {})
        return _repeat(self.skip(items))

    def _resolve(self, schema: Any) -> tuple[str, Any]:
        """The kind of a type and its definition; registers and looks up named types."""
        if isinstance(schema, list):
            return "union", schema
        if isinstance(schema, str):
            return self._resolve(self.named[schema]) if schema in self.named else (schema, schema)
        kind = schema["type"]
        if not isinstance(kind, str):
            return self._resolve(kind)
        if name := schema.get("name"):
            self.named[name] = schema
        return kind, schema


def _union(branches: list[Step]) -> Step:
    return lambda decoder: branches[decoder.read_int()](decoder)


def _in_turn(steps: list[Step]) -> Step:
    def run(decoder: BinaryDecoder) -> None:
        for step in steps:
            step(decoder)

    return run


def _repeat(step: Step) -> Callable[[BinaryDecoder, int], Any]:
    def repeat(decoder: BinaryDecoder, count: int) -> None:
        for _ in range(count):
            step(decoder)

    return repeat


def _blocks(skip_items: Callable[[BinaryDecoder, int], Any]) -> Step:
    def skip(decoder: BinaryDecoder) -> None:
        while count := decoder.read_int():
            if count < 0:
                decoder.skip(decoder.read_int())
            else:
                skip_items(decoder, count)

    return skip
