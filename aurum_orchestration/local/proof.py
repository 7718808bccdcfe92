"""Proof by another reader: what DuckDB finds in a table's files, whatever wrote them."""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
from pyiceberg.catalog import Catalog

from aurum_orchestration.local.lake import NAMESPACE


@dataclass(frozen=True, slots=True)
class Contents:
    """A table's files and bytes on storage, its rows, and a checksum of them that no order of rows changes."""

    files: int
    bytes: int
    rows: int
    checksum: int

    def same_rows(self, other: Contents) -> bool:
        """True when both hold the same rows, however they are spread over files."""
        return (self.rows, self.checksum) == (other.rows, other.checksum)


def contents(catalog: Catalog, name: str) -> Contents:
    """Read every row of the table's current snapshot with DuckDB.

    The checksum is the sum of each row's 64-bit hash. Columns are taken by name, since writers may order them anew.
    """
    table = catalog.load_table((NAMESPACE, name))
    files = [task.file for task in table.scan().plan_files()]
    columns = [duckdb.ColumnExpression(field.name) for field in table.schema().fields]
    with duckdb.connect() as connection:
        [(rows, checksum)] = (
            connection.read_parquet([file.file_path.removeprefix("file://") for file in files])
            .select(*columns)
            .aggregate("count(*), coalesce(sum(hash(*COLUMNS(*))::HUGEINT), 0)")
            .fetchall()
        )
    return Contents(len(files), sum(file.file_size_in_bytes for file in files), rows, checksum)
