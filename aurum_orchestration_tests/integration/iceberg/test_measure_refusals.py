"""What measuring says this engine cannot compact, with the exact reason."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import FileFormat
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, StringType

from aurum_orchestration.maintenance.backends.iceberg.measure import IcebergMeasurer
from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes, add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.claims import MIB, claim, edit_metadata, measure
from aurum_orchestration_tests.integration.iceberg.support import append_numbers, fields, make_table, spec_of

NUMBERS = fields(id=LongType())
REGIONAL = fields(id=LongType(), region=StringType())
BY_REGION = spec_of((2, IdentityTransform(), "region"))


def refusal(catalog: SqlCatalog, table: Table, **rules: Any) -> str | None:
    health = measure(catalog, table, **rules)
    assert health.problem is None
    reason: str | None = health.refusals.get("compaction")
    return reason


def test_a_plain_table_is_not_refused(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    append_numbers(table, files=10)
    assert refusal(catalog, table) is None


@pytest.mark.parametrize("deep_seconds", [0, 60])
def test_position_deletes(catalog: SqlCatalog, deep_seconds: float) -> None:
    table = make_table(catalog, REGIONAL, spec=BY_REGION)
    append_numbers(table, files=5, region="N")
    append_numbers(table, files=5, region="S")
    north, south = (
        next(file.file_path for file in live_data_files(table) if file.partition[0] == region) for region in ("N", "S")
    )
    add_position_deletes(table, {north: [0, 3], south: [1]})
    assert table.scan().to_arrow().num_rows == 97
    health = measure(catalog, table, measurer=IcebergMeasurer(catalog, "lake", deep_seconds=deep_seconds))
    assert health.refusals == {}
    assert (health.metrics["delete_files"], health.metrics["position_delete_rows"], health.metrics["rows"]) == (
        2,
        3,
        100,
    )
    assert (health.metrics["exact"], health.metrics.get("equality_delete_files", 0)) == (deep_seconds / 60, 0)
    # the deletes are no data files, for the numbers of a compaction either
    assert health.metrics["data_files"] == 10
    assert health.metrics["excess_files"] == (8 if deep_seconds else 9)


def test_equality_deletes(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    append_numbers(table, files=8)
    add_equality_deletes(table, pa.table({"id": [1, 2, 3]}), ["id"])
    health = measure(catalog, table)
    assert health.refusals == {}
    assert (health.metrics["equality_delete_files"], health.metrics["equality_delete_rows"]) == (1, 3)


def test_format_version_3(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 10)

    def upgrade(metadata: dict[str, Any]) -> None:
        # a column type that PyIceberg cannot load
        metadata["schemas"][-1]["fields"].append({"id": 2, "name": "v", "required": False, "type": "variant"})
        metadata.update({"format-version": 3, "next-row-id": 0})

    edit_metadata(catalog, table, upgrade)
    reason = refusal(catalog, table)
    assert reason == (
        "format version 3 needs row lineage kept, which rewriting does only up to version 2; "
        "Spark with Iceberg 1.10 or later can"
    )


def test_files_of_an_old_partition_spec_are_counted_by_themselves(catalog: SqlCatalog) -> None:
    table = make_table(catalog, REGIONAL)
    claim(table, [1000] * 6)
    with table.update_spec() as change:
        change.add_identity("region")
    claim(table, [1000] * 6, Record("N"))
    assert refusal(catalog, table) is None
    # two partitions of two specs, not one
    assert measure(catalog, table).metrics["excess_files"] == 10


def test_old_files_that_no_compaction_would_touch_refuse_nothing(catalog: SqlCatalog) -> None:
    table = make_table(catalog, REGIONAL)
    claim(table, [200 * MIB] * 2)
    with table.update_spec() as change:
        change.add_identity("region")
    claim(table, [1000] * 10, Record("N"))
    assert refusal(catalog, table) is None


@pytest.mark.parametrize("file_format", [FileFormat.ORC, FileFormat.AVRO])
def test_files_of_another_format(catalog: SqlCatalog, file_format: FileFormat) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 6, file_format=file_format)
    reason = refusal(catalog, table)
    assert str(reason).startswith(f"6 {file_format.value} data files are among those to be rewritten; only Parquet")
    claim(table, [1000] * 7)
    health = measure(catalog, table)
    assert "compaction" not in health.refusals
    assert (health.metrics["data_files"], health.metrics["small_files"]) == (13, 7)


def test_a_table_that_writes_another_format(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS, {"write.format.default": "orc"})
    claim(table, [1000] * 6)
    assert str(refusal(catalog, table)).startswith("the table writes ORC (write.format.default); only Parquet can be")


def test_encrypted_files(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    claim(table, [1000] * 6, key=b"secret")
    assert refusal(catalog, table) == "6 of the data files to be rewritten are encrypted"


def test_an_encrypted_table_is_refused_and_its_manifests_are_left_alone(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    with table.transaction() as transaction:
        transaction.set_properties({"encryption.key-id": "k1"})
    claim(table, [1000] * 10)
    health = measure(catalog, table)
    assert (health.refusals["compaction"], health.metrics["exact"]) == ("the table is encrypted", 0)
