"""Tables whose metadata claims files that are not there: any sizes, formats and states, in milliseconds.

Measuring reads metadata only, so claimed files of 10 GB are as good as real ones.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
from pyiceberg.catalog.sql import IcebergTables, SqlCatalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import Table
from pyiceberg.typedef import Record
from sqlalchemy import update

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.measure import IcebergMeasurer
from aurum_orchestration.maintenance.interfaces import TableHealth
from aurum_orchestration.maintenance.operations.compaction import CompactionPolicy

MIB = 1024 * 1024
NO_PARTITION = Record()


def claim(
    table: Table,
    sizes: Sequence[int],
    partition: Record = NO_PARTITION,
    *,
    file_format: FileFormat = FileFormat.PARQUET,
    key: bytes | None = None,
    rows: int = 10,
) -> None:
    """One commit that adds files of these sizes to a partition of the current spec."""
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        for size in sizes:
            append.append_data_file(_data_file(table, size, partition, file_format, key, rows))


def _data_file(
    table: Table, size: int, partition: Record, file_format: FileFormat, key: bytes | None, rows: int
) -> DataFile:
    fields: dict[str, Any] = {
        "content": DataFileContent.DATA,
        "file_path": f"{table.location()}/data/{uuid.uuid4()}.{file_format.value.lower()}",
        "file_format": file_format,
        "partition": partition,
        "record_count": rows,
        "file_size_in_bytes": size,
        "column_sizes": {1: size},
        "value_counts": {1: rows},
        "null_value_counts": {1: 0},
        "nan_value_counts": {},
        "lower_bounds": {1: b"\0" * 8},
        "upper_bounds": {1: b"\1" + b"\0" * 7},
        "key_metadata": key,
        "split_offsets": [4],
        "equality_ids": None,
        "sort_order_id": None,
    }
    file = DataFile.from_args(**fields)
    file.spec_id = table.spec().spec_id
    return file


def metadata_path(table: Table) -> Path:
    """Where the table's current metadata file is."""
    return Path(table.metadata_location.removeprefix("file://"))


def metadata_json(table: Table) -> dict[str, Any]:
    """The table's current metadata, as parsed JSON."""
    parsed: dict[str, Any] = orjson.loads(metadata_path(table).read_bytes())
    return parsed


def replace_metadata(catalog: SqlCatalog, table: Table, content: bytes, suffix: str = ".metadata.json") -> str:
    """Make other content the table's current metadata file, in a new place; its location."""
    path = metadata_path(table).parent / f"99999-{uuid.uuid4()}{suffix}"
    path.write_bytes(content)
    point_to(catalog, table, f"file://{path}")
    return f"file://{path}"


def edit_metadata(catalog: SqlCatalog, table: Table, change: Callable[[dict[str, Any]], object]) -> str:
    """Change the table's metadata as another engine, or a fault, would; the new location."""
    metadata = metadata_json(table)
    change(metadata)
    return replace_metadata(catalog, table, orjson.dumps(metadata))


def point_to(catalog: SqlCatalog, table: Table, location: str) -> None:
    """Let the catalog say that the table's metadata is at ``location``."""
    name = table.name()
    with catalog.engine.begin() as connection:
        done = connection.execute(
            update(IcebergTables)
            .where(IcebergTables.table_namespace == ".".join(name[:-1]), IcebergTables.table_name == name[-1])
            .values(metadata_location=location)
        )
        assert done.rowcount == 1


def policy(**given: Any) -> Callable[[TableId, str], CompactionPolicy]:
    """The same compaction policy for every table."""
    made = CompactionPolicy(**given)
    return lambda _table, _operation: made


def measure(catalog: Any, *tables: Table | TableId, measurer: IcebergMeasurer | None = None, **rules: Any) -> Any:
    """Health of tables, of the only one when there is one, by a new measurer unless one is given."""
    ids = [table if isinstance(table, TableId) else TableId("lake", table.name()) for table in tables]
    healths: list[TableHealth] = (measurer or IcebergMeasurer(catalog, "lake")).measure(ids, policy(**rules))
    return healths if len(healths) > 1 else healths[0]
