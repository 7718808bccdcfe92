"""The digest of rows in order: what must not matter to it, and what must."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from aurum_orchestration.maintenance.checksum import RowChecksum
from aurum_orchestration.maintenance.row_sequence import columns_as_bytes, sequence_checksum
from aurum_orchestration_tests.unit.test_checksum import (
    AGE,
    CELLS,
    CITY,
    KINDS,
    NAME,
    Kind,
    array,
    cut,
    every_kind,
    field,
    of_type,
    one_column,
    person,
    rows_of,
    rule,
    tables,
)


def digest(parts: Sequence[pa.Table], schema: pa.Schema | None = None, as_bytes: frozenset[int] | None = None) -> Any:
    """The checksum of tables one after the other, as a rewrite makes it of what it reads."""
    schema = schema if schema is not None else parts[0].schema
    columns = ([part.column(index) for part in parts] for index in range(len(schema)))
    return sequence_checksum(columns, schema, columns_as_bytes(parts) if as_bytes is None else as_bytes)


# --- what must not matter


@rule
@given(tables(), st.lists(st.integers(0, 100), max_size=3))
def test_how_rows_are_cut_does_not_matter(table: pa.Table, places: list[int]) -> None:
    whole = digest([table])
    assert whole.rows == table.num_rows
    parts = cut(table, places)
    assert digest(parts) == whole
    assert digest([pa.concat_tables(parts)]) == whole


@every_kind
@settings(rule, max_examples=4)
@given(st.data())
def test_a_slice_counts_like_its_copy(kind: Kind, data: Any) -> None:
    values = data.draw(st.lists(st.none() | kind.values, min_size=12, max_size=12))
    for start in (1, 3, 9):
        copy = one_column(kind.type, values[start : start + 3])
        assert digest([one_column(kind.type, values).slice(start, 3)]) == digest([copy])


@rule
@given(st.sampled_from(["string", "binary", "large_string"]), st.data())
def test_a_dictionary_counts_like_its_values(name: str, data: Any) -> None:
    kind = KINDS[name]
    values = data.draw(st.lists(st.none() | kind.values, min_size=1, max_size=12))
    plain = one_column(kind.type, values)
    encoded = pa.table({"c": plain.column(0).dictionary_encode()})
    for as_bytes in (frozenset[int](), frozenset({0})):
        whole = digest([plain], as_bytes=as_bytes)
        assert digest([encoded], plain.schema, as_bytes) == whole
        first, *rest = cut(plain, data.draw(st.lists(st.integers(0, 100), min_size=1, max_size=3)))
        mixed = [first, *(pa.table({"c": part.column(0).dictionary_encode()}) for part in rest)]
        assert digest(mixed, plain.schema, as_bytes) == whole


def test_dictionaries_longer_than_a_block_count_like_their_values() -> None:
    values = [None if number % 7 == 0 else f"value {number % 500}" for number in range(100_000)]
    plain = pa.table({"c": values})
    encoded = pa.table({"c": plain.column(0).dictionary_encode()})
    assert digest([encoded], plain.schema, frozenset()) == digest([plain], as_bytes=frozenset())


@rule
@given(st.lists(st.none() | st.integers(-128, 127), max_size=12), st.lists(st.none() | st.floats(width=32), max_size=9))
def test_promoted_columns_keep_their_digest(numbers: list[Any], floats: list[Any]) -> None:
    wide = one_column(pa.int64(), numbers)
    for kind in (pa.int8(), pa.int16(), pa.int32()):
        assert digest([one_column(kind, numbers)], wide.schema) == digest([wide])
    lists = one_column(pa.list_(pa.int64()), [numbers, None])
    assert digest([one_column(pa.list_(pa.int32()), [numbers, None])], lists.schema) == digest([lists])
    doubles = one_column(pa.float64(), floats)
    assert digest([one_column(pa.float32(), floats)], doubles.schema) == digest([doubles])


@every_kind
@settings(rule, max_examples=2)
@given(st.data())
def test_a_column_that_is_missing_counts_as_nulls(kind: Kind, data: Any) -> None:
    if kind.type == pa.null():
        return
    values = data.draw(st.lists(st.none() | kind.values, min_size=1, max_size=4))
    there, nulls = one_column(kind.type, values), one_column(kind.type, [None] * 3)
    missing = pa.table({"c": pa.nulls(3)})
    as_bytes = columns_as_bytes([missing, there])
    assert digest([missing, there], there.schema, as_bytes) == digest([nulls, there], as_bytes=as_bytes)


@rule
@given(st.lists(st.none() | st.text(max_size=4), min_size=1, max_size=8))
def test_garbage_under_nulls_does_not_matter(values: list[Any]) -> None:
    strings = pa.array(values, pa.string())
    hidden = pa.array(["hidden" if value is None else value for value in values])
    same = pa.Array.from_buffers(pa.string(), len(values), [strings.buffers()[0], *hidden.buffers()[1:]])
    assert digest([pa.table({"c": same})]) == digest([pa.table({"c": strings})])
    valid = pa.array([value is not None for value in values])
    numbers = pa.array(range(len(values)))
    bare = pa.Array.from_buffers(numbers.type, len(values), [valid.buffers()[1], numbers.buffers()[1]])
    clean = pa.array([None if value is None else row for row, value in enumerate(values)], numbers.type)
    assert digest([pa.table({"c": bare})]) == digest([pa.table({"c": clean})])
    inner = pa.StructArray.from_arrays([numbers], ["a"], mask=pa.array([value is None for value in values]))
    empty = pa.array([None if value is None else {"a": row} for row, value in enumerate(values)], inner.type)
    assert digest([pa.table({"c": inner})]) == digest([pa.table({"c": empty})])
    pairs = pa.array([[row, row] for row in range(len(values))])
    full = pa.Array.from_buffers(
        pairs.type, len(values), [valid.buffers()[1], pairs.buffers()[1]], children=[pairs.values]
    )
    assert digest([pa.table({"c": full})]) == digest([pa.table({"c": pa.array(full.to_pylist(), pairs.type)})])


@every_kind
@settings(rule, max_examples=6)
@given(st.data())
def test_what_parquet_gives_back_has_the_digest_of_what_it_was_given(kind: Kind, data: Any) -> None:
    values = data.draw(st.lists(st.none() | kind.values, min_size=1, max_size=8))
    table = one_column(kind.type, values)
    file = io.BytesIO()
    pq.write_table(table, file, store_schema=True, row_group_size=3)
    back = pq.ParquetFile(file).read()
    assert digest([back], table.schema, columns_as_bytes([table])) == digest([table])


def test_evolved_structs_compare_by_field_id() -> None:
    now = of_type(person(CITY, field("years", pa.int64(), 3)), [{"city": None, "years": 30}, None])
    then = of_type(person(NAME, AGE), [{"name": "Ada", "age": 30}, None])
    wrong = of_type(person(CITY, field("years", pa.int64(), 3)), [{"city": None, "years": 31}, None])
    assert digest([then], now.schema) == digest([now])
    assert digest([then], wrong.schema) != digest([wrong])


# --- what must matter


@pytest.mark.parametrize(("kind", "left", "right"), [pytest.param(*rest, id=name) for name, *rest in CELLS])
def test_two_values_differ(kind: pa.DataType, left: Any, right: Any) -> None:
    assert digest([one_column(kind, [left])]) != digest([one_column(kind, [right])])


@every_kind
@settings(rule, max_examples=12)
@given(st.data())
def test_a_changed_cell_changes_the_digest(kind: Kind, data: Any) -> None:
    if kind.type == pa.null():
        return
    values = data.draw(st.lists(st.none() | kind.values, min_size=1, max_size=6))
    row, other = data.draw(st.integers(0, len(values) - 1)), data.draw(st.none() | kind.values)
    before, after = one_column(kind.type, values), one_column(kind.type, [*values[:row], other, *values[row + 1 :]])
    assume(rows_of(before) != rows_of(after))
    assert digest([before]) != digest([after])


@rule
@given(tables(least=2), st.integers(0, 100), st.integers(0, 100))
def test_rows_lost_doubled_or_swapped_change_the_digest(table: pa.Table, first: int, second: int) -> None:
    first, second = first % table.num_rows, second % table.num_rows
    lost = pa.concat_tables([table.slice(0, first), table.slice(first + 1)])
    doubled = pa.concat_tables([table, table.slice(second, 1)])
    assert len({digest([table]), digest([lost]), digest([doubled])}) == 3
    order = np.arange(table.num_rows)
    order[[first, second]] = order[[second, first]]
    swapped = pa.concat_tables([table.slice(row, 1) for row in order])
    same = list(map(repr, table.to_pylist())) == list(map(repr, swapped.to_pylist()))
    assert (digest([swapped]) == digest([table])) == same


@rule
@given(st.data())
def test_cells_swapped_between_columns_change_the_digest(data: Any) -> None:
    kind = data.draw(st.sampled_from([KINDS[name] for name in ("double", "int64", "string", "boolean", "list")]))
    left, right = (data.draw(st.none() | kind.values) for _ in range(2))
    before = pa.table({"a": array(kind.type, [left]), "b": array(kind.type, [right])})
    after = pa.table({"a": array(kind.type, [right]), "b": array(kind.type, [left])})
    assume(rows_of(before) != rows_of(after))
    assert digest([before]) != digest([after])


@pytest.mark.parametrize(
    ("stored", "kind"),
    [(pa.array([1, 2]), pa.float64()), (pa.array(["1", "2"]), pa.int64()), (pa.array([1]), pa.string())],
)
def test_a_value_is_never_taken_for_one_of_another_kind(stored: pa.Array, kind: pa.DataType) -> None:
    schema = pa.schema({"c": kind})
    converted = pa.table([stored.cast(kind)], schema=schema)
    assert digest([pa.table({"c": stored})], schema) != digest([converted])


def test_texts_cut_elsewhere_differ() -> None:
    assert digest([pa.table({"c": ["ab", "c"]})]) != digest([pa.table({"c": ["a", "bc"]})])
    assert digest([pa.table({"c": [["a", "b"], ["c"]]})]) != digest([pa.table({"c": [["a"], ["b", "c"]]})])


def test_no_rows_are_no_rows() -> None:
    empty = pa.table({"a": pa.array([], pa.int64()), "b": pa.chunked_array([], pa.string())})
    assert digest([empty]).rows == 0
    assert RowChecksum() + digest([empty]) == digest([empty])
