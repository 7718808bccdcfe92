"""Reading chosen fields gives what fastavro gives for them, for any schema and codec; damage is an error."""

from __future__ import annotations

import io
import struct
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum_orchestration.maintenance.backends.iceberg.avro import AvroError, read_avro

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "bytes": st.binary(max_size=20),
    "string": st.text(max_size=20),
}
Typed = tuple[Any, st.SearchStrategy[Any]]
"""A schema, and the values that it has."""


def _optional(inner: Typed) -> Typed:
    return ["null", inner[0]], st.none() | inner[1]


def _array(inner: Typed) -> Typed:
    return {"type": "array", "items": inner[0]}, st.lists(inner[1], max_size=4)


def _map(inner: Typed) -> Typed:
    return {"type": "map", "values": inner[0]}, st.dictionaries(st.text(max_size=3), inner[1], max_size=3)


def _pairs(kinds: tuple[str, str]) -> Typed:
    """A map as Iceberg writes it to Avro."""
    fields = [{"name": name, "type": kind} for name, kind in zip(("key", "value"), kinds, strict=True)]
    record = {"type": "record", "name": f"pair_{'_'.join(kinds)}", "fields": fields}
    values = st.fixed_dictionaries({"key": SCALARS[kinds[0]], "value": SCALARS[kinds[1]]})
    return {"type": "array", "items": record, "logicalType": "map"}, st.lists(values, max_size=4)


scalars = st.sampled_from(list(SCALARS.items()))
fixed = st.integers(1, 9).map(
    lambda size: ({"type": "fixed", "name": f"fixed_{size}", "size": size}, st.binary(min_size=size, max_size=size))
)
pairs = st.sampled_from([("int", "long"), ("int", "bytes"), ("int", "string")]).map(_pairs)
types = st.recursive(
    scalars | fixed | pairs, lambda inner: inner.map(_optional) | inner.map(_array) | inner.map(_map), max_leaves=4
)


def _unnamed(schema: Any, seen: set[str]) -> Any:
    """The schema with the second and later definitions of a named type replaced by its name, as Avro wants it."""
    if isinstance(schema, list):
        return [_unnamed(one, seen) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if "name" in schema and "type" in schema and schema["type"] in ("record", "fixed"):
        if schema["name"] in seen:
            return schema["name"]
        seen.add(schema["name"])
    return {key: _unnamed(value, seen) if key in ("items", "values") else value for key, value in schema.items()}


def raw(value: Any, schema: Any) -> Any:
    """A value as it is stored: text and floats as bytes."""
    kind = schema["type"] if isinstance(schema, dict) else schema
    if isinstance(kind, list):
        return None if value is None else raw(value, kind[1])
    match kind:
        case "string":
            return value.encode()
        case "float":
            return struct.pack("<f", value)
        case "double":
            return struct.pack("<d", value)
    return value


def written(schema: Any, records: list[Any], codec: str = "null", **options: Any) -> bytes:
    stream = io.BytesIO()
    fastavro.writer(stream, fastavro.parse_schema(schema), records, codec=codec, **options)
    return stream.getvalue()


@given(st.data())
def test_any_chosen_fields_come_as_written_and_the_others_are_stepped_over(data: st.DataObject) -> None:
    columns = data.draw(st.lists(types, min_size=1, max_size=5))
    seen: set[str] = set()
    fields = [
        {"name": f"f{number}", "type": _unnamed(schema, seen), "field-id": 100 + number}
        for number, (schema, _) in enumerate(columns)
    ]
    schema = {"type": "record", "name": "entry", "fields": fields}
    values = st.fixed_dictionaries({f"f{number}": made for number, (_, made) in enumerate(columns)})
    records = data.draw(st.lists(values, max_size=5))
    plain = [number for number, (kind, _) in enumerate(columns) if isinstance(kind, str)]
    wanted = data.draw(st.permutations(plain)) if plain else []
    codec = data.draw(st.sampled_from(["null", "deflate", "bzip2"]))
    content = written(schema, records, codec, sync_interval=data.draw(st.sampled_from([1, 16_000])))
    projection = (*(100 + number for number in wanted), 999)
    assert read_avro(content, projection).records == [
        (*(raw(record[f"f{number}"], columns[number][0]) for number in wanted), None) for record in records
    ]


FIXED = {"type": "fixed", "name": "f2", "size": 2}
ENTRY: dict[str, Any] = {
    "type": "record",
    "name": "entry",
    "fields": [
        {"name": "status", "type": "int", "field-id": 0},
        {
            "name": "file",
            "field-id": 2,
            "type": {
                "type": "record",
                "name": "r2",
                "fields": [
                    {"name": "path", "type": "string", "field-id": 100},
                    {
                        "name": "partition",
                        "field-id": 102,
                        "type": {
                            "type": "record",
                            "name": "r102",
                            "fields": [
                                {"name": "a", "type": ["null", FIXED], "field-id": 1000},
                                {"name": "b", "type": ["null", "f2"], "field-id": 1001},
                                {"name": "c", "type": ["null", "double"], "field-id": 1002},
                            ],
                        },
                    },
                    {"name": "size", "type": "long", "field-id": 104},
                ],
            },
        },
    ],
}
ENTRIES: list[dict[str, Any]] = [
    {"status": 1, "file": {"path": "x", "partition": {"a": b"ab", "b": None, "c": 1.5}, "size": 10}},
    {"status": 2, "file": {"path": "y", "partition": {"a": None, "b": b"cd", "c": None}, "size": 2**40}},
]


def test_fields_of_records_inside_and_types_known_by_name() -> None:
    found = read_avro(written(ENTRY, ENTRIES, "deflate", metadata={"partition-spec-id": "7"}), (0, (2, (104, 102))))
    assert found.records == [
        (1, (10, (b"ab", None, struct.pack("<d", 1.5)))),
        (2, (2**40, (None, b"cd", None))),
    ]
    assert found.metadata["partition-spec-id"] == b"7"


@pytest.mark.parametrize("codec", ["null", "deflate"])
def test_a_file_cut_short_anywhere_is_an_error(codec: str) -> None:
    whole = written(ENTRY, ENTRIES, codec, sync_interval=1)
    ends = {len(whole)}
    for cut in range(len(whole)):
        try:
            read_avro(whole[:cut], (0, (2, (104, 102))))
        except AvroError:
            continue
        ends.add(cut)
    # complete blocks make a complete file: after the header, after the first block, after the second
    assert len(ends) == 3
    assert [len(read_avro(whole[:end], (0,)).records) for end in sorted(ends)] == [0, 1, 2]


@pytest.mark.parametrize(("count", "block"), [(1, b"\x02\x04"), (3, b"\x02\x04"), (1, b"")])
def test_a_block_that_holds_more_or_less_than_it_says(count: int, block: bytes) -> None:
    numbers = {"type": "record", "name": "n", "fields": [{"name": "n", "type": "int", "field-id": 0}]}
    empty = written(numbers, [])
    two = empty + bytes([2 * 2, 2 * 2]) + b"\x02\x04" + empty[-16:]
    assert read_avro(two, (0,)).records == [(1,), (2,)]
    with pytest.raises(AvroError):
        read_avro(empty + bytes([2 * count, 2 * len(block)]) + block + empty[-16:], (0,))


@given(st.data())
def test_a_damaged_file_is_an_error_or_reads_as_something(data: st.DataObject) -> None:
    content = bytearray(written(ENTRY, ENTRIES, "deflate"))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        records = read_avro(bytes(content), (0, (2, (104,)))).records
    except AvroError:
        return
    assert all(len(record) == 2 for record in records)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not an Avro file"),
        (b"PAR1" * 10, "not an Avro file"),
        (b"Obj\x01\x00" + b"s" * 16, "avro.schema"),
    ],
)
def test_what_is_no_avro_file(content: bytes, words: str) -> None:
    with pytest.raises(AvroError, match=words):
        read_avro(content, (0,))


def test_a_codec_that_nobody_knows() -> None:
    content = written(ENTRY, ENTRIES).replace(b"\x08null", b"\x08nul1")
    with pytest.raises(AvroError, match="nul1"):
        read_avro(content, (0,))


def test_names_in_a_schema_are_never_run() -> None:
    content = written(ENTRY, ENTRIES).replace(b'"status"', b'"x\\n;()"')
    assert read_avro(content, (0,)).records == [(1,), (2,)]
