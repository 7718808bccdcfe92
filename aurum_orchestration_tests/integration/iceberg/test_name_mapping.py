"""Files without field ids, added as other tools had written them: read by the table's name mapping, or left alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.name_mapping import create_mapping_from_schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import ListType, LongType, MapType, NestedField, StringType, StructType

from aurum_orchestration.maintenance.backends.iceberg.compact.name_mapping import NAME_MAPPING
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes, add_position_deletes, live_data_files
from aurum_orchestration_tests.integration.iceberg.support import (
    append_files,
    append_stored,
    bag,
    by_pyarrow,
    compact,
    data_paths,
    fields,
    make_table,
    spec_of,
    stored_files,
    typed,
    write_file,
)
from aurum_orchestration_tests.lake import FLEET

NUMBERS = fields(id=LongType(), region=StringType())


def set_mapping(table: Table, mapping: str | None = None) -> None:
    """The mapping that a tool which adds files leaves in the table."""
    text = mapping or create_mapping_from_schema(table.schema()).model_dump_json()
    with table.transaction() as transaction:
        transaction.set_properties({NAME_MAPPING: text})


@asynccontextmanager
async def service_of(home: Path) -> AsyncIterator[MaintenanceService]:
    """The service over the catalog in a folder."""
    fleet = home / "fleet.yaml"
    fleet.write_text(FLEET)
    settings = AurumSettings(home=home, fleet=fleet, history_url=f"sqlite:///{home}/history.db")
    async with MaintenanceService(settings) as service:
        yield service


async def ask(service: MaintenanceService) -> MaintenanceResult:
    """Compact the table."""
    return await service.execute_maintenance(
        backend_type="lake",
        operation_type="compaction",
        target_table="lake.ns.t",
        parameters={"min_input_files": 2, "max_concurrent_groups": 1},
    )


def ids_in(path: str) -> set[int]:
    """The field ids in a Parquet file's schema, at every depth; -1 for a column without one."""
    found: set[int] = set()

    def visit(field: pa.Field) -> None:
        found.add(int((field.metadata or {}).get(b"PARQUET:field_id", -1)))
        for index in range(field.type.num_fields if pa.types.is_nested(field.type) else 0):
            visit(field.type.field(index))

    for field in pq.read_schema(path):
        visit(field)
    return found


def test_files_without_ids_are_compacted_by_name(catalog: SqlCatalog, tmp_path: Path) -> None:
    """By PyIceberg's own add_files, which leaves a name mapping in the table."""
    table = make_table(catalog, NUMBERS)
    parts = [pa.table({"id": [number], "region": ["N"]}) for number in range(3)]
    for number, part in enumerate(parts):
        pq.write_table(part, tmp_path / f"{number}.parquet")
    table.add_files([f"file://{tmp_path}/{number}.parquet" for number in range(3)])
    compact(table)
    (path,) = data_paths(table)
    assert by_pyarrow(table) == bag(pa.concat_tables(parts))
    assert ids_in(path) == {1, 2}


def test_columns_are_found_by_any_of_their_names_and_in_any_order(catalog: SqlCatalog) -> None:
    """After a rename both names count; what the mapping does not name is not the table's."""
    table = make_table(catalog, NUMBERS)
    set_mapping(table)
    with table.update_schema() as update:
        update.rename_column("region", "area")
    set_mapping(table, json.dumps([{"field-id": 1, "names": ["id"]}, {"field-id": 2, "names": ["region", "area"]}]))
    append_stored(table, [pa.table({"region": ["N"], "id": [1], "stray": [0.5]}), pa.table({"area": ["S"], "id": [2]})])
    append_files(table, [write_file(table, typed(table, {"id": [3], "area": ["W"]}))])
    append_stored(table, [pa.table({"id": [4]})])
    compact(table)
    assert by_pyarrow(table) == bag(pa.table({"id": [1, 2, 3, 4], "area": ["N", "S", "W", None]}))
    assert len(data_paths(table)) == 1


NESTED = Schema(
    NestedField(1, "id", LongType(), required=False),
    NestedField(
        2,
        "place",
        StructType(NestedField(3, "x", LongType(), required=False), NestedField(4, "y", LongType(), required=False)),
        required=False,
    ),
    NestedField(
        5,
        "parts",
        ListType(6, StructType(NestedField(7, "name", StringType(), required=False)), element_required=False),
        required=False,
    ),
    NestedField(
        8, "tags", MapType(9, StringType(), 10, StructType(NestedField(11, "n", LongType(), False))), required=False
    ),
    NestedField(12, "plain", ListType(13, LongType(), element_required=False), required=False),
)
NESTED_ROWS: list[dict[str, Any]] = [
    {"id": 1, "place": {"x": 1, "y": None}, "parts": [{"name": "a"}, None], "tags": [("k", {"n": 1})], "plain": [1]},
    {"id": 2, "place": None, "parts": None, "tags": None, "plain": None},
    {"id": 3, "place": {"x": None, "y": 2}, "parts": [], "tags": [], "plain": [None, 3]},
]


def test_fields_inside_structs_lists_and_maps_are_found_by_name(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NESTED)
    set_mapping(table)
    kind = pa.schema(
        [
            ("id", pa.int64()),
            # another order, and a field that the mapping does not name
            ("place", pa.struct({"y": pa.int64(), "other": pa.string(), "x": pa.int64()})),
            ("parts", pa.list_(pa.struct({"name": pa.string()}))),
            ("tags", pa.map_(pa.string(), pa.struct({"n": pa.int64()}))),
            ("plain", pa.large_list(pa.int64())),
        ]
    )
    stored = pa.Table.from_pylist(NESTED_ROWS, schema=kind)
    append_stored(table, [stored, stored.slice(1)])
    compact(table)
    expected = pa.Table.from_pylist([*NESTED_ROWS, *NESTED_ROWS[1:]], schema=typed(table, []).schema)
    assert by_pyarrow(table) == bag(expected)
    (path,) = data_paths(table)
    assert ids_in(path) - {-1} == set(range(1, 14))


def test_deletes_are_folded_in(catalog: SqlCatalog) -> None:
    table = make_table(catalog, NUMBERS)
    set_mapping(table)
    append_stored(
        table, [pa.table({"region": ["N", "S"], "id": [1, 2]}), pa.table({"region": ["N", "S"], "id": [3, 4]})]
    )
    first = live_data_files(table)[0]
    add_position_deletes(table, {first.file_path: [0]})
    add_equality_deletes(table, pa.table({"id": pa.array([4], pa.int64())}), ["id"])
    compact(table)
    left = {row["id"] for row in pq.read_table(data_paths(table)[0]).to_pylist()}
    assert len(left) == 2
    assert 4 not in left


REFUSED = {
    "no mapping": (None, pa.table({"id": [1]}), "column 'id' of a data file has no field id"),
    "a broken one": ("{", pa.table({"id": [1]}), "is no name mapping"),
    "one that names nothing": (
        json.dumps([{"field-id": 1, "names": ["key"]}]),
        pa.table({"id": [1]}),
        "names no column of a data file",
    ),
    "two columns for one": (
        json.dumps([{"field-id": 1, "names": ["id", "key"]}]),
        pa.table({"id": [1], "key": [2]}),
        "names two columns of a data file for one",
    ),
}


@pytest.mark.parametrize("late", [False, True], ids=["at the plan", "while reading"])
@pytest.mark.parametrize(("mapping", "part", "reason"), REFUSED.values(), ids=REFUSED)
async def test_a_file_whose_columns_nothing_tells_is_left_alone(
    catalog: SqlCatalog, tmp_path: Path, mapping: str | None, part: pa.Table, reason: str, late: bool
) -> None:
    table = make_table(catalog, NUMBERS)
    if mapping is not None:
        set_mapping(table, mapping)
    if late:
        append_files(table, [write_file(table, typed(table, {"id": [5, 6], "region": ["N", "N"]}))])
    append_stored(table, [part, part])
    before, snapshot = stored_files(table), table.metadata.current_snapshot_id
    async with service_of(tmp_path) as service:
        result = await ask(service)
    assert result.status == MaintenanceStatus.SKIPPED, result.problem
    assert reason in (result.reason or "")
    assert stored_files(table) == before
    assert catalog.load_table("ns.t").metadata.current_snapshot_id == snapshot


async def test_what_can_be_rewritten_is_and_the_rest_is_told(catalog: SqlCatalog, tmp_path: Path) -> None:
    """Two partitions, one of them with files whose columns nothing tells."""
    table = make_table(catalog, NUMBERS, spec=spec_of((2, IdentityTransform(), "region")))
    append_files(table, [write_file(table, typed(table, {"id": [n], "region": ["N"]})) for n in range(3)])
    append_stored(table, [pa.table({"id": [7], "region": ["S"]})] * 2, Record("S"))
    before = by_pyarrow(table)
    async with service_of(tmp_path) as service:
        result = await ask(service)
    assert result.status == MaintenanceStatus.COMPLETED, result.problem
    assert any("1 of 2 steps were left alone: column 'id'" in text for text in result.warnings)
    table = catalog.load_table("ns.t")
    assert len(data_paths(table)) == 3
    assert by_pyarrow(table) == before
