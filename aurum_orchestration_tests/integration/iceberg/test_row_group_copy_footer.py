"""The thrift codec loses nothing, whoever wrote the footer; what is no footer is refused as such."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from thrift.Thrift import TType

from aurum_orchestration.maintenance.backends.iceberg.compact.footer import (
    MAGIC,
    Chunk,
    FileMeta,
    OpenSource,
    UnreadableFooterError,
    footer_bytes,
    read_footer,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.thrift_tree import (
    NotThriftError,
    read_struct,
    write_struct,
)
from aurum_orchestration_tests.integration.iceberg.copying import (
    ARROW,
    by_duckdb,
    by_polars,
    by_pyarrow,
    columns_of,
    footer_of,
    rows,
)

SCALARS: dict[int, st.SearchStrategy[Any]] = {
    TType.BOOL: st.booleans(),
    TType.BYTE: st.integers(-(2**7), 2**7 - 1),
    TType.I16: st.integers(-(2**15), 2**15 - 1),
    TType.I32: st.integers(-(2**31), 2**31 - 1),
    TType.I64: st.integers(-(2**63), 2**63 - 1),
    TType.DOUBLE: st.floats(allow_nan=False),
    TType.STRING: st.binary(max_size=20),
    TType.UUID: st.uuids(),
}


def values_of(kind: int, inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of a scalar kind, or lists of them."""
    scalars = SCALARS[kind]
    lists = st.lists(scalars, max_size=20).map(lambda items: (TType.LIST, (kind, items)))
    structs = st.lists(inner, max_size=3).map(lambda items: (TType.LIST, (TType.STRUCT, items)))
    maps = st.lists(st.tuples(st.binary(max_size=3), scalars), min_size=1, max_size=3).map(
        lambda pairs: (TType.MAP, (TType.STRING, kind, pairs))
    )
    return st.one_of(
        scalars.map(lambda value: (kind, value)), lists, structs, maps, inner.map(lambda value: (TType.STRUCT, value))
    )


STRUCTS: st.SearchStrategy[Any] = st.recursive(
    st.just({}),
    lambda inner: st.dictionaries(
        st.integers(1, 2**15 - 1),
        st.sampled_from(sorted(SCALARS)).flatmap(lambda kind: values_of(kind, inner)),
        max_size=6,
    ),
    max_leaves=12,
)


@given(STRUCTS, st.binary(max_size=9))
def test_any_struct_comes_back_with_fields_nobody_declared(struct: Any, after: bytes) -> None:
    data = write_struct(struct)
    assert read_struct(data + after) == (struct, len(data))


@given(st.binary(max_size=200))
def test_bytes_are_a_struct_or_no_thrift(data: bytes) -> None:
    try:
        tree, used = read_struct(data)
    except NotThriftError:
        return
    assert 0 < used <= len(data)
    again, _ = read_struct(write_struct(tree))
    assert again == tree or "nan" in repr(tree)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"write_page_index": True},
        {"bloom_filter_options": {"id": {"ndv": 200, "fpp": 0.1}, "name": True}},
        {"write_statistics": False, "use_dictionary": False, "compression": "none"},
        {"data_page_version": "2.0", "sorting_columns": [pq.SortingColumn(0)], "write_page_checksum": True},
        {"row_group_size": 7, "store_schema": True, "write_page_index": True},
    ],
    ids=repr,
)
def test_a_footer_of_pyarrow_comes_back_byte_for_byte(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "file.parquet"
    by_pyarrow(path, rows(0, 120), **options)
    footer = footer_of(path)
    assert footer_bytes(footer.tree) == path.read_bytes()[footer.begins :]
    assert len(footer.groups) == pq.read_metadata(path).num_row_groups


@pytest.mark.parametrize("write", [by_duckdb, by_polars], ids=["duckdb", "polars"])
def test_a_footer_of_others_comes_back_with_the_same_meaning(tmp_path: Path, write: Any) -> None:
    path = tmp_path / "file.parquet"
    write(path, rows(0, 3000))
    footer = footer_of(path)
    again = footer_bytes(footer.tree)
    assert again == path.read_bytes()[footer.begins :]
    meant = pq.read_metadata(path).to_dict()
    assert pq.read_metadata(pa.BufferReader(MAGIC + again)).to_dict() == meant


def test_a_footer_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    wide = pa.table({f"column_{number}": [number] for number in range(1500)})
    pq.write_table(wide, path)
    footer = footer_of(path)
    assert path.stat().st_size - footer.begins > 64 * 1024
    assert footer_bytes(footer.tree) == path.read_bytes()[footer.begins :]


def test_the_size_statistics_and_the_page_index_are_seen(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    by_pyarrow(path, rows(0, 120), write_page_index=True)
    chunk = columns_of(footer_of(path).tree)[0]
    assert {Chunk.OFFSET_INDEX, Chunk.COLUMN_INDEX} <= set(chunk)
    assert 16 in chunk[Chunk.META][1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[:-4] + b"PARE",
        lambda data: data[:-8] + (2**31).to_bytes(4, "little") + MAGIC,
        lambda data: data[:-8] + (11).to_bytes(4, "little") + MAGIC,
        lambda data: data[:-30] + b"\xff" * 22 + data[-8:],
        lambda data: data[:10],
        lambda data: b"",
    ],
)
def test_what_is_no_footer_is_refused(tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "file.parquet"
    by_pyarrow(path, rows(0, 3))
    data = damage(path.read_bytes())
    with pytest.raises(UnreadableFooterError):
        read_footer(OpenSource(pa.BufferReader(data), "damaged"), len(data))


def test_a_schema_that_names_more_fields_than_it_has_is_refused(tmp_path: Path) -> None:
    from aurum_orchestration.maintenance.backends.iceberg.compact.footer import walk_schema

    path = tmp_path / "file.parquet"
    by_pyarrow(path, rows(0, 3))
    tree = footer_of(path).tree
    assert len(list(walk_schema(tree))) > len(ARROW)
    kind, schema = tree[FileMeta.SCHEMA][1]
    tree[FileMeta.SCHEMA] = TType.LIST, (kind, schema[:-1])
    with pytest.raises(UnreadableFooterError):
        list(walk_schema(tree))
