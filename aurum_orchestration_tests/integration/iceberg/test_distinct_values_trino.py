"""A real Trino reads the distinct values that are stored here, and makes the same sketches of the same values."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import datasketches
import numpy as np
import pyarrow as pa
import pytest
from pyiceberg.table import Table
from pyiceberg.table.puffin import PuffinFile
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    LongType,
    StringType,
    TimestampType,
    TimestamptzType,
    TimeType,
    UUIDType,
)

from aurum_orchestration.maintenance.backends.iceberg.stats import handler
from aurum_orchestration.maintenance.operations.stats import StatsParameters
from aurum_orchestration_tests.integration.iceberg.support import carry_out, fields, local, make_table, table_id
from aurum_orchestration_tests.servers.trino import TrinoServer

ROWS, DELETED = 40_000, 500


def columns() -> dict[str, tuple[IcebergType, pa.Array]]:
    rng = np.random.default_rng(3)

    def some(most: int) -> Any:
        return rng.integers(0, most, ROWS)

    return {
        "id": (LongType(), pa.array(np.arange(ROWS))),
        "flag": (BooleanType(), pa.array(some(2).astype(bool))),
        "i": (IntegerType(), pa.array((some(60_000) - 30_000).astype("int32"))),
        "f": (FloatType(), pa.array((some(30_000) / 4).astype("float32"))),
        "d": (DoubleType(), pa.array(some(30_000) / 7)),
        "day": (DateType(), pa.array(some(20_000).astype("int32")).cast(pa.date32())),
        "at": (TimeType(), pa.array(some(40_000) * 1_000_000).cast(pa.time64("us"))),
        "ts": (TimestampType(), pa.array(some(2**50) - 2**40).cast(pa.timestamp("us"))),
        "tz": (TimestamptzType(), pa.array(some(30_000) * 1_000_003).cast(pa.timestamp("us", "UTC"))),
        "n": (
            DecimalType(20, 2),
            pa.array([Decimal(one - 20_000) / 4 for one in some(40_000).tolist()], pa.decimal128(20, 2)),
        ),
        "s": (StringType(), pa.array([f"näme-{one}" for one in some(35_000)], pa.large_string())),
        "b": (BinaryType(), pa.array([str(one).encode() * 3 for one in some(30_000)], pa.large_binary())),
        "u": (UUIDType(), pa.array([uuid.UUID(int=one * 7**20).bytes for one in some(30_000).tolist()], pa.binary(16))),
    }


@pytest.fixture
def table(trino: TrinoServer) -> Iterator[Table]:
    """Two files of all types that Trino has, and rows that it deleted."""
    namespace, made = f"ndv_{uuid.uuid4().hex[:8]}", columns()
    with trino.lake() as catalog:
        catalog.create_namespace(namespace)
        table = make_table(catalog, fields(**{name: kind for name, (kind, _) in made.items()}), name=f"{namespace}.t")
        rows = pa.table({name: values for name, (_, values) in made.items()})
        table.append(rows.slice(0, ROWS // 2))
        table.append(rows.slice(ROWS // 2))
        trino.sql(f"DELETE FROM {trino.catalog}.{namespace}.t WHERE id < {DELETED}")
        yield table.refresh()
        trino.sql(f"DROP TABLE {trino.catalog}.{namespace}.t")
        catalog.drop_namespace(namespace)


def sketches(path: str) -> dict[int, Any]:
    """Sketches of a statistics file, by column."""
    file = PuffinFile(Path(local(path)).read_bytes())
    return {
        one.fields[0]: datasketches.compact_theta_sketch.deserialize(file.get_blob_payload(one))
        for one in file.footer.blobs
    }


def test_trino_shows_them_and_counts_alike(trino: TrinoServer, table: Table) -> None:
    name = ".".join((trino.catalog, *table.name()))
    plan = handler.plan(table, table_id(table), StatsParameters(ndv=True, sample_rows=0))
    carry_out(handler.execution(plan, table))
    shown = {row[0]: row[2] for row in trino.sql(f"SHOW STATS FOR {name}")}
    counts = ", ".join(f'count(DISTINCT "{one.name}")' for one in table.schema().fields)
    truth = dict(zip(table.schema().column_names, trino.sql(f"SELECT {counts} FROM {name}")[0], strict=True))
    assert truth["id"] == ROWS - DELETED
    off = {column: shown[column] / count - 1 for column, count in truth.items()}
    assert max(map(abs, off.values())) < 0.025, off

    (ours,) = table.refresh().metadata.statistics
    trino.sql(f"ALTER TABLE {name} EXECUTE drop_extended_stats")
    trino.sql(f"ANALYZE {name}")
    (theirs,) = table.refresh().metadata.statistics
    by_us, by_trino = sketches(ours.statistics_path), sketches(theirs.statistics_path)
    assert by_us.keys() == by_trino.keys()
    for column, sketch in by_us.items():
        lowest = min(sketch.theta64, by_trino[column].theta64)
        assert [one for one in sketch if one < lowest] == [one for one in by_trino[column] if one < lowest], column
