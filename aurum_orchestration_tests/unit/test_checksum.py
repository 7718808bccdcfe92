from __future__ import annotations

import io
import itertools
import math
import struct
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from aurum_orchestration.maintenance.checksum import RowChecksum, checksum

rule = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
Strategy = st.SearchStrategy[Any]


@dataclass(frozen=True)
class Kind:
    """An Arrow type and the values that it may hold."""

    type: pa.DataType
    values: Strategy


def integers(bits: int, *, signed: bool = True) -> Strategy:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.integers(low, high), st.sampled_from([0, 1, low, high]))


def decimals(precision: int, scale: int) -> Strategy:
    most = 10**precision - 1
    return st.integers(-most, most).map(lambda number: Decimal(number).scaleb(-scale, _WIDE))


_WIDE = Context(prec=80)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)
_DOUBLES = st.one_of(st.floats(), st.integers(-1000, 1000).map(float), st.sampled_from([0.0, -0.0, 1.5, -1.5]))
_MOMENTS = st.integers(-(2**53), 2**53).map(lambda micros: _EPOCH + timedelta(microseconds=micros))

SIMPLE = {
    "null": Kind(pa.null(), st.none()),
    "boolean": Kind(pa.bool_(), st.booleans()),
    **{f"int{bits}": Kind(getattr(pa, f"int{bits}")(), integers(bits)) for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": Kind(getattr(pa, f"uint{bits}")(), integers(bits, signed=False)) for bits in (8, 16, 32, 64)},
    "half": Kind(pa.float16(), st.floats(width=16)),
    "float": Kind(pa.float32(), st.floats(width=32)),
    "double": Kind(pa.float64(), _DOUBLES),
    "decimal32": Kind(pa.decimal32(9, 2), decimals(9, 2)),
    "decimal64": Kind(pa.decimal64(18, 4), decimals(18, 4)),
    "decimal128": Kind(pa.decimal128(38, 10), decimals(38, 10)),
    "decimal256": Kind(pa.decimal256(60, 10), decimals(60, 10)),
    "date": Kind(pa.date32(), st.dates()),
    "time32": Kind(pa.time32("ms"), st.times().map(lambda at: at.replace(microsecond=at.microsecond // 1000 * 1000))),
    "time64": Kind(pa.time64("us"), st.times()),
    "timestamp": Kind(pa.timestamp("us"), _MOMENTS),
    "timestamp_ns": Kind(pa.timestamp("ns"), _MOMENTS),
    "timestamp_utc": Kind(pa.timestamp("us", "UTC"), _MOMENTS.map(lambda at: at.replace(tzinfo=UTC))),
    "timestamp_zone": Kind(pa.timestamp("ms", "Europe/Berlin"), st.integers(-(2**40), 2**40)),
    "duration": Kind(pa.duration("us"), st.integers(-(2**50), 2**50)),
    "string": Kind(pa.string(), st.text(max_size=20)),
    "large_string": Kind(pa.large_string(), st.text(max_size=20)),
    "string_view": Kind(pa.string_view(), st.text(max_size=20)),
    "binary": Kind(pa.binary(), st.binary(max_size=20)),
    "large_binary": Kind(pa.large_binary(), st.binary(max_size=20)),
    "binary_view": Kind(pa.binary_view(), st.binary(max_size=20)),
    "fixed": Kind(pa.binary(5), st.binary(min_size=5, max_size=5)),
    "uuid": Kind(pa.uuid(), st.uuids().map(lambda one: one.bytes)),
}


def nested(inner: Kind, other: Kind) -> dict[str, Kind]:
    """Lists, maps and structs of two kinds, nulls at each level."""
    maybe_inner, maybe_other = st.none() | inner.values, st.none() | other.values
    fields = {"a": maybe_inner, "b": maybe_other}
    return {
        "list": Kind(pa.list_(inner.type), st.lists(maybe_inner, max_size=4)),
        "large_list": Kind(pa.large_list(inner.type), st.lists(maybe_inner, max_size=4)),
        "fixed_list": Kind(pa.list_(inner.type, 2), st.lists(maybe_inner, min_size=2, max_size=2)),
        "map": Kind(
            pa.map_(pa.string(), other.type), st.lists(st.tuples(st.text(max_size=4), maybe_other), max_size=3)
        ),
        "struct": Kind(pa.struct({"a": inner.type, "b": other.type}), st.fixed_dictionaries(fields)),
    }


_ONCE = nested(SIMPLE["double"], SIMPLE["string"])
_TWICE = {
    f"{outer}_of_{inner}": kind
    for inner in ("list", "map", "struct")
    for outer, kind in nested(_ONCE[inner], SIMPLE["int64"]).items()
}
KINDS = {**SIMPLE, **_ONCE, **_TWICE}
every_kind = pytest.mark.parametrize("kind", [pytest.param(kind, id=name) for name, kind in KINDS.items()])
some_kind = st.sampled_from(list(KINDS.values()))


def array(kind: pa.DataType, values: Sequence[Any]) -> pa.Array:
    if kind == pa.float16():
        mask = np.array([value is None for value in values], bool)
        return pa.array(np.array([0 if value is None else value for value in values], np.float16), kind, mask=mask)
    return pa.array(values, kind)


def one_column(kind: pa.DataType, values: Sequence[Any]) -> pa.Table:
    return pa.table({"c": array(kind, values)})


def columns(draw: Callable[[Strategy], Any], rows: int) -> pa.Table:
    """A table of one to four columns of any kinds."""
    kinds = draw(st.lists(some_kind, min_size=1, max_size=4))
    made = [array(kind.type, draw(st.lists(st.none() | kind.values, min_size=rows, max_size=rows))) for kind in kinds]
    return pa.table(made, names=[str(index) for index in range(len(made))])


@st.composite
def tables(draw: Any, least: int = 0) -> pa.Table:
    return columns(draw, draw(st.integers(least, 12)))


def rows_of(table: pa.Table) -> Counter[str]:
    return Counter(map(repr, table.to_pylist()))


def cut(table: pa.Table, places: Sequence[int]) -> list[pa.Table]:
    edges = [0, *sorted(place % (table.num_rows + 1) for place in places), table.num_rows]
    return [table.slice(start, end - start) for start, end in itertools.pairwise(edges)]


# --- what must not matter


@rule
@given(tables(), st.randoms(use_true_random=False), st.lists(st.integers(0, 100), max_size=3))
def test_order_chunks_and_parts_do_not_matter(table: pa.Table, random: Any, places: list[int]) -> None:
    whole = checksum(table)
    assert whole.rows == table.num_rows
    parts = cut(table, places)
    assert sum(map(checksum, parts), RowChecksum()) == whole  # slices that start anywhere
    assert checksum(pa.concat_tables(parts)) == whole  # chunks
    order = list(range(table.num_rows))
    random.shuffle(order)
    assert checksum(pa.concat_tables([table.slice(row, 1) for row in order]) if order else table) == whole


@every_kind
@settings(rule, max_examples=3)
@given(st.data())
def test_a_slice_counts_like_its_copy(kind: Kind, data: Any) -> None:
    values = data.draw(st.lists(st.none() | kind.values, min_size=12, max_size=12))
    for start in (1, 3, 9):
        assert checksum(one_column(kind.type, values).slice(start, 3)) == checksum(
            one_column(kind.type, values[start : start + 3])
        )


@rule
@given(tables(), st.lists(st.integers(0, 100), max_size=2))
def test_a_record_batch_counts_like_a_table(table: pa.Table, places: list[int]) -> None:
    batches = [batch for part in cut(table, places) for batch in part.to_batches()]
    assert sum(map(checksum, batches), RowChecksum()) == checksum(table)


def test_rows_beyond_a_block_count_and_no_table_is_zero() -> None:
    numbers = np.arange(100_000)
    texts = {"s": numbers.astype(str), "t": np.char.zfill(numbers.astype(str), 9)}
    whole = pa.table({"a": numbers, **texts, "n": pa.array(numbers, mask=numbers % 7 == 0)})
    parts = [whole.slice(start, 9_999) for start in range(0, 100_000, 9_999)]
    assert checksum(whole) == sum(map(checksum, reversed(parts)), RowChecksum())
    assert checksum(whole).rows == 100_000
    assert checksum(whole.slice(0, 0)) == checksum(pa.table({})) == RowChecksum()


@rule
@given(st.sampled_from(["string", "binary", "int32", "int64", "double", "date", "decimal128", "fixed"]), st.data())
def test_a_dictionary_counts_like_its_values(name: str, data: Any) -> None:
    kind = KINDS[name]
    values = data.draw(st.lists(st.none() | kind.values, max_size=12))
    plain = one_column(kind.type, values)
    encoded = pa.table({"c": plain.column(0).dictionary_encode()})
    assert checksum(encoded) == checksum(plain)
    first, *rest = cut(plain, data.draw(st.lists(st.integers(0, 100), min_size=1, max_size=3)))
    chunks = [part.column(0).combine_chunks().dictionary_encode() for part in (first, *rest)]  # each its own dictionary
    assert checksum(pa.table({"c": pa.chunked_array(chunks, pa.dictionary(pa.int32(), kind.type))})) == checksum(plain)
    nulls_as_values = plain.column(0).combine_chunks().dictionary_encode(null_encoding="encode")
    assert checksum(pa.table({"c": nulls_as_values})) == checksum(plain)
    narrow = pa.DictionaryArray.from_arrays(nulls_as_values.indices.cast(pa.int8()), nulls_as_values.dictionary)
    assert checksum(pa.table({"c": narrow.slice(len(narrow) // 2)})) == checksum(plain.slice(len(narrow) // 2))


@rule
@given(
    st.lists(st.none() | st.text(max_size=20), max_size=12),
    st.lists(st.none() | st.lists(integers(32), min_size=2, max_size=2)),
)
def test_how_strings_and_lists_stand_in_memory_does_not_matter(texts: list[Any], pairs: list[Any]) -> None:
    kinds = [pa.string(), pa.large_string(), pa.string_view()]
    assert len({checksum(one_column(kind, texts)) for kind in kinds}) == 1
    raw = [None if text is None else text.encode() for text in texts]
    kinds = [pa.binary(), pa.large_binary(), pa.binary_view()]
    assert {checksum(one_column(kind, raw)) for kind in kinds} == {checksum(one_column(pa.string(), texts))}
    kinds = [pa.list_(pa.int32()), pa.large_list(pa.int32()), pa.list_(pa.int32(), 2)]
    assert len({checksum(one_column(kind, pairs)) for kind in kinds}) == 1


@rule
@given(st.lists(st.none() | integers(8), max_size=12), st.lists(st.none() | st.floats(width=32), max_size=12))
def test_promoted_columns_keep_their_checksum(numbers: list[Any], floats: list[Any]) -> None:
    kinds = [pa.int8(), pa.int16(), pa.int32(), pa.int64()]
    assert len({checksum(one_column(kind, numbers)) for kind in kinds}) == 1
    assert len({checksum(one_column(pa.list_(kind), [numbers, None])) for kind in kinds}) == 1
    assert checksum(one_column(pa.float32(), floats)) == checksum(one_column(pa.float64(), floats))
    amounts = [None if number is None else Decimal(number).scaleb(-2) for number in numbers]
    kinds = [pa.decimal32(9, 2), pa.decimal64(9, 2), pa.decimal128(9, 2), pa.decimal128(38, 2)]
    assert len({checksum(one_column(kind, amounts)) for kind in kinds}) == 1


@every_kind
def test_all_null_counts_alike_in_every_type(kind: Kind) -> None:
    column = pa.nulls(5, kind.type)
    assert checksum(pa.table({"c": column})) == checksum(pa.table({"c": pa.nulls(5)}))
    assert checksum(pa.table({"c": column.slice(1, 3)})) == checksum(pa.table({"c": pa.nulls(3)}))
    assert checksum(pa.table({"c": pa.array([], kind.type)})) == RowChecksum()
    assert checksum(pa.table({"c": pa.chunked_array([], kind.type)})) == RowChecksum()


@rule
@given(st.lists(st.none() | st.text(max_size=4), min_size=1, max_size=8))
def test_garbage_under_nulls_does_not_matter(values: list[Any]) -> None:
    strings = pa.array(values, pa.string())
    hidden = pa.array(["hidden" if value is None else value for value in values])
    same = pa.Array.from_buffers(pa.string(), len(values), [strings.buffers()[0], *hidden.buffers()[1:]])
    assert checksum(pa.table({"c": same})) == checksum(pa.table({"c": strings}))
    mask = pa.array([value is None for value in values])
    inner = pa.StructArray.from_arrays([pa.array(range(len(values)))], ["a"], mask=mask)
    clean = pa.array([None if value is None else {"a": row} for row, value in enumerate(values)], inner.type)
    assert checksum(pa.table({"c": inner})) == checksum(pa.table({"c": clean}))


@every_kind
@settings(rule, max_examples=6)
@given(st.data())
def test_what_parquet_gives_back_has_the_checksum_of_what_it_was_given(kind: Kind, data: Any) -> None:
    values = data.draw(st.lists(st.none() | kind.values, min_size=1, max_size=8))
    table = one_column(kind.type, values)
    file = io.BytesIO()
    pq.write_table(table, file, store_schema=True, row_group_size=3)
    back = pq.ParquetFile(file).read()
    assert checksum(back) == checksum(table)


# --- what must matter


CELLS = [
    ("zero and negative zero", pa.float64(), 0.0, -0.0),
    ("zero and negative zero in float", pa.float32(), 0.0, -0.0),
    ("zero and null", pa.int64(), 0, None),
    ("false and null", pa.bool_(), False, None),
    ("empty text and null", pa.string(), "", None),
    ("zero bytes of different lengths", pa.binary(), b"\0", b"\0\0"),
    ("zero byte and none", pa.binary(), b"", b"\0"),
    ("eight and nine bytes", pa.binary(), b"12345678", b"12345678\0"),
    ("null list and empty list", pa.list_(pa.int32()), None, []),
    ("empty list and list of null", pa.list_(pa.int32()), [], [None]),
    ("null list and list of null", pa.list_(pa.int32()), None, [None]),
    ("list of null and of two nulls", pa.list_(pa.int32()), [None], [None, None]),
    ("list of null and of zero", pa.list_(pa.int32()), [None], [0]),
    ("order in a list", pa.list_(pa.int32()), [1, 2], [2, 1]),
    ("two lists in a list", pa.list_(pa.list_(pa.int32())), [[1], [2]], [[1, 2], []]),
    ("signs in a list", pa.list_(pa.float64()), [1.0, 2.0], [-1.0, -2.0]),
    ("null struct and struct of nulls", pa.struct({"a": pa.int32()}), None, {"a": None}),
    ("fields of a struct", pa.struct({"a": pa.int32(), "b": pa.int32()}), {"a": 1, "b": 2}, {"a": 2, "b": 1}),
    ("signs in a struct", pa.struct({"a": pa.float64(), "b": pa.float64()}), {"a": 1, "b": 2}, {"a": -1, "b": -2}),
    ("null map and empty map", pa.map_(pa.string(), pa.int32()), None, []),
    ("key of a null and no key", pa.map_(pa.string(), pa.int32()), [("a", None)], []),
    ("keys of a map", pa.map_(pa.string(), pa.string()), [("a", "b")], [("b", "a")]),
    ("smallest steps of a double", pa.float64(), 1.0, math.nextafter(1.0, 2.0)),
    ("infinity and NaN", pa.float64(), math.inf, math.nan),
    ("scale of a decimal", pa.decimal128(9, 2), Decimal("1.00"), Decimal("10.00")),
    ("microsecond", pa.timestamp("us"), _EPOCH, _EPOCH + timedelta(microseconds=1)),
    ("last bit of a uuid", pa.uuid(), uuid.UUID(int=2).bytes, uuid.UUID(int=3).bytes),
    ("normal forms of a text", pa.string(), "\u00e9", "e\u0301"),
]


@pytest.mark.parametrize(("kind", "left", "right"), [pytest.param(*rest, id=name) for name, *rest in CELLS])
def test_two_values_differ(kind: pa.DataType, left: Any, right: Any) -> None:
    assert checksum(one_column(kind, [left])) != checksum(one_column(kind, [right]))


def test_payloads_of_nan_differ() -> None:
    bits = [0x7FF8000000000000, 0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000001]
    one_by_one = [pa.table({"c": pa.array(struct.unpack("<d", struct.pack("<Q", each)))}) for each in bits]
    assert len({checksum(one) for one in one_by_one}) == len(bits)
    assert checksum(one_by_one[0]) == checksum(pa.table({"c": [math.nan]}))


@every_kind
@settings(rule, max_examples=12)
@given(st.data())
def test_a_changed_cell_changes_the_checksum(kind: Kind, data: Any) -> None:
    if kind.type == pa.null():
        return
    values = data.draw(st.lists(st.none() | kind.values, min_size=1, max_size=6))
    row, other = data.draw(st.integers(0, len(values) - 1)), data.draw(st.none() | kind.values)
    before, after = one_column(kind.type, values), one_column(kind.type, [*values[:row], other, *values[row + 1 :]])
    assume(rows_of(before) != rows_of(after))
    assert checksum(before) != checksum(after)


_ALIKE = [
    KINDS[name]
    for name in ("double", "int64", "int32", "string", "timestamp", "boolean", "list", "struct", "decimal128")
]


@rule
@given(st.sampled_from(_ALIKE), st.data())
def test_cells_swapped_between_columns_change_the_checksum(kind: Kind, data: Any) -> None:
    left, right = (data.draw(st.none() | kind.values) for _ in range(2))
    before = pa.table({"a": array(kind.type, [left]), "b": array(kind.type, [right])})
    after = pa.table({"a": array(kind.type, [right]), "b": array(kind.type, [left])})
    assume(rows_of(before) != rows_of(after))
    assert checksum(before) != checksum(after)


@rule
@given(st.sampled_from(_ALIKE), st.sampled_from(_ALIKE), st.data())
def test_cells_swapped_between_rows_change_the_checksum(kind: Kind, other: Kind, data: Any) -> None:
    values = [data.draw(st.none() | kind.values) for _ in range(2)]
    beside = array(other.type, [data.draw(st.none() | other.values) for _ in range(2)])
    before = pa.table({"a": array(kind.type, values), "b": beside})
    after = pa.table({"a": array(kind.type, values[::-1]), "b": beside})
    assume(rows_of(before) != rows_of(after))
    assert checksum(before) != checksum(after)


@rule
@given(tables(least=1), st.integers(0, 100), st.integers(0, 100))
def test_a_row_lost_or_doubled_or_both_changes_the_checksum(table: pa.Table, first: int, second: int) -> None:
    first, second = first % table.num_rows, second % table.num_rows
    lost = pa.concat_tables([table.slice(0, first), table.slice(first + 1)])
    doubled = pa.concat_tables([table, table.slice(second, 1)])
    both = pa.concat_tables([lost, table.slice(second, 1)])
    assert len({checksum(table), checksum(lost), checksum(doubled)}) == 3
    assert (checksum(both) == checksum(table)) == (rows_of(both) == rows_of(table))


@rule
@example(left=[1.0, 2.0], signs=[-1, -1])
@example(left=[0.0, 0.0], signs=[-1, -1])
@given(
    st.lists(st.floats(allow_nan=False), min_size=2, max_size=6),
    st.lists(st.sampled_from([1, -1]), min_size=6, max_size=6),
)
def test_signs_that_flip_together_do_not_cancel_out(left: list[float], signs: list[int]) -> None:
    right = [value * sign for value, sign in zip(left, signs, strict=False)]
    before = pa.table([pa.array([value]) for value in left], names=list(map(str, range(len(left)))))
    after = pa.table([pa.array([value]) for value in right], names=before.column_names)
    assume(rows_of(before) != rows_of(after))
    assert checksum(before) != checksum(after)


def test_many_alike_rows_have_different_numbers() -> None:
    """Numbers with few bits set, as in real columns, leave no structure that two changes could cancel in."""
    whole = np.arange(256)
    for kind in (
        whole.astype(float),
        whole << 40,
        -whole.astype(np.float32),
        whole.astype("datetime64[D]").astype("datetime64[us]"),
    ):
        left, right = np.repeat(kind, 256), np.tile(kind, 256)
        table = pa.table({"a": left, "b": right})
        sums = {checksum(table.slice(row, 1)).value for row in range(0, table.num_rows, 64)}
        assert len(sums) == table.num_rows // 64


# --- against a schema: fields of structs by field id


def field(name: str, kind: pa.DataType, identity: int) -> pa.Field:
    return pa.field(name, kind, metadata={"PARQUET:field_id": str(identity)})


def person(*fields: pa.Field) -> pa.DataType:
    return pa.struct(list(fields))


NAME, AGE, CITY = field("name", pa.string(), 2), field("age", pa.int32(), 3), field("city", pa.string(), 4)


def of_type(kind: pa.DataType, values: Sequence[Any]) -> pa.Table:
    return pa.table([pa.array(values, kind)], schema=pa.schema([field("c", kind, 1)]))


_WRAPPED: list[tuple[Callable[[pa.DataType], pa.DataType], Callable[[Any], Any]]] = [
    (lambda kind: kind, lambda value: value),
    (lambda kind: pa.list_(field("element", kind, 9)), lambda value: [value, None]),
    (lambda kind: pa.map_(pa.string(), field("value", kind, 9)), lambda value: [("k", value)]),
    (lambda kind: person(field("inner", kind, 9)), lambda value: {"inner": value}),
]


@pytest.mark.parametrize(("kind_of", "value_of"), _WRAPPED, ids=["struct", "list", "map", "struct in struct"])
def test_evolved_structs_compare_by_field_id(
    kind_of: Callable[[pa.DataType], pa.DataType], value_of: Callable[[Any], Any]
) -> None:
    def table(kind: pa.DataType, *values: Any) -> pa.Table:
        return of_type(kind_of(kind), [value_of(value) for value in values])

    now = table(
        person(CITY, field("years", pa.int64(), 3)), {"city": None, "years": 30}, {"city": None, "years": None}, None
    )
    then = table(person(NAME, AGE), {"name": "Ada", "age": 30}, {"name": "Bob", "age": None}, None)
    assert checksum(then, now.schema) == checksum(now, now.schema)  # one dropped, one added, one promoted and renamed
    assert checksum(then) != checksum(now)
    wrong = table(
        person(CITY, field("years", pa.int64(), 3)), {"city": None, "years": 31}, {"city": None, "years": None}, None
    )
    assert checksum(then, now.schema) != checksum(wrong, now.schema)
    renewed = table(
        person(field("name", pa.string(), 8), AGE), {"name": None, "age": 30}, {"name": None, "age": None}, None
    )
    assert checksum(then, renewed.schema) == checksum(renewed, renewed.schema)  # the name belongs to a new field


@rule
@given(tables())
def test_a_schema_without_ids_in_its_structs_changes_nothing_else(table: pa.Table) -> None:
    flat = table.select([index for index, kind in enumerate(table.schema.types) if not pa.types.is_nested(kind)])
    assert checksum(flat, flat.schema) == checksum(flat)
