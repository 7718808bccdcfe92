"""Reading files that repeat each other's records gives the same records as reading each whole."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum_orchestration.maintenance.backends.iceberg.avro import AvroError, SuccessiveFiles, read_avro

SCHEMA = {
    "type": "record",
    "name": "r",
    "fields": [
        {"name": "path", "type": "string", "field-id": 500},
        {"name": "size", "type": "long", "field-id": 501},
        {"name": "note", "type": ["null", "string"], "field-id": 9},
    ],
}
RECORDS = st.lists(
    st.fixed_dictionaries(
        {"path": st.text(max_size=3), "size": st.integers(0, 300), "note": st.none() | st.text(max_size=2)}
    ),
    max_size=6,
)


def avro(records: Sequence[dict[str, Any]], *, block: int = 16_000, codec: str = "deflate") -> bytes:
    stream = io.BytesIO()
    fastavro.writer(stream, SCHEMA, records, codec=codec, sync_interval=block)
    return stream.getvalue()


@given(st.lists(st.tuples(st.booleans(), RECORDS), max_size=6), st.sampled_from([1, 16_000]))
def test_the_union_of_new_records_is_the_union_of_all(steps: list[tuple[bool, Any]], block: int) -> None:
    files: list[list[dict[str, Any]]] = []
    for grows, records in steps:
        files.append([*records, *(files[-1] if grows and files else [])])
    contents = [avro(records, block=block) for records in files]
    reader = SuccessiveFiles((500, 501))
    told: set[Any] = set()
    whole: set[Any] = set()
    for content in contents:
        told.update(reader.new_records(content))
        whole.update(read_avro(content, (500, 501)).records)
        assert told == whole


def test_of_a_file_that_grows_at_its_head_only_the_new_records_come() -> None:
    old = [{"path": f"p{number}", "size": number, "note": None} for number in range(100)]
    reader = SuccessiveFiles((500,))
    assert len(reader.new_records(avro(old))) == 100
    assert reader.new_records(avro([{"path": "new", "size": 1, "note": "x"}, *old])) == [(b"new",)]
    assert len(reader.new_records(avro([*old, {"path": "new", "size": 1, "note": "x"}]))) == 101


def test_an_equal_end_by_chance_does_not_matter() -> None:
    # three zero bytes are the whole of the first file's record and the end of the second's
    reader = SuccessiveFiles((500, 501))
    assert reader.new_records(avro([{"path": "", "size": 0, "note": None}])) == [(b"", 0)]
    longer = {"path": "a\0", "size": 0, "note": None}
    assert reader.new_records(avro([longer])) == [(b"a\0", 0)]


@pytest.mark.parametrize(
    "content", [b"", b"Obj\x01", b"no Avro file", avro([{"path": "p", "size": 1, "note": None}])[:-3]]
)
def test_what_is_no_avro_file_is_an_error(content: bytes) -> None:
    with pytest.raises(AvroError):
        SuccessiveFiles((500,)).new_records(content)
