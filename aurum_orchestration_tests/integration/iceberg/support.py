"""What the compaction tests share: real tables with small files, a compaction through the real flow, judges of rows.

Rows are judged by DuckDB and PyArrow on the live data files, besides PyIceberg's own scan, which turns
a null list of structs into an empty one.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import parquet_file_to_data_file, schema_to_pyarrow
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot
from pyiceberg.transforms import Transform
from pyiceberg.typedef import Record
from pyiceberg.types import IcebergType, NestedField

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.compact import handler
from aurum_orchestration.maintenance.backends.iceberg.compact.execute import CompactionExecution
from aurum_orchestration.maintenance.flow import Tally, run_units
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, RunContext, Unit
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters
from aurum_orchestration.maintenance.stopping import StopSignal
from aurum_orchestration_tests.iceberg_deletes import live_data_files

Rows = Counter[str]


@contextmanager
def sql_catalog(home: Path) -> Iterator[SqlCatalog]:
    """A SQLite catalog with the namespace ``ns`` and its warehouse in ``home``."""
    home.mkdir(parents=True, exist_ok=True)
    with closing(SqlCatalog("lake", uri=f"sqlite:///{home}/catalog.db", warehouse=f"file://{home}/warehouse")) as made:
        made.create_namespace_if_not_exists("ns")
        yield made


# --- tables


def fields(**types: IcebergType) -> Schema:
    """A schema of optional columns, numbered from 1."""
    return Schema(
        *(NestedField(number, name, type_, required=False) for number, (name, type_) in enumerate(types.items(), 1))
    )


def spec_of(*parts: tuple[int, Transform[Any, Any], str]) -> PartitionSpec:
    """A partition spec from (source id, transform, name)."""
    return PartitionSpec(
        *(
            PartitionField(source, 1000 + number, transform, name)
            for number, (source, transform, name) in enumerate(parts)
        )
    )


def make_table(
    catalog: Catalog,
    schema: Schema,
    properties: Mapping[str, str] | None = None,
    *,
    spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
    name: str = "ns.t",
    location: str | None = None,
) -> Table:
    """A new, empty table."""
    return catalog.create_table(name, schema, location=location, partition_spec=spec, properties=dict(properties or {}))


def write_file(table: Table, rows: pa.Table, **options: Any) -> str:
    """Write a Parquet file with the table's field ids, not yet part of the table."""
    path = f"{table.location()}/data/{uuid.uuid4()}.parquet"
    with table.io.new_output(path).create() as stream:
        pq.write_table(rows, stream, **options)
    return path


def typed(table: Table, rows: pa.Table | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows in the table's Arrow schema, field ids included."""
    target = schema_to_pyarrow(table.schema())
    if isinstance(rows, pa.Table):
        return pa.table([rows.column(field.name).cast(field.type) for field in target], schema=target)
    return pa.table(rows, schema=target) if isinstance(rows, Mapping) else pa.Table.from_pylist(rows, schema=target)


def append_files(table: Table, paths: Sequence[str]) -> None:
    """One commit that adds written files, in the partitions that their bounds tell."""
    add_data_files(
        table,
        [parquet_file_to_data_file(io=table.io, table_metadata=table.metadata, file_path=path) for path in paths],
    )


def add_data_files(table: Table, files: Sequence[DataFile]) -> None:
    """One append of described files."""
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        for file in files:
            append.append_data_file(file)


def described(table: Table, path: str, *, partition: Record | None = None, **changes: Any) -> DataFile:
    """A description of a file without any statistics, which PyIceberg refuses to make for odd ones."""
    known: dict[str, Any] = {
        "content": DataFileContent.DATA,
        "file_path": path,
        "file_format": FileFormat.PARQUET,
        "partition": partition or Record(),
        "record_count": pq.read_metadata(local(path)).num_rows if local(path).suffix == ".parquet" else 1,
        "file_size_in_bytes": local(path).stat().st_size,
        **dict.fromkeys(("column_sizes", "value_counts", "null_value_counts", "nan_value_counts")),
        **dict.fromkeys(("lower_bounds", "upper_bounds", "split_offsets", "sort_order_id", "equality_ids")),
        "key_metadata": None,
        **changes,
    }
    file = DataFile.from_args(**known)
    file.spec_id = table.metadata.default_spec_id
    return file


def append_stored(table: Table, parts: Sequence[pa.Table], partition: Record | None = None, **options: Any) -> None:
    """One commit that adds a file per part, stored exactly as it is."""
    paths = [write_file(table, part, **options) for part in parts]
    add_data_files(table, [described(table, path, partition=partition) for path in paths])


def append(table: Table, *parts: Any, **options: Any) -> None:
    """One commit that adds a file per part (see :func:`typed`)."""
    append_files(table, [write_file(table, typed(table, part), **options) for part in parts])


def append_numbers(table: Table, files: int = 4, rows: int = 10, **columns: Any) -> None:
    """``files`` files of consecutive ``id``s, the other columns constant."""
    append(
        table,
        *(
            {
                "id": range(number * rows, (number + 1) * rows),
                **{name: [value] * rows for name, value in columns.items()},
            }
            for number in range(files)
        ),
    )


# --- compaction


@dataclass
class Compacted:
    """What a compaction did."""

    plan: MaintenancePlan
    tally: Tally

    @property
    def metrics(self) -> dict[str, float]:
        return self.tally.metrics


def table_id(table: Table) -> TableId:
    return TableId("lake", table.name())


def parameters(**given: Any) -> CompactionParameters:
    return CompactionParameters(**{"min_input_files": 2, "max_concurrent_groups": 1, **given})


def plan_of(table: Table, **given: Any) -> MaintenancePlan:
    """The plan for a freshly loaded table; two small files are enough for a group."""
    return handler.plan(table.catalog.load_table(table.name()), table_id(table), parameters(**given))


def open_plan(plan: MaintenancePlan, table: Table) -> CompactionExecution:
    return handler.execution(plan, table.catalog.load_table(table.name()))


def carry_out(
    execution: Any, tally: Tally | None = None, on_commit: Callable[[], None] = lambda: None, **context: Any
) -> Tally:
    """Stage, verify and commit as the executor does."""
    tally = tally if tally is not None else Tally()
    run_units(execution, RunContext("operation-1", **context), tally, StopSignal(), on_commit)
    return tally


def compact(table: Table, **given: Any) -> Compacted:
    """Plan and carry out; the table is refreshed."""
    plan = plan_of(table, **given)
    tally = carry_out(open_plan(plan, table)) if plan.steps else Tally()
    table.refresh()
    return Compacted(plan, tally)


class Interfering:
    """An execution whose units call ``before_commit`` after staging and verifying, before their commit."""

    def __init__(self, execution: CompactionExecution, before_commit: Callable[[Unit], None]) -> None:
        self._execution, self._before = execution, before_commit
        self.workers = execution.workers

    def units(self) -> Iterator[Unit]:
        for unit in self._execution.units():
            unit.commit = self._after(unit, unit.commit)  # type: ignore[method-assign, assignment]
            yield unit

    def _after(self, unit: Unit, commit: Callable[[RunContext], Any]) -> Callable[[RunContext], Any]:
        def disturbed(run: RunContext) -> Any:
            self._before(unit)
            return commit(run)

        return disturbed


# --- judges


def local(location: str) -> Path:
    return Path(location.removeprefix("file://"))


def data_paths(table: Table, snapshot: Snapshot | None = None) -> list[str]:
    """Paths of the live data files."""
    return [str(local(file.file_path)) for file in live_data_files(table)]


def bag(rows: pa.Table) -> Rows:
    """Rows as a multiset, values as Python writes them: -0.0 is not 0.0, null not empty, NaN equals NaN."""
    return Counter(map(repr, rows.to_pylist()))


def by_pyarrow(table: Table) -> Rows:
    """The rows of all live data files, file by file, as stored."""
    return sum((bag(pq.ParquetFile(path).read()) for path in data_paths(table)), Counter())


def by_duckdb(table: Table) -> Rows:
    """The rows of all live data files, read by DuckDB."""
    with duckdb.connect() as connection:
        relation = connection.sql(
            "from read_parquet($paths, hive_partitioning = false)", params={"paths": data_paths(table)}
        )
        return bag(relation.to_arrow_table())


def digest(table: Table) -> Any:
    """Count and sum of hashes of the rows in all live data files, by DuckDB: for tables too large for a bag."""
    with duckdb.connect() as connection:
        query = "select count(*), sum(hash(file)::hugeint) from read_parquet($paths, hive_partitioning = false) file"
        return connection.sql(query, params={"paths": data_paths(table)}).fetchall()


def by_scan(table: Table) -> Rows:
    """The rows that PyIceberg's scan gives."""
    return bag(table.scan().to_arrow())


@dataclass
class Judged:
    """The rows of a table as three readers see them."""

    duckdb: Rows
    pyarrow: Rows
    scan: Rows


def judge(table: Table) -> Judged:
    return Judged(by_duckdb(table), by_pyarrow(table), by_scan(table))


def stored_files(table: Table) -> set[str]:
    """Every file under the table's location."""
    return files_under(local(table.location()))


def files_under(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def left_behind(table: Table) -> set[str]:
    """Files under the table's location that no snapshot, statistics or entry of the metadata log leads to."""
    table = table.catalog.load_table(table.name())
    metadata = table.metadata
    known = {table.metadata_location, *(entry.metadata_file for entry in metadata.metadata_log)}
    known |= {file.statistics_path for file in metadata.statistics}
    for snapshot in metadata.snapshots:
        known.add(snapshot.manifest_list)
        for manifest in snapshot.manifests(table.io):
            known.add(manifest.manifest_path)
            known |= {item.data_file.file_path for item in manifest.fetch_manifest_entry(table.io)}
    return {f"{table.location()}/{name}" for name in stored_files(table)} - known


def snapshots_since(table: Table, before: Sequence[Snapshot]) -> list[Snapshot]:
    """Snapshots that ``before`` does not have, oldest first."""
    known = {snapshot.snapshot_id for snapshot in before}
    return [snapshot for snapshot in table.metadata.snapshots if snapshot.snapshot_id not in known]


def operations_since(table: Table, before: Sequence[Snapshot]) -> list[str]:
    """The operations of those."""
    return [snapshot.summary.operation.value if snapshot.summary else "" for snapshot in snapshots_since(table, before)]
