"""Reading chosen fields of Avro files fast: manifests have 16 fields an entry, measuring needs 7.

The reader of a schema is a Python function written for it once, of calls to PyIceberg's C decoder. It takes
a fifth of the time of PyIceberg's own reader and of fastavro with a reader schema, which decode the
statistics of every column that nobody asked for, or step through them value by value.
Fields are chosen by Iceberg's field ids, since writers disagree about some names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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

_WRITTEN = {"gzip": "deflate", "zstd": "zstandard", "uncompressed": "null"}

SPAN = -1
"""In the projection of a record: where in its block the record begins and ends, for :func:`read_blocks`."""

Reader: TypeAlias = Callable[[BinaryDecoder, int, list[tuple[Any, ...]]], None]


class AvroError(ValueError):
    """The bytes are no Avro file, are cut short, or hold what Iceberg's files never do."""


class Block(NamedTuple):
    """A block's bytes, decompressed, and its records as tuples in the order of the projection."""

    content: bytes
    records: list[tuple[Any, ...]]


class AvroFile(NamedTuple):
    """The key-value metadata of a file, and its records as tuples in the order of the projection."""

    metadata: Mapping[str, bytes]
    records: list[tuple[Any, ...]]


def avro_codec(properties: Mapping[str, str]) -> str:
    """The codec for Avro files of a table: what its properties ask for, deflate for one that needs another package."""
    wanted = properties.get("write.avro.compression-codec", "gzip").lower()
    return _WRITTEN.get(wanted, "deflate")


def read_avro(content: bytes, projection: Projection) -> AvroFile:
    """The wanted fields of every record of an Avro file; None for a field the file does not have.

    Numbers come as numbers, everything else as the raw bytes stored, which is all that comparing
    and grouping need. Raises AvroError.
    """
    with _decoding():
        metadata, blocks, read = _opened(content, projection)
        parts = list(blocks)
        records: list[tuple[Any, ...]] = []
        # decoded at once: PyIceberg writes a block per record
        _decode(b"".join(part for _, part in parts), sum(count for count, _ in parts), read, records)
        return AvroFile(metadata, records)


def read_blocks(content: bytes, projection: Projection) -> tuple[Mapping[str, bytes], list[Block]]:
    """The metadata of an Avro file, and each block's bytes beside its records; see :func:`read_avro`.

    Raises AvroError.
    """
    with _decoding():
        metadata, blocks, read = _opened(content, projection)
        found: list[Block] = []
        for count, block in blocks:
            found.append(Block(block, []))
            _decode(block, count, read, found[-1].records)
        return metadata, found


class SuccessiveFiles:
    """Reads files that mostly repeat the records of the file read before, as the manifest lists of appends do.

    Writers put what is new first and then what was there, byte for byte. Of such a file only what is new is decoded.
    """

    def __init__(self, projection: Projection) -> None:
        self._projection = projection
        self._before: tuple[bytes, bytes, int] | None = None

    def new_records(self, content: bytes) -> list[tuple[Any, ...]]:
        """The records that the file before did not have; all of them when it was no such file. Raises AvroError."""
        with _decoding():
            metadata, blocks, read = _opened(content, self._projection)
            known = list(blocks)
            buffer, count = b"".join(block for _, block in known), sum(number for number, _ in known)
            before, self._before = self._before, (metadata["avro.schema"], buffer, count)
            records: list[tuple[Any, ...]] = []
            if before is not None and before[0] == metadata["avro.schema"] and buffer.endswith(before[1]):
                try:
                    # records have no marks between them: if so many fill what is left exactly, the rest is as before
                    _decode(buffer[: len(buffer) - len(before[1])], count - before[2], read, records)
                    return records
                except Exception:  # an equal end by chance
                    records.clear()
            for number, block in known:
                _decode(block, number, read, records)
            return records


@contextmanager
def _decoding() -> Iterator[None]:
    """Whatever decoding stumbles over is an AvroError."""
    try:
        yield
    except AvroError:
        raise
    except Exception as error:
        raise AvroError(f"it cannot be decoded: {error!r}") from error


def _opened(content: bytes, projection: Projection) -> tuple[Mapping[str, bytes], Iterable[tuple[int, bytes]], Reader]:
    """The metadata of a file, its blocks decompressed with the number of records in each, and their reader."""
    metadata, position = _header(content)
    codec = metadata.get("avro.codec", b"null").decode()
    if codec not in KNOWN_CODECS:
        raise AvroError(f"unknown codec {codec!r}")
    return metadata, _blocks(content, position, KNOWN_CODECS[codec]), _compiled(metadata["avro.schema"], projection)


_latest_header: tuple[bytes, dict[str, bytes]] = (b"-", {})
"""The bytes of the header read last, and what they say: the manifests of a table begin alike."""


def _header(content: bytes) -> tuple[Mapping[str, bytes], int]:
    """The metadata of a file and the position of its sync marker."""
    global _latest_header  # noqa: PLW0603
    known, metadata = _latest_header
    if content.startswith(known):
        return metadata, len(known)
    metadata, position = _read_header(content)
    _latest_header = content[:position], metadata
    return metadata, position


def _read_header(content: bytes) -> tuple[dict[str, bytes], int]:
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


def _blocks(content: bytes, start: int, codec: type[Codec] | None) -> Iterator[tuple[int, bytes]]:
    position = start + SYNC_BYTES
    sync = content[start:position]
    length = len(content)
    if position > length:
        raise AvroError("the file is cut short")
    while position < length:
        count, position = _varint(content, position)
        block, position = _bytes(content, position)
        if content[position : position + SYNC_BYTES] != sync:
            raise AvroError("a block is damaged")
        position += SYNC_BYTES
        yield count, block if codec is None else codec.decompress(block)


def _decode(block: bytes, count: int, read: Reader, records: list[tuple[Any, ...]]) -> None:
    decoder = new_decoder(block)
    read(decoder, count, records)
    if decoder.tell() != len(block):  # the C decoder does not look where its buffer ends
        raise AvroError("a block does not hold what its schema says")


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
def _compiled(schema: bytes, projection: Projection) -> Reader:
    """A function that reads ``count`` records: Python source made for this schema, as dataclasses make theirs.

    Nothing of the schema gets into the source but numbers.
    """
    source = _Source()
    result = source.read_record(orjson.loads(schema), projection, depth=2)
    text = "\n".join([*_PROLOGUE, *source.lines, f"        out.append({result})"])
    namespace: dict[str, Any] = {}
    exec(compile(text, "<reader of an Avro schema>", "exec"), namespace)  # noqa: S102
    reader: Reader = namespace["read"]
    return reader


_PROLOGUE = [
    "def read(decoder, count, out):",
    "    read_int, read_ints, read_dict = decoder.read_int, decoder.read_ints, decoder.read_int_bytes_dict",
    "    read_bytes, skip_bytes = decoder.read_bytes, decoder.skip_bytes",
    "    for _ in range(count):",
]
_NUMBERS = ("int", "long")
_READ: Mapping[str, str] = {
    "null": "None",
    "boolean": "decoder.read_boolean()",
    "int": "read_int()",
    "long": "read_int()",
    "float": "decoder.read(4)",
    "double": "decoder.read(8)",
    "bytes": "read_bytes()",
    "string": "read_bytes()",
}
_SKIP: Mapping[str, str] = {
    "null": "pass",
    "boolean": "decoder.skip_boolean()",
    "int": "read_int()",
    "long": "read_int()",
    "float": "decoder.skip(4)",
    "double": "decoder.skip(8)",
    "bytes": "skip_bytes()",
    "string": "skip_bytes()",
}


class _Source:
    """Writes the statements that read or step over one value of a writer's schema."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._named: dict[str, Any] = {}
        self._variables = 0

    def read_record(self, schema: Any, projection: Projection | None, depth: int) -> str:
        """Reads a record; the expression of a tuple of the wanted fields, or of all for None."""
        fields = schema["fields"]
        if projection is None:
            slots: Mapping[int, tuple[int, Projection | None]] = {at: (at, None) for at, _ in enumerate(fields)}
        else:
            places = {field.get("field-id"): at for at, field in enumerate(fields)}
            chosen = [item if isinstance(item, tuple) else (item, None) for item in projection]
            slots = {places[id_]: (slot, inner) for slot, (id_, inner) in enumerate(chosen) if id_ in places}
        values = ["None"] * len(fields if projection is None else projection)
        start = self._position(depth) if projection is not None and SPAN in projection else None
        for at, field in enumerate(fields):
            if at in slots:
                slot, inner = slots[at]
                values[slot] = self.read(field["type"], inner, depth)
            else:
                self.skip(field["type"], depth)
        if projection is not None and start is not None:
            values[projection.index(SPAN)] = f"({start}, {self._position(depth)})"
        return "(" + "".join(f"{value}, " for value in values) + ")"

    def read(self, schema: Any, projection: Projection | None, depth: int) -> str:
        """Reads a value; the variable or expression that has it."""
        kind, schema = self._resolve(schema)
        if kind == "record":
            return self.read_record(schema, projection, depth)
        variable = self._variable()
        if kind == "union":
            for branch in self._branches(schema, depth):
                self._emit(f"{variable} = {self.read(branch, projection, depth + 1)}", depth + 1)
        elif kind == "fixed":
            self._emit(f"{variable} = decoder.read({int(schema['size'])})", depth)
        else:
            self._emit(f"{variable} = {_READ[kind]}", depth)
        return variable

    def skip(self, schema: Any, depth: int) -> None:
        """Steps over a value."""
        kind, schema = self._resolve(schema)
        if kind == "union":
            for branch in self._branches(schema, depth):
                self.skip(branch, depth + 1)
        elif kind == "record":
            for field in schema["fields"]:
                self.skip(field["type"], depth)
            self._emit("pass", depth)
        elif kind == "fixed":
            self._emit(f"decoder.skip({int(schema['size'])})", depth)
        elif kind in {"array", "map"}:
            count = self._variable()
            self._emit(f"while {count} := read_int():", depth)
            self._emit(f"if {count} < 0:", depth + 1)
            self._emit("decoder.skip(read_int())", depth + 2)
            self._emit("else:", depth + 1)
            self._skip_items(schema, count, depth + 2)
        else:
            self._emit(_SKIP[kind], depth)

    def _skip_items(self, schema: Any, count: str, depth: int) -> None:
        """Steps over the items of an array or a map; Iceberg's maps are arrays of pairs and take one call."""
        if "values" in schema:
            self._emit(f"for _ in range({count}):", depth)
            self._emit(_SKIP["string"], depth + 1)
            self.skip(schema["values"], depth + 1)
            return
        kind, items = self._resolve(schema["items"])
        types = [field["type"] for field in items["fields"]] if kind == "record" else [kind]
        if all(isinstance(type_, str) and type_ in _NUMBERS for type_ in types):
            self._emit(f"read_ints({count} * {len(types)})", depth)
        elif types in (["int", "bytes"], ["long", "bytes"]):
            self._emit(f"read_dict({count}, {{}})", depth)
        else:
            self._emit(f"for _ in range({count}):", depth)
            self.skip(schema["items"], depth + 1)

    def _branches(self, union: list[Any], depth: int) -> Iterator[Any]:
        """The types of a union, each after the condition that the value has it."""
        branch = self._variable()
        self._emit(f"{branch} = read_int()", depth)
        for number, type_ in enumerate(union):
            self._emit(f"{'elif' if number else 'if'} {branch} == {number}:", depth)
            yield type_
        self._emit("else:", depth)
        self._emit("raise ValueError('a union has no such branch')", depth + 1)

    def _resolve(self, schema: Any) -> tuple[str, Any]:
        """The kind of a type and its definition; registers and looks up named types."""
        if isinstance(schema, list):
            return "union", schema
        if isinstance(schema, str):
            return self._resolve(self._named[schema]) if schema in self._named else (schema, schema)
        kind = schema["type"]
        if not isinstance(kind, str):
            return self._resolve(kind)
        if name := schema.get("name"):
            self._named[name] = schema
        return kind, schema

    def _position(self, depth: int) -> str:
        variable = self._variable()
        self._emit(f"{variable} = decoder.tell()", depth)
        return variable

    def _variable(self) -> str:
        self._variables += 1
        return f"v{self._variables}"

    def _emit(self, statement: str, depth: int) -> None:
        self.lines.append("    " * depth + statement)
