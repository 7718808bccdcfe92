"""Random tables with random histories, each choice made by a seeded generator, and a model of their rows beside."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.io.pyarrow import (
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionField, partition_record_value
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.refs import SnapshotRefType
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    Transform,
    TruncateTransform,
    YearTransform,
)
from pyiceberg.typedef import Record
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FixedType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    MapType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from aurum_orchestration_tests.faults.reading import Bag, Reader, Row, local, place
from aurum_orchestration_tests.iceberg_deletes import add_equality_deletes, add_position_deletes

KEY = "k"
"""A column that every table has and keeps: a number that no two rows share."""

_MOMENTS = (
    datetime(1969, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001 - some columns have no zone
    datetime(2026, 1, 30, 12),  # noqa: DTZ001
    datetime(2026, 1, 31),  # noqa: DTZ001
)
_VALUES: dict[type[IcebergType], Sequence[Any]] = {
    BooleanType: (True, False),
    IntegerType: (0, -1, 7, 2**31 - 1),
    LongType: (0, -1, 7, -(2**63)),
    FloatType: (0.0, -0.0, 1.5, float("nan"), float("inf")),
    DoubleType: (0.0, -0.0, 0.1, float("nan"), float("-inf")),
    DateType: (date(1969, 12, 31), date(2026, 1, 30), date(2026, 1, 31)),
    TimeType: (time(0), time(23, 59, 59, 999999)),
    TimestampType: _MOMENTS,
    TimestamptzType: tuple(one.replace(tzinfo=UTC) for one in _MOMENTS),
    StringType: ("", "N", "None", "ä b/ö%20", "x" * 40),
    UUIDType: tuple(uuid.UUID(int=number).bytes for number in (0, 7, 2**127)),
    BinaryType: (b"", b"\0\xff", b"x" * 40),
}
_PRIMITIVES: tuple[IcebergType, ...] = (
    *(kind() for kind in _VALUES),
    DecimalType(9, 2),
    DecimalType(20, 4),
    FixedType(4),
)
_NESTED = tuple(one for one in _PRIMITIVES if not isinstance(one, UUIDType))
_DATES: tuple[Transform[Any, Any], ...] = (YearTransform(), MonthTransform(), DayTransform())
_WIDER: dict[type[IcebergType], Callable[[Any], IcebergType]] = {
    IntegerType: lambda _: LongType(),
    FloatType: lambda _: DoubleType(),
    DecimalType: lambda old: DecimalType(min(old.precision + 7, 38), old.scale),
}


def random_type(rng: Random, depth: int = 0) -> IcebergType:
    kind = rng.choice(("primitive",) * 4 + (() if depth > 1 else ("struct", "list", "map")))
    if kind == "struct":
        return StructType(*(random_field(rng, f"s{number}", depth + 1) for number in range(rng.randint(1, 3))))
    if kind == "list":
        return ListType(rng.randint(1000, 10**6), random_type(rng, depth + 1), element_required=False)
    if kind == "map":
        key = rng.choice((StringType(), IntegerType(), DateType()))
        ids = rng.sample(range(1000, 10**6), 2)
        return MapType(ids[0], key, ids[1], random_type(rng, depth + 1), value_required=False)
    # PyArrow makes no nested UUIDs from Python's values
    return rng.choice(_PRIMITIVES if depth == 0 else _NESTED)


def random_field(rng: Random, name: str, depth: int = 0) -> NestedField:
    return NestedField(rng.randint(1000, 10**6), name, random_type(rng, depth), required=False)


def random_value(rng: Random, kind: IcebergType) -> Any:
    """A value as PyArrow takes it; every fifth is null."""
    if rng.random() < 0.2:
        return None
    if isinstance(kind, StructType):
        return {one.name: random_value(rng, one.field_type) for one in kind.fields}
    if isinstance(kind, ListType):
        return [random_value(rng, kind.element_type) for _ in range(rng.randint(0, 3))]
    if isinstance(kind, MapType):
        keys = rng.sample(_VALUES[type(kind.key_type)], rng.randint(0, 2))
        return [(key, random_value(rng, kind.value_type)) for key in keys]
    if isinstance(kind, DecimalType):
        return Decimal(rng.choice((0, -1, 123, 10**kind.precision - 1))).scaleb(-kind.scale)
    if isinstance(kind, FixedType):
        return rng.choice((b"\0\0\0\0", b"abcd"))
    return rng.choice(_VALUES[type(kind)])


def random_transform(rng: Random, kind: IcebergType) -> Transform[Any, Any]:
    """A transform that partitions such a column."""
    if isinstance(kind, BooleanType):
        return IdentityTransform()
    if isinstance(kind, DateType):
        return rng.choice((IdentityTransform(), BucketTransform(3), *_DATES))
    if isinstance(kind, (TimestampType, TimestamptzType)):
        return rng.choice((BucketTransform(3), HourTransform(), *_DATES))
    if isinstance(kind, (IntegerType, LongType, DecimalType, StringType, BinaryType)):
        return rng.choice((IdentityTransform(), BucketTransform(3), TruncateTransform(2)))
    return rng.choice((IdentityTransform(), BucketTransform(3)))


def partitionable(schema: Schema) -> list[NestedField]:
    return [
        one
        for one in schema.fields
        if one.field_type.is_primitive and not isinstance(one.field_type, FloatType | DoubleType)
    ]


class RandomTable:
    """A table ``ns.t`` that changes at random. ``rows_at`` has the rows that each of its snapshots must show."""

    def __init__(self, catalog: Catalog, rng: Random) -> None:
        self.reader = Reader()
        self.rows_at: dict[int, tuple[Row, ...]] = {}
        self._next = 0
        schema = Schema(
            NestedField(1, KEY, LongType(), required=False),
            *(random_field(rng, f"c{number}") for number in range(rng.randint(1, 5))),
        )
        properties = {
            "format-version": rng.choice("1222"),
            "write.parquet.compression-codec": rng.choice(("zstd", "snappy", "uncompressed")),
            "write.object-storage.enabled": rng.choice(("false", "true")),
            "commit.manifest-merge.enabled": rng.choice(("false", "true")),
            "write.metadata.delete-after-commit.enabled": rng.choice(("false", "false", "true")),
            "write.metadata.previous-versions-max": "5",
        }
        self.table: Table = catalog.create_table("ns.t", schema, properties=properties)
        for _ in range(rng.randint(0, 2)):
            self.evolve_spec(rng)

    # --- what a writer does

    def write(self, rng: Random) -> None:
        """Append to main, or to another branch."""
        branches = [name for name, ref in self.table.refs().items() if ref.snapshot_ref_type == SnapshotRefType.BRANCH]
        branch = rng.choice([*branches, "main", "main", "main"])
        found = self.table.snapshot_by_name(branch)
        rows, files = self._write(self._new_rows(rng))
        with self.table.transaction() as change, change.update_snapshot(branch=branch).fast_append() as append:
            for file in files:
                append.append_data_file(file)
        self._expect(branch, [*(self.rows_at[found.snapshot_id] if found else ()), *rows])

    def overwrite_a_file(self, rng: Random) -> None:
        """Copy-on-write: some rows of a file go, the others into a new one."""
        live = self._live()
        if not live:
            return
        path = rng.choice(sorted({row.file.file_path for row in live}))
        keys = {self._key(row) for row in live if row.file.file_path == path}
        gone = {key for key in keys if rng.random() < 0.5}
        left = [row for row in live if row.file.file_path == path and self._key(row) not in gone]
        _, files = self._write([_as_written(row, self.table.schema()) for row in left])
        with self.table.transaction() as change, change.update_snapshot().overwrite() as overwrite:
            overwrite.delete_data_file(next(row.file for row in live if row.file.file_path == path))
            for file in files:
                overwrite.append_data_file(file)
        self._expect_without(gone)

    def delete_by_position(self, rng: Random) -> None:
        live = self._live()
        if not live or self.table.format_version < 2:
            return
        gone = rng.sample(live, rng.randint(1, min(4, len(live))))
        positions: dict[str, list[int]] = {}
        for row in gone:
            positions.setdefault(row.file.file_path, []).append(row.position)
        add_position_deletes(self.table, positions, file_scoped=rng.random() < 0.5)
        self._expect_without({self._key(row) for row in gone})

    def delete_by_equality(self, rng: Random) -> None:
        """Delete what equals the values of some live rows, as the partition of one of them sees it."""
        spec = self.table.spec()
        live = [row for row in self._live() if spec.is_unpartitioned() or row.file.spec_id == spec.spec_id]
        if not live or self.table.format_version < 2:
            return
        comparable = [one.name for one in partitionable(self.table.schema())]
        chosen_names = rng.sample(comparable, rng.randint(1, min(2, len(comparable))))
        names = [name for name in comparable if name in chosen_names]
        schema = self.table.schema().select(*names)
        like = rng.choice(live)
        scope = [row for row in live if spec.is_unpartitioned() or place(row.file) == place(like.file)]
        chosen = rng.sample(scope, rng.randint(1, min(2, len(scope))))
        wanted = {row.seen_as(schema) for row in chosen}
        keys = [_as_written(row, schema) for row in chosen]
        rows = pa.Table.from_pylist(keys, schema=schema_to_pyarrow(schema))
        add_equality_deletes(self.table, rows, names, partition=like.file.partition)
        self._expect_without({self._key(row) for row in scope if row.seen_as(schema) in wanted})

    def evolve_schema(self, rng: Random) -> None:
        schema = self.table.schema()
        sources = {field.source_id for spec in self.table.specs().values() for field in spec.fields}
        columns = [one for one in schema.fields if one.name != KEY]
        free = [one for one in columns if one.field_id not in sources]
        self._next += 1
        name, kind = f"n{self._next}", random_type(rng)
        structs = [one for one in columns if isinstance(one.field_type, StructType)]
        widening = [one for one in columns if type(one.field_type) in _WIDER]
        with self.table.update_schema() as update:
            match rng.choice(("add", "add nested", "drop", "drop nested", "rename", "move", "widen")):
                case "add nested" if structs:
                    update.add_column((rng.choice(structs).name, name), kind)
                case "drop" if len(free) > 1:
                    update.delete_column(rng.choice(free).name)
                case "drop nested" if any(len(_struct(one).fields) > 1 for one in structs):
                    parent = rng.choice([one for one in structs if len(_struct(one).fields) > 1])
                    update.delete_column((parent.name, rng.choice(_struct(parent).fields).name))
                case "rename" if columns:
                    update.rename_column(rng.choice(columns).name, name)
                case "move" if columns:
                    update.move_first(rng.choice(columns).name)
                case "widen" if widening:
                    one = rng.choice(widening)
                    update.update_column(one.name, _WIDER[type(one.field_type)](one.field_type))
                case _:
                    update.add_column(name, kind)
        self.table.refresh()

    def evolve_spec(self, rng: Random) -> None:
        fields = self.table.spec().fields
        self._next += 1
        with self.table.update_spec() as update:
            if fields and rng.random() < 0.4:
                update.remove_field(rng.choice(fields).name)
            else:
                source = rng.choice(partitionable(self.table.schema()))
                transform = random_transform(rng, source.field_type)
                if not any(one.source_id == source.field_id for one in fields):
                    update.add_field(source.name, transform, f"p{self._next}")
        self.table.refresh()

    def change_refs(self, rng: Random) -> None:
        """Make a tag or a branch at any snapshot, or remove one."""
        others = [name for name in self.table.refs() if name != "main"]
        snapshots = self.table.snapshots()
        if not snapshots:
            return
        self._next += 1
        manage, at = self.table.manage_snapshots(), rng.choice(snapshots).snapshot_id
        if others and rng.random() < 0.3:
            name = rng.choice(others)
            is_tag = self.table.refs()[name].snapshot_ref_type == SnapshotRefType.TAG
            (manage.remove_tag(name) if is_tag else manage.remove_branch(name)).commit()
        elif rng.random() < 0.5:
            manage.create_tag(at, f"tag{self._next}").commit()
        else:
            manage.create_branch(at, f"branch{self._next}").commit()
        self.table.refresh()

    def leave_an_orphan(self, rng: Random) -> None:
        """A file of a writer that was killed before its commit."""
        folder = Path(local(self.table.location())) / rng.choice(("data", "metadata", "data/deep/er"))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{rng.getrandbits(64):x}.{rng.choice(('parquet', 'avro'))}").write_bytes(b"PAR1")

    # --- what must hold

    def check(self) -> None:
        """Every snapshot shows its rows; one that maintenance made shows those of the one before it."""
        self.table.refresh()
        metadata = self.table.metadata
        for snapshot in sorted(metadata.snapshots, key=lambda one: (one.sequence_number or 0, one.timestamp_ms)):
            if snapshot.snapshot_id not in self.rows_at:
                parent = snapshot.parent_snapshot_id
                assert parent in self.rows_at, f"snapshot {snapshot.snapshot_id} comes from nowhere"
                self.rows_at[snapshot.snapshot_id] = self.rows_at[parent]
            self._compare(snapshot.snapshot_id, self.table.schemas()[snapshot.schema_id or 0])
        head = self.table.current_snapshot()
        if head is not None:
            self._compare(head.snapshot_id, self.table.schema())

    def _compare(self, snapshot_id: int, schema: Schema) -> None:
        expected: Bag = Counter(row.seen_as(schema) for row in self.rows_at[snapshot_id])
        found = self.reader.bag(self.table, self.table.snapshot_by_id(snapshot_id), schema)
        assert found == expected, f"snapshot {snapshot_id}: lost {expected - found}, appeared {found - expected}"

    # ---

    def _new_rows(self, rng: Random) -> list[dict[str, Any]]:
        columns = self.table.schema().fields
        keys = range(self._next + 1, self._next + 1 + rng.randint(1, 8))
        self._next = keys[-1]
        return [{one.name: random_value(rng, one.field_type) for one in columns} | {KEY: key} for key in keys]

    def _write(self, values: Sequence[dict[str, Any]]) -> tuple[list[Row], list[DataFile]]:
        """A file per partition of the current spec. PyIceberg's own writer cannot part tables with UUIDs."""
        schema, spec = self.table.schema(), self.table.spec()
        target = schema_to_pyarrow(schema)
        parts: dict[str, tuple[Record, list[dict[str, Any]]]] = {}
        for row in values:
            partition = Record(
                *(
                    _partition(field, row[schema.find_column_name(field.source_id) or ""], schema)
                    for field in spec.fields
                )
            )
            parts.setdefault(repr(list(partition._data)), (partition, []))[1].append(row)
        files = [self._file(pa.Table.from_pylist(rows, schema=target), key) for key, rows in parts.values()]
        known = pa.Table.from_pylist(values, schema=target).to_pylist()
        return [Row(one, pa.struct(list(target))) for one in known], files

    def _file(self, rows: pa.Table, partition: Record) -> DataFile:
        schema = self.table.schema()
        path = f"{self.table.location()}/data/{uuid.uuid4()}.parquet"
        Path(local(path)).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, local(path), store_schema=False)
        statistics = data_file_statistics_from_parquet_metadata(
            pq.read_metadata(local(path)),
            compute_statistics_plan(schema, self.table.properties),
            parquet_path_to_id_mapping(schema),
        )
        file = DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=path,
            file_format=FileFormat.PARQUET,
            partition=partition,
            file_size_in_bytes=Path(local(path)).stat().st_size,
            sort_order_id=None,
            spec_id=self.table.spec().spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )
        file.spec_id = self.table.spec().spec_id
        return file

    def _live(self) -> list[Any]:
        return sorted(self.reader.rows(self.table, self.table.current_snapshot()), key=self._key)

    def _key(self, row: Row) -> int:
        return int(row.values[KEY])

    def _expect_without(self, gone: set[int]) -> None:
        before = self.table.metadata.snapshot_by_id(self.table.refresh().current_snapshot().parent_snapshot_id)  # type: ignore[union-attr, arg-type]
        assert before is not None
        self._expect("main", [row for row in self.rows_at[before.snapshot_id] if self._key(row) not in gone])

    def _expect(self, branch: str, rows: Sequence[Row]) -> None:
        snapshot = self.table.refresh().snapshot_by_name(branch)
        assert snapshot is not None
        self.rows_at[snapshot.snapshot_id] = tuple(rows)


def _partition(field: PartitionField, value: Any, schema: Schema) -> Any:
    """A row's value of a partition field."""
    kind = schema.find_field(field.source_id).field_type
    if isinstance(kind, UUIDType) and value is not None:
        value = uuid.UUID(bytes=value)
    return field.transform.transform(kind)(partition_record_value(field, value, schema))


def _struct(field: NestedField) -> StructType:
    assert isinstance(field.field_type, StructType)
    return field.field_type


def _as_written(row: Row, schema: Schema) -> dict[str, Any]:
    """The row's values as a writer of this schema has them in hand."""
    return {one.name: _value(row.values, row.written_as, one) for one in schema.fields}


def _value(values: Any, written_as: pa.StructType, field: NestedField) -> Any:
    known = {int(one.metadata[b"PARQUET:field_id"]): one for one in written_as}
    if field.field_id not in known or values is None:
        return None
    return _nested(values[known[field.field_id].name], known[field.field_id].type, field.field_type)


def _nested(value: Any, written_as: pa.DataType, kind: IcebergType) -> Any:
    if value is None:
        return None
    if isinstance(kind, StructType):
        return {one.name: _value(value, written_as, one) for one in kind.fields}
    if isinstance(kind, ListType):
        return [_nested(one, written_as.value_type, kind.element_type) for one in value]
    if isinstance(kind, MapType):
        return [(key, _nested(one, written_as.item_type, kind.value_type)) for key, one in value]
    return value.bytes if isinstance(value, uuid.UUID) else value
