"""Healthy row groups are copied byte for byte, all others decoded; every reader reads the result; faults are seen."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aurum_orchestration.errors import CorruptTableError, VerificationError
from aurum_orchestration.maintenance.backends.iceberg.compact.copy import CopyingRewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.footer import (
    Chunk,
    ColumnMeta,
    Element,
    FileMeta,
    Group,
    chunk_span,
    elements,
    meta,
    value,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.healthy import Template, healthy_groups
from aurum_orchestration.maintenance.backends.iceberg.compact.thrift_tree import (
    I32,
    I64,
    LIST,
    STRING,
    STRUCT,
    Struct,
    read_struct,
)
from aurum_orchestration.maintenance.interfaces import RunContext
from aurum_orchestration.maintenance.planner.binpack import SMALL_SHARE, pack
from aurum_orchestration_tests.integration.iceberg.copying import (
    ARROW,
    HEALTHY,
    MIB,
    WITHOUT_MAPS,
    bag,
    by_duckdb,
    by_polars,
    by_pyarrow,
    columns_of,
    footer_of,
    options,
    outputs,
    read_duckdb,
    read_polars,
    read_pyarrow,
    rewrite_of,
    rewritten,
    rows,
    with_footer,
)

Change = Callable[[Struct], None]


def chunks_by_digest(paths: list[Path]) -> Counter[str]:
    """Digests of the bytes of all column chunks."""
    found: Counter[str] = Counter()
    for path in paths:
        data = path.read_bytes()
        for group in footer_of(path).groups:
            for chunk in elements(group, Group.COLUMNS):
                span = chunk_span(chunk)
                found[hashlib.sha256(data[span.start : span.end]).hexdigest()] += 1
    return found


def copied(rewrite: CopyingRewrite) -> float:
    return rewrite.metrics()["row_groups_copied"]


@pytest.fixture
def healthy(tmp_path: Path) -> Path:
    path = tmp_path / "healthy.parquet"
    by_pyarrow(path, rows(0, 150))
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.parquet"
    by_pyarrow(path, rows(1000, 20))
    return path


# --- what comes out


def test_the_files_of_several_writers_become_one_that_every_reader_reads(tmp_path: Path) -> None:
    sources = []
    for number, write in enumerate([by_pyarrow, by_duckdb, by_pyarrow, by_duckdb]):
        for kind, count in (("large", 150), ("small", 9)):
            sources.append(tmp_path / f"{kind}-{number}.parquet")
            write(sources[-1], rows(number * 1000 + count, count))
    before = read_pyarrow(sources)
    rewrite = rewritten(tmp_path, sources)
    out = outputs(rewrite)
    assert (copied(rewrite), len(out), len(footer_of(out[0]).groups)) == (4, 1, 5)
    assert read_pyarrow(out) == read_duckdb(out) == read_polars(out) == before
    assert pq.ParquetFile(out[0]).schema.equals(pq.ParquetFile(sources[0]).schema)


def test_files_of_polars_are_copied_too(tmp_path: Path, small: Path) -> None:
    sources = [tmp_path / "polars.parquet", tmp_path / "pyarrow.parquet"]
    by_polars(sources[0], rows(0, 150))
    by_pyarrow(sources[1], rows(200, 150).select(WITHOUT_MAPS.names))
    before = read_pyarrow(sources)
    rewrite = rewritten(tmp_path, sources, WITHOUT_MAPS)
    assert copied(rewrite) == 2
    assert read_pyarrow(outputs(rewrite)) == read_duckdb(outputs(rewrite)) == read_polars(outputs(rewrite)) == before


def test_every_chunk_of_a_healthy_row_group_is_in_the_result_byte_for_byte(tmp_path: Path, small: Path) -> None:
    sources = [tmp_path / "a.parquet", tmp_path / "b.parquet"]
    by_pyarrow(sources[0], rows(0, 450), row_group_size=150)
    by_duckdb(sources[1], rows(500, 120))
    rewrite = rewritten(tmp_path, [*sources, small])
    assert not chunks_by_digest(sources) - chunks_by_digest(outputs(rewrite))
    assert rewrite.metrics()["bytes_copied"] >= sum(
        chunk_span(chunk).length
        for path in sources
        for group in footer_of(path).groups
        for chunk in elements(group, Group.COLUMNS)
    )


def test_only_the_small_row_groups_of_a_file_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "mixed.parquet"
    by_pyarrow(path, rows(0, 2 * HEALTHY + 30), row_group_size=HEALTHY)
    other = tmp_path / "other.parquet"
    by_pyarrow(other, rows(5000, 30))
    rewrite = rewritten(tmp_path, [path, other])
    groups = footer_of(outputs(rewrite)[0]).groups
    assert [value(group, Group.NUM_ROWS) for group in groups] == [HEALTHY, HEALTHY, 60]
    assert read_pyarrow(outputs(rewrite)) == read_pyarrow([path, other])


def test_small_row_groups_between_healthy_ones_do_not_stay_small(tmp_path: Path) -> None:
    sources = []
    for number in range(4):
        for kind, count in (("large", 150), ("small", 10)):
            sources.append(tmp_path / f"{kind}-{number}.parquet")
            by_pyarrow(sources[-1], rows(number * 1000 + count, count))
    groups = footer_of(outputs(rewritten(tmp_path, sources))[0]).groups
    assert sorted(value(group, Group.NUM_ROWS) for group in groups) == [40, 150, 150, 150, 150]


def test_statistics_sizes_and_sort_order_are_carried_over(tmp_path: Path, small: Path) -> None:
    path = tmp_path / "sorted.parquet"
    by_pyarrow(path, rows(0, 150), sorting_columns=[pq.SortingColumn(0)])
    out = footer_of(outputs(rewritten(tmp_path, [path, small]))[0]).tree
    before, after = columns_of(footer_of(path).tree), columns_of(out)
    kept = {1, 2, ColumnMeta.CODEC, ColumnMeta.NUM_VALUES, 6, ColumnMeta.COMPRESSED_BYTES, 12, 13, 16}
    for old, new in zip(before, after, strict=True):
        assert {key: meta(old)[key] for key in kept & set(meta(old))} == {
            key: meta(new)[key] for key in kept & set(meta(new))
        }
    assert elements(out, FileMeta.ROW_GROUPS)[0][4] == elements(footer_of(path).tree, FileMeta.ROW_GROUPS)[0][4]


# --- page indexes and bloom filters


def test_the_page_index_points_at_the_pages_in_their_new_places(tmp_path: Path, small: Path) -> None:
    path = tmp_path / "indexed.parquet"
    by_pyarrow(path, rows(0, 400), write_page_index=True, max_rows_per_page=50, use_dictionary=["name"])
    before = tmp_path / "before.parquet"
    by_duckdb(before, rows(2000, 150))
    [out] = outputs(rewritten(tmp_path, [before, small, path]))
    data, source = out.read_bytes(), path.read_bytes()
    old_chunks, new_chunks = columns_of(footer_of(path).tree), columns_of(footer_of(out).tree, 1)
    for old, new in zip(old_chunks, new_chunks, strict=True):
        begin, length = value(new, Chunk.COLUMN_INDEX), value(new, Chunk.COLUMN_INDEX_BYTES)
        old_begin = value(old, Chunk.COLUMN_INDEX)
        assert data[begin : begin + length] == source[old_begin : old_begin + length]
        index, used = read_struct(data[value(new, Chunk.OFFSET_INDEX) :][: value(new, Chunk.OFFSET_INDEX_BYTES)])
        assert used == value(new, Chunk.OFFSET_INDEX_BYTES)
        pages = elements(index, 1)
        assert len(pages) == 8
        for page in pages:
            header, size = read_struct(data[page[1][1] : page[1][1] + 200])
            assert size + value(header, 3) == page[2][1]  # PageHeader.compressed_page_size
    assert pq.read_metadata(out).row_group(1).column(0).has_offset_index


def test_an_offset_index_that_names_pages_elsewhere_is_left_out(tmp_path: Path, small: Path) -> None:
    path = tmp_path / "indexed.parquet"
    by_pyarrow(path, rows(0, 150), write_page_index=True)

    def point_elsewhere(tree: Struct) -> None:
        first, second = columns_of(tree)[:2]
        first[Chunk.OFFSET_INDEX], first[Chunk.OFFSET_INDEX_BYTES] = (
            second[Chunk.OFFSET_INDEX],
            second[Chunk.OFFSET_INDEX_BYTES],
        )

    with_footer(path, point_elsewhere)
    [out] = outputs(rewritten(tmp_path, [path, small]))
    first, second = columns_of(footer_of(out).tree)[:2]
    assert Chunk.OFFSET_INDEX not in first
    assert Chunk.COLUMN_INDEX not in first
    assert Chunk.OFFSET_INDEX in second


@pytest.mark.parametrize("length_known", [True, False])
def test_a_bloom_filter_answers_as_before(tmp_path: Path, small: Path, length_known: bool) -> None:
    path = tmp_path / "bloom.parquet"
    by_pyarrow(path, rows(0, 150), bloom_filter_options={"id": {"ndv": 150, "fpp": 0.01}}, use_dictionary=False)
    if not length_known:

        def forget(tree: Struct) -> None:
            for chunk in columns_of(tree):
                meta(chunk).pop(ColumnMeta.BLOOM_BYTES, None)

        with_footer(path, forget)
    first = tmp_path / "first.parquet"
    by_pyarrow(first, rows(2000, 150))
    [out] = outputs(rewritten(tmp_path, [first, path, small]))
    with duckdb.connect() as connection:

        def excluded(file: Path, number: int) -> list[bool]:
            found = connection.sql(
                f"select bloom_filter_excludes from parquet_bloom_probe('{file}', 'id', {number}) order by row_group_id"
            )
            return [row[0] for row in found.fetchall()]

        numbers = [*range(0, 150, 30), *range(150, 400, 20)]
        before = [excluded(path, number)[0] for number in numbers]
        after = [excluded(out, number)[1] for number in numbers]
        assert after == before
        assert not any(after[:5])
        assert any(after[5:])
        assert excluded(out, 390) == [False, True, False]


def test_without_the_bloom_filter_that_the_table_wants_a_row_group_is_decoded(tmp_path: Path, healthy: Path) -> None:
    wanting = rewritten(tmp_path, [healthy], bloom={"id": 0.01})
    assert copied(wanting) == 0
    assert ColumnMeta.BLOOM in meta(columns_of(footer_of(outputs(wanting)[0]).tree)[0])
    filtered = tmp_path / "filtered.parquet"
    by_pyarrow(filtered, rows(0, 150), bloom_filter_options={"id": {"ndv": 150, "fpp": 0.01}}, use_dictionary=False)
    assert copied(rewritten(tmp_path, [filtered], bloom={"id": 0.01})) == 1


# --- ways of writing the same


def renamed(tree: Struct, name: bytes, other: bytes) -> None:
    for element in elements(tree, FileMeta.SCHEMA):
        if value(element, Element.NAME) == name:
            element[Element.NAME] = STRING, other
    for chunk in columns_of(tree):
        path = [other if part == name else part for part in elements(meta(chunk), ColumnMeta.PATH)]
        meta(chunk)[ColumnMeta.PATH] = LIST, (STRING, path)


@pytest.mark.parametrize(("name", "other"), [(b"id", b"identity"), (b"list", b"bag"), (b"element", b"array_element")])
def test_names_are_the_tables_whatever_the_file_called_the_field(
    tmp_path: Path, healthy: Path, small: Path, name: bytes, other: bytes
) -> None:
    before = read_pyarrow([healthy, small])
    with_footer(healthy, lambda tree: renamed(tree, name, other))
    rewrite = rewritten(tmp_path, [healthy, small])
    assert copied(rewrite) == 1
    assert read_pyarrow(outputs(rewrite)) == read_duckdb(outputs(rewrite)) == read_polars(outputs(rewrite)) == before


def test_a_dictionary_offset_of_zero_means_none(tmp_path: Path, small: Path) -> None:
    path = tmp_path / "plain.parquet"
    by_pyarrow(path, rows(0, 150), use_dictionary=False)

    def zero(tree: Struct) -> None:
        for chunk in columns_of(tree):
            assert ColumnMeta.DICTIONARY_PAGE not in meta(chunk)
            meta(chunk)[ColumnMeta.DICTIONARY_PAGE] = I64, 0

    with_footer(path, zero)
    rewrite = rewritten(tmp_path, [small, path])
    assert copied(rewrite) == 1
    assert all(
        ColumnMeta.DICTIONARY_PAGE not in meta(chunk) for chunk in columns_of(footer_of(outputs(rewrite)[0]).tree)
    )
    assert read_duckdb(outputs(rewrite)) == bag(rows(0, 150)) + bag(rows(1000, 20))


# --- what is not copied


def change_column(field: int, given: Any, chunk: bool = False) -> Change:
    def change(tree: Struct) -> None:
        first = columns_of(tree)[0]
        (first if chunk else meta(first))[field] = given

    return change


def change_schema(name: bytes, field: int, given: Any) -> Change:
    def change(tree: Struct) -> None:
        for element in elements(tree, FileMeta.SCHEMA):
            if value(element, Element.NAME) == name:
                if given is None:
                    element.pop(field, None)
                else:
                    element[field] = given

    return change


def set_top(field: int, given: Any) -> Change:
    def change(tree: Struct) -> None:
        if given is None:
            tree.pop(field)
        else:
            tree[field] = given

    return change


READABLE = {
    "a field of a column that nobody knows": change_column(90, (I64, 4)),
    "a field of a chunk that nobody knows": change_column(90, (I64, 4), chunk=True),
    "a field of a row group that nobody knows": lambda tree: elements(tree, FileMeta.ROW_GROUPS)[0].update(
        {90: (I64, 4)}
    ),
    "an index page": change_column(ColumnMeta.INDEX_PAGE, (I64, 4)),
    "no order of columns": set_top(FileMeta.COLUMN_ORDERS, None),
    "no writer": set_top(FileMeta.CREATED_BY, None),
    "an untrusted writer": set_top(FileMeta.CREATED_BY, (STRING, b"parquet-mr version 1.8.1 (build x)")),
}


@pytest.mark.parametrize("change", READABLE.values(), ids=READABLE)
def test_what_is_not_known_to_be_right_is_decoded(tmp_path: Path, healthy: Path, small: Path, change: Change) -> None:
    assert copied(rewritten(tmp_path, [healthy, small])) == 1
    before = read_pyarrow([healthy, small])
    with_footer(healthy, change)
    rewrite = rewritten(tmp_path, [healthy, small])
    assert copied(rewrite) == 0
    assert read_pyarrow(outputs(rewrite)) == before


UNFIT: dict[str, Change] = {
    "no field id": change_schema(b"id", Element.FIELD_ID, None),
    "another field id": change_schema(b"id", Element.FIELD_ID, (I32, 99)),
    "a field id inside": change_schema(b"city", Element.FIELD_ID, (I32, 99)),
    "required": change_schema(b"id", Element.REPETITION, (I32, 0)),
    "another annotation": change_schema(b"name", Element.LOGICAL, (STRUCT, {12: (STRUCT, {})})),
    "another unit": change_schema(
        b"moment",
        Element.LOGICAL,
        (STRUCT, {8: (STRUCT, {1: (2, False), 2: (STRUCT, {1: (STRUCT, {})})})}),
    ),
    "local time": change_schema(
        b"moment_utc",
        Element.LOGICAL,
        (STRUCT, {8: (STRUCT, {1: (2, False), 2: (STRUCT, {2: (STRUCT, {})})})}),
    ),
    "another scale": change_schema(b"amount", Element.LOGICAL, (STRUCT, {5: (STRUCT, {1: (I32, 3), 2: (I32, 12)})})),
    "a file elsewhere": change_column(Chunk.FILE_PATH, (STRING, b"other"), chunk=True),
    "encrypted columns": change_column(Chunk.CRYPTO, (STRUCT, {}), chunk=True),
    "encryption": set_top(FileMeta.ENCRYPTION, (STRUCT, {1: (STRUCT, {})})),
    "another codec": change_column(ColumnMeta.CODEC, (I32, 1)),
    "fewer values than rows": change_column(ColumnMeta.NUM_VALUES, (I64, 149)),
    "a chunk behind the footer": change_column(ColumnMeta.COMPRESSED_BYTES, (I64, 2**40)),
    "a chunk over another": change_column(ColumnMeta.COMPRESSED_BYTES, (I64, 3000)),
    "a chunk before the data": change_column(ColumnMeta.DICTIONARY_PAGE, (I64, 1)),
    "a negative length": change_column(ColumnMeta.COMPRESSED_BYTES, (I64, -5)),
    "no place": lambda tree: meta(columns_of(tree)[0]).pop(ColumnMeta.DATA_PAGE) and None,
}


@pytest.mark.parametrize("change", UNFIT.values(), ids=UNFIT)
def test_what_does_not_fit_the_table_is_not_healthy(healthy: Path, change: Change) -> None:
    template = Template.of(ARROW)
    assert healthy_groups(footer_of(healthy), template, options()) == [0]
    with_footer(healthy, change)
    assert healthy_groups(footer_of(healthy), template, options()) == []


def test_another_codec_is_brought_to_the_tables(tmp_path: Path, small: Path) -> None:
    path = tmp_path / "snappy.parquet"
    by_pyarrow(path, rows(0, 150), compression="snappy")
    rewrite = rewritten(tmp_path, [path, small])
    assert copied(rewrite) == 0
    codecs = {meta(chunk)[ColumnMeta.CODEC][1] for chunk in columns_of(footer_of(outputs(rewrite)[0]).tree)}
    assert codecs == {6}


def test_the_file_of_an_older_schema_is_decoded(tmp_path: Path, healthy: Path) -> None:
    older = tmp_path / "older.parquet"
    by_pyarrow(older, rows(500, 150).drop_columns(["price"]))
    rewrite = rewritten(tmp_path, [older, healthy])
    assert copied(rewrite) == 1
    out = pq.ParquetFile(outputs(rewrite)[0]).read()
    assert (out.num_rows, out.column("price").null_count) == (300, 150)


# --- faults


def test_bytes_that_changed_on_storage_fail_the_verification(tmp_path: Path, small: Path) -> None:
    path = tmp_path / "indexed.parquet"
    by_pyarrow(path, rows(0, 150), write_page_index=True, bloom_filter_options={"id": True}, use_dictionary=False)
    rewrite = rewritten(tmp_path, [path, small])
    [out] = outputs(rewrite)
    whole = out.read_bytes()
    footer = footer_of(out)
    group = footer.groups[0]
    assert copied(rewrite) == 1
    chunks = elements(group, Group.COLUMNS)
    places = [place for chunk in chunks for span in [chunk_span(chunk)] for place in (span.start, span.end - 1)]
    places += [value(chunks[0], Chunk.COLUMN_INDEX), value(chunks[0], Chunk.OFFSET_INDEX) + 2]
    places += [value(meta(chunks[0]), ColumnMeta.BLOOM) + 40]
    for place in places:
        out.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            equal = rewrite.read_back(RunContext("operation")) == rewrite.before
        except VerificationError:
            equal = False
        assert not equal, place
    out.write_bytes(whole)
    assert rewrite.read_back(RunContext("operation")) == rewrite.before


def test_another_footer_than_was_written_fails_the_verification(tmp_path: Path, healthy: Path, small: Path) -> None:
    rewrite = rewritten(tmp_path, [healthy, small])
    [out] = outputs(rewrite)
    whole = out.read_bytes()
    for change in (
        change_column(ColumnMeta.STATISTICS, (STRUCT, {3: (I64, 1)})),
        lambda tree: elements(tree, FileMeta.ROW_GROUPS)[0].update({Group.NUM_ROWS: (I64, 151)}),
    ):
        with_footer(out, change)
        rewrite.files[0].bytes = out.stat().st_size
        with pytest.raises(VerificationError, match="footer"):
            rewrite.read_back(RunContext("operation"))
        out.write_bytes(whole)
    out.write_bytes(whole[:-9] + b"\x15" + whole[-8:])
    rewrite.files[0].bytes = len(whole)
    with pytest.raises(VerificationError):
        rewrite.read_back(RunContext("operation"))


def test_columns_in_each_others_place_fail_the_verification(tmp_path: Path) -> None:
    path, other = tmp_path / "a.parquet", tmp_path / "b.parquet"
    by_pyarrow(path, rows(0, 150))
    by_pyarrow(other, rows(300, 150))
    rewrite = rewritten(tmp_path, [path, other])
    [file] = rewrite.files
    [out] = outputs(rewrite)
    tree = footer_of(out).tree
    first, second = columns_of(tree)[0], columns_of(tree, 1)[0]
    first[Chunk.META], second[Chunk.META] = second[Chunk.META], first[Chunk.META]
    with_footer(out, lambda given: given.update(tree))
    file.tree, file.bytes = tree, out.stat().st_size  # type: ignore[attr-defined]
    with pytest.raises(VerificationError, match="not in its place"):
        rewrite.read_back(RunContext("operation"))


def test_a_source_that_shrinks_while_it_is_copied_is_corrupt(tmp_path: Path, healthy: Path, small: Path) -> None:
    rewrite = rewrite_of(tmp_path, [small, healthy])
    whole = healthy.read_bytes()

    def cut(_: int) -> None:
        healthy.write_bytes(whole[:1000])

    with pytest.raises(CorruptTableError, match=r"healthy\.parquet ends"):
        rewrite.run(RunContext("operation"), cut)
    assert [Path(where).exists() for where in rewrite.locations] == [True]


def test_a_source_that_is_missing_is_corrupt(tmp_path: Path, healthy: Path, small: Path) -> None:
    rewrite = rewrite_of(tmp_path, [small, healthy])
    healthy.unlink()
    with pytest.raises(CorruptTableError, match="missing"):
        rewrite.run(RunContext("operation"))


# --- sizes

ONE = pa.schema([ARROW.field("id")])


@pytest.mark.parametrize("share", [0.74, 0.7, 0.6, 0.51, 0.45, 0.35, 0.26, 0.12])
def test_files_come_out_so_that_nothing_is_left_to_pack(tmp_path: Path, share: float) -> None:
    sources = []
    for number in range(15):
        sources.append(tmp_path / f"{number}.parquet")
        ids = pa.table([pa.array(range(number * 10_000, number * 10_000 + 9_000), pa.int64())], schema=ONE)
        by_pyarrow(sources[-1], ids, compression="none", use_dictionary=False)
    target = int(sources[0].stat().st_size / share)
    for count in range(5, len(sources) + 1):
        assert pack([path.stat().st_size for path in sources[:count]], target, 2, 100 * MIB)
        rewrite = rewritten(tmp_path, sources[:count], ONE, codec="none", target_bytes=target)
        sizes = [path.stat().st_size for path in outputs(rewrite)]
        assert copied(rewrite) == count
        assert len(sizes) < count
        assert pack(sizes, target, 2, 100 * MIB) == [], (count, [size / target for size in sizes])
        assert len(sizes) == 1 or min(sizes) >= SMALL_SHARE * target
        assert max(sizes) <= 2.3 * target
