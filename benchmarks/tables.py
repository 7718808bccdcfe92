"""Tables for the benchmarks: energy curves as a streaming writer leaves them, made from a fixed seed."""

from __future__ import annotations

import argparse
import uuid
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import parquet_file_to_data_file, schema_to_pyarrow
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    DateType,
    DoubleType,
    IntegerType,
    LongType,
    NestedField,
    StringType,
    TimestampType,
)

CURVES = Schema(
    NestedField(1, "curve_id", StringType(), required=False),
    NestedField(2, "ts", TimestampType(), required=False),
    NestedField(3, "day", DateType(), required=False),
    NestedField(4, "region", StringType(), required=False),
    NestedField(5, "product", StringType(), required=False),
    NestedField(6, "source", StringType(), required=False),
    NestedField(7, "price", DoubleType(), required=False),
    NestedField(8, "currency", StringType(), required=False),
    NestedField(9, "version", IntegerType(), required=False),
    NestedField(10, "volume", LongType(), required=False),
    NestedField(11, "quality", IntegerType(), required=False),
    NestedField(12, "trade_id", LongType(), required=False),
)
FIRST_DAY = np.datetime64("2026-01-01")


def curve_rows(rng: np.random.Generator, day: int, count: int, first_id: int) -> pa.Table:
    """``count`` rows of one day in the order in which they came in."""
    seconds = np.sort(rng.integers(0, 86_400_000, count)) * 1000
    return pa.table(
        {
            "curve_id": np.char.add("CURVE.", np.char.zfill(rng.integers(0, 500, count).astype(str), 4)),
            "ts": (FIRST_DAY + day).astype("datetime64[us]") + seconds.astype("timedelta64[us]"),
            "day": np.full(count, FIRST_DAY + day),
            "region": np.array(["DE", "FR", "NL", "BE", "AT", "CH", "PL", "CZ"])[rng.integers(0, 8, count)],
            "product": np.array([f"{kind}-{n:02d}" for kind in ("BASE", "PEAK") for n in range(12)])[
                rng.integers(0, 24, count)
            ],
            "source": np.array(["EEX", "EPEX", "ICE", "NORDPOOL"])[rng.integers(0, 4, count)],
            "price": rng.normal(60, 15, count),
            "currency": np.array(["EUR", "GBP", "CHF", "PLN"])[rng.integers(0, 4, count)],
            "version": rng.integers(1, 9, count).astype(np.int32),
            "volume": rng.integers(1, 500, count),
            "quality": rng.integers(0, 4, count).astype(np.int32),
            "trade_id": np.arange(first_id, first_id + count),
        }
    ).cast(schema_to_pyarrow(CURVES))


def catalog_at(home: Path) -> SqlCatalog:
    """A SQLite catalog with its warehouse in ``home``."""
    home.mkdir(parents=True, exist_ok=True)
    return SqlCatalog("lake", uri=f"sqlite:///{home}/catalog.db", warehouse=f"file://{home}/warehouse")


def append_files(table: Table, paths: list[str]) -> None:
    """One commit that adds parquet files which already carry field ids."""
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        for path in paths:
            append.append_data_file(
                parquet_file_to_data_file(io=table.io, table_metadata=table.metadata, file_path=path)
            )


def build_curves(
    home: Path,
    rows: int,
    files: int,
    days: int = 4,
    name: str = "curves",
    commits: int = 20,
    catalog: SqlCatalog | None = None,
) -> Table:
    """The table ``bench.NAME``: ``rows`` rows in ``files`` small zstd files over ``days`` partitions.

    In ``catalog`` when one is given, else in that of ``home``.
    """
    catalog = catalog or catalog_at(home)
    catalog.create_namespace_if_not_exists("bench")
    spec = PartitionSpec(PartitionField(3, 1000, IdentityTransform(), "day"))
    table = catalog.create_table(
        f"bench.{name}", CURVES, partition_spec=spec, properties={"write.parquet.compression-codec": "zstd"}
    )
    rng = np.random.default_rng(20260101)
    per_file, per_day = rows // files, files // days
    written: list[str] = []
    for day in range(days):
        folder = Path(table.location().removeprefix("file://")) / "data" / f"day={FIRST_DAY + day}"
        folder.mkdir(parents=True, exist_ok=True)
        whole = curve_rows(rng, day, per_file * per_day, first_id=day * per_file * per_day)
        for number in range(per_day):
            path = folder / f"{uuid.UUID(bytes=rng.bytes(16))}.parquet"
            pq.write_table(whole.slice(number * per_file, per_file), path, compression="zstd", compression_level=3)
            written.append(f"file://{path}")
    step = -(-len(written) // commits)
    for start in range(0, len(written), step):
        append_files(table, written[start : start + step])
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--files", type=int, default=2_000)
    arguments = parser.parse_args()
    made = build_curves(arguments.home, arguments.rows, arguments.files)
    print(made.current_snapshot().summary)  # type: ignore[union-attr]
