"""Compaction writes files as the table's properties and location want them."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import BooleanType, ListType, LongType, NestedField, StringType

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration_tests.integration.iceberg.support import (
    append,
    compact,
    data_paths,
    digest,
    files_under,
    judge,
    local,
    make_table,
    plan_of,
    spec_of,
    stored_files,
)

SCHEMA = Schema(
    NestedField(1, "id", LongType()),
    NestedField(2, "word", StringType()),
    NestedField(3, "flag", BooleanType()),
    NestedField(4, "tags", ListType(5, StringType(), element_required=False)),
)


def small_files(table: Table, rows: int = 300) -> None:
    ids = range(rows)
    columns = {
        "id": ids,
        "word": [f"word-{id_ * 7919 % 1000}" for id_ in ids],
        "flag": [id_ % 3 == 0 for id_ in ids],
        "tags": [[f"tag-{id_ % 7}"] for id_ in ids],
    }
    append(table, columns, columns)


def compacted(catalog: SqlCatalog, properties: dict[str, str], rows: int = 300) -> pq.FileMetaData:
    """The footer of the file that a compaction with these properties makes; its rows are checked."""
    table = make_table(catalog, SCHEMA)
    small_files(table, rows)
    with table.transaction() as transaction:  # afterwards: PyIceberg itself refuses some
        transaction.set_properties(properties)
    before = digest(table)
    compact(table)
    assert digest(table) == before
    (path,) = data_paths(table)
    return pq.ParquetFile(path).metadata


@pytest.mark.parametrize(
    ("codec", "stored"),
    [
        ("snappy", "SNAPPY"),
        ("gzip", "GZIP"),
        ("brotli", "BROTLI"),
        ("lz4", "LZ4"),
        ("ZSTD", "ZSTD"),
        ("uncompressed", "UNCOMPRESSED"),
    ],
)
def test_codecs_with_a_level_that_only_some_have(catalog: SqlCatalog, codec: str, stored: str) -> None:
    footer = compacted(catalog, {"write.parquet.compression-codec": codec, "write.parquet.compression-level": "1"})
    assert {footer.row_group(0).column(index).compression for index in range(footer.num_columns)} == {stored}


def test_zstd_unless_the_table_says_otherwise_and_the_level_counts(catalog: SqlCatalog, tmp_path: Path) -> None:
    default = compacted(catalog, {}, 20_000)
    assert default.row_group(0).column(0).compression == "ZSTD"
    catalog.drop_table("ns.t")
    strong = compacted(catalog, {"write.parquet.compression-level": "19"}, 20_000)
    sizes = [
        sum(footer.row_group(0).column(index).total_compressed_size for index in range(4))
        for footer in (default, strong)
    ]
    assert sizes[1] < sizes[0]


def test_limits_of_row_groups(catalog: SqlCatalog) -> None:
    footer = compacted(catalog, {"write.parquet.row-group-limit": "70"})
    assert [footer.row_group(index).num_rows for index in range(footer.num_row_groups)] == [70] * 8 + [40]


def test_limits_of_pages_and_dictionaries(catalog: SqlCatalog) -> None:
    plain = compacted(catalog, {}, 5_000)
    catalog.drop_table("ns.t")
    small = compacted(catalog, {"write.parquet.page-row-limit": "100", "write.parquet.dict-size-bytes": "200"}, 5_000)
    encodings = [footer.row_group(0).column(1).encodings for footer in (plain, small)]
    assert "PLAIN" in encodings[1]  # a dictionary page of 200 bytes is full soon
    assert small.row_group(0).column(0).total_uncompressed_size > plain.row_group(0).column(0).total_uncompressed_size


def test_bloom_filters_where_the_table_wants_them(catalog: SqlCatalog) -> None:
    prefix = "write.parquet.bloom-filter-enabled.column."
    wanted = {"word": "true", "tags.element": "true", "flag": "true", "id": "false", "dropped": "true"}
    footer = compacted(catalog, {prefix + name: value for name, value in wanted.items()})
    filters = [footer.row_group(0).column(index).bloom_filter_length or 0 for index in range(4)]
    assert filters[0] == filters[2] == 0  # not wanted; a boolean cannot have one
    assert min(filters[1], filters[3]) > 0
    catalog.drop_table("ns.t")
    limits = {f"{prefix}word": "true", "write.parquet.bloom-filter-max-bytes": "64"}
    assert 0 < compacted(catalog, limits).row_group(0).column(1).bloom_filter_length < filters[1]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("compression-codec", "lzo", "compressed by 'lzo', which cannot be written"),
        ("compression-codec", "strong", "compressed by 'strong', which cannot be written"),
        ("row-group-limit", "many", "write.parquet.row-group-limit is 'many', not a number"),
    ],
)
def test_properties_that_cannot_be_followed_refuse_the_table(
    catalog: SqlCatalog, name: str, value: str, reason: str
) -> None:
    table = make_table(catalog, SCHEMA)
    small_files(table)
    with table.transaction() as transaction:
        transaction.set_properties({f"write.parquet.{name}": value})
    before = stored_files(table)
    with pytest.raises(UnsupportedError, match=reason):
        compact(table)
    assert stored_files(table) == before


# --- where files go


_LOCATIONS = ["with space", "with %20 and %", "mit-ümläut-日本", "a+b=c&d", "quote'\"", "dots..and.more"]


@pytest.mark.parametrize("folder", _LOCATIONS)
def test_locations_of_any_name(catalog: SqlCatalog, tmp_path: Path, folder: str) -> None:
    table = make_table(
        catalog, SCHEMA, spec=spec_of((2, IdentityTransform(), "word")), location=f"file://{tmp_path}/{folder}/t"
    )
    row = {"id": [1], "word": [folder], "flag": [True], "tags": [None]}
    append(table, row, row)
    before = judge(table)
    compact(table)
    assert judge(table) == before
    (path,) = data_paths(table)
    assert path.startswith(f"{tmp_path}/{folder}/t/data/word=")
    assert plan_of(table).steps == []


def test_files_go_to_the_data_and_metadata_paths_of_the_table(catalog: SqlCatalog, tmp_path: Path) -> None:
    elsewhere = {
        "write.data.path": f"file://{tmp_path}/else where/data/",
        "write.metadata.path": f"file://{tmp_path}/else where/metadata",
    }
    table = make_table(catalog, SCHEMA)
    small_files(table)
    with table.transaction() as transaction:
        transaction.set_properties(elsewhere)
    before, known = judge(table), stored_files(table)
    compact(table)
    assert judge(table) == before
    assert stored_files(table) == known
    found = files_under(tmp_path / "else where")
    assert sum(name.startswith("data/") and name.endswith(".parquet") for name in found) == 1
    assert sum(name.startswith("metadata/") and name.endswith(".avro") for name in found) == 3


@pytest.mark.parametrize("partitioned_paths", ["true", "false"])
def test_object_store_layout(catalog: SqlCatalog, partitioned_paths: str) -> None:
    properties = {
        "write.object-storage.enabled": "true",
        "write.object-storage.partitioned-paths": partitioned_paths,
    }
    table = make_table(catalog, SCHEMA, properties, spec=spec_of((2, IdentityTransform(), "word")))
    row = {"id": [1], "word": ["x"], "flag": [True], "tags": [None]}
    append(table, row, row)
    before = judge(table)
    compact(table)
    assert judge(table) == before
    (path,) = data_paths(table)
    inside = Path(path).relative_to(local(table.location()) / "data")
    assert set("".join(inside.parts[:3])) <= {"0", "1"}
    assert ("word=x" in inside.parts) == (partitioned_paths == "true")
