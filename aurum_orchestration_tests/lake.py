"""A small real lake for tests: a SQLite catalog, a local warehouse, and a fleet file that describes them.

Its tables stand for the cases a fleet has; every number is fixed, so that tests can name it:

``lake.market.trades``    30 small files in each of two day partitions: needs compaction
``lake.market.curves``    6 small files in one partition: below the trigger of 20 files to be saved
``lake.market.hubs``      1 file: healthy
``lake.market."odd.name"``  no snapshot yet; a name that has to be quoted
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from contextlib import closing
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import parquet_file_to_data_file, schema_to_pyarrow
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import DateType, DoubleType, LongType, NestedField, StringType

ROWS_PER_FILE = 50
SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=False),
    NestedField(2, "day", DateType(), required=False),
    NestedField(3, "hub", StringType(), required=False),
    NestedField(4, "price", DoubleType(), required=False),
)
BY_DAY = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "day"))
FIRST, SECOND = date(2026, 1, 30), date(2026, 1, 31)

FLEET = """\
version: 1
backends:
  lake:
    type: iceberg
    engine: pyiceberg
    catalog: {type: sql, uri: "sqlite:///${AURUM_HOME}/catalog.db", warehouse: "file://${AURUM_HOME}/warehouse"}
policy:
  compaction: {target_file_size_mb: 64, min_input_files: 5}
tables:
  - match: "lake.market.*"
    owners: ["team:desk"]
"""


def lake_catalog(home: Path) -> SqlCatalog:
    """The lake's catalog. The caller closes it."""
    return SqlCatalog("lake", uri=f"sqlite:///{home}/catalog.db", warehouse=f"file://{home}/warehouse")


def build_lake(home: Path, *, sick: bool = True) -> Path:
    """Build the tables in ``home`` (which is to be AURUM_HOME) and answer the path of their fleet.yaml.

    With ``sick`` false, ``trades`` has one file per day and needs nothing.
    """
    home.mkdir(parents=True, exist_ok=True)
    with closing(lake_catalog(home)) as catalog:
        catalog.create_namespace("market")
        trades = catalog.create_table("market.trades", SCHEMA, partition_spec=BY_DAY)
        append_small_files(trades, [FIRST, SECOND], files_per_day=30 if sick else 1)
        append_small_files(catalog.create_table("market.curves", SCHEMA, partition_spec=BY_DAY), [FIRST], 6)
        append_small_files(catalog.create_table("market.hubs", SCHEMA), [FIRST], 1)
        catalog.create_table(("market", "odd.name"), SCHEMA)
    fleet = home / "fleet.yaml"
    fleet.write_text(FLEET, encoding="utf-8")
    return fleet


def append_small_files(table: Table, days: Iterable[date], files_per_day: int) -> None:
    """Add files of ROWS_PER_FILE rows for each day in one commit, as a streaming writer would over time."""
    Path(table.location().removeprefix("file://"), "data").mkdir(parents=True, exist_ok=True)
    alike = f"{table.schema().model_dump_json()} {table.spec().model_dump_json()} {table.properties}"
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        for day in days:
            for number in range(files_per_day):
                append.append_data_file(_write_file(table, alike, day, number))


_WRITTEN: dict[tuple[str, date, int], tuple[bytes, DataFile]] = {}
"""Files of tables that are alike: to encode and to describe them each time is most of what a lake costs."""


def _write_file(table: Table, alike: str, day: date, number: int) -> DataFile:
    location = f"{table.location()}/data/{uuid.uuid4()}.parquet"
    path = Path(location.removeprefix("file://"))
    if (alike, day, number) in _WRITTEN:
        content, known = _WRITTEN[alike, day, number]
        path.write_bytes(content)
        file = DataFile(*(known[position] for position in range(len(known))))
        file[1] = location
        assert file.file_path == location
        return file
    ids = [number * ROWS_PER_FILE + row for row in range(ROWS_PER_FILE)]
    rows = {
        "id": ids,
        "day": [day] * ROWS_PER_FILE,
        "hub": [f"hub-{id_ % 7}" for id_ in ids],
        "price": [40 + id_ % 100 / 4 for id_ in ids],
    }
    pq.write_table(pa.table(rows, schema=schema_to_pyarrow(table.schema())), path)
    file = parquet_file_to_data_file(io=table.io, table_metadata=table.metadata, file_path=location)
    _WRITTEN[alike, day, number] = path.read_bytes(), file
    return file
