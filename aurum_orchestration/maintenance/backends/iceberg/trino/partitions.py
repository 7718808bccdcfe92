"""What a table's partitions hold, counted by Trino over ``$files``, and which of them a compaction is for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aurum_orchestration.errors import RequestError, UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.trino.layout import Layout
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration.maintenance.operations.compaction import MIB, CompactionParameters
from aurum_orchestration.maintenance.planner.binpack import SMALL_SHARE, files_out

_SUFFIX = {"truncate": "trunc"}


@dataclass(frozen=True, slots=True)
class Partition:
    """Live files of one partition: ``small`` data files, all ``files``, the ``deletes`` that may apply to them."""

    spec_id: int
    values: tuple[Any, ...]
    names: tuple[str, ...]
    files: int
    bytes: int
    rows: int
    small: tuple[str, ...]
    small_bytes: int
    deletes: int
    delete_rows: int

    @property
    def text(self) -> str:
        """The partition as its path, e.g. ``day=2026-01-31``; empty when the table has none."""
        return "/".join(f"{name}={value}" for name, value in zip(self.names, self.values, strict=True))

    def by_field(self, layout: Layout) -> tuple[Any, ...] | None:
        """The values in the order of the current spec's fields; None when they cannot be told from those of others."""
        named = dict(zip(self.names, self.values, strict=True))
        wanted = [
            field.column
            if field.transform == "identity"
            else f"{field.column}_{_SUFFIX.get(field.transform, field.transform)}"
            for field in layout.fields
        ]
        if all(name in named for name in wanted):
            return tuple(named[name] for name in wanted)
        return self.values if len(self.values) == len(layout.fields) else None

    def rewritten(self, *, every: bool, single: bool) -> tuple[int, int]:
        """How many files of how many bytes an optimize of this partition rewrites at most.

        ``every``: whatever their size; ``single``: one that is alone, too, as Trino does in tables of several specs.
        """
        # which files a delete applies to is known to Trino alone
        files, size = (self.files, self.bytes) if every or self.deletes else (len(self.small), self.small_bytes)
        return (files, size) if files > 1 or self.deletes or single else (0, 0)

    def is_wanted(self, parameters: CompactionParameters, all_deletes: int) -> bool:
        """Whether a compaction is worth it: the rules of the embedded engine, by partition instead of by file.

        Trino itself leaves a single file without deletes as it is.
        """
        if self.deletes and (
            all_deletes >= parameters.max_delete_files
            or self.delete_rows >= parameters.max_deleted_ratio * max(self.rows, 1)
        ):
            return True
        if parameters.rewrite_all:
            return self.files > 1
        saved = len(self.small) - files_out(self.small_bytes, parameters.target_file_size_mb * MIB)
        return len(self.small) >= parameters.min_input_files and saved > 0


def small_below(parameters: CompactionParameters) -> int:
    """Bytes below which a file is small."""
    return int(parameters.target_file_size_mb * MIB * SMALL_SHARE)


def read_partitions(table: TrinoTable, layout: Layout, small_bytes: int) -> list[Partition]:
    """All partitions with live files, in one query, by spec and values."""
    partition = ", partition" if layout.fields else ""
    small = f"content = 0 AND file_size_in_bytes < {small_bytes}"
    rows = table.query(
        "SELECT count_if(content = 0), sum(IF(content = 0, file_size_in_bytes, 0)), "
        "sum(IF(content = 0, record_count, 0)), "
        f"array_agg(file_path) FILTER (WHERE {small}), sum(IF({small}, file_size_in_bytes, 0)), "
        f"count_if(content <> 0), sum(IF(content <> 0, record_count, 0)), spec_id{partition} "
        f"FROM {table.relation('$files')} GROUP BY spec_id{partition}"
    ).rows
    found = [
        Partition(
            spec_id=int(row[7]),
            values=tuple(row[8]) if layout.fields else (),
            names=tuple(row[8]._names) if layout.fields else (),
            files=int(row[0]),
            bytes=int(row[1]),
            rows=int(row[2]),
            small=tuple(sorted(row[3] or ())),
            small_bytes=int(row[4]),
            deletes=int(row[5]),
            delete_rows=int(row[6]),
        )
        for row in rows
    ]
    return sorted(found, key=lambda one: (one.spec_id, one.text))


def matching(
    partitions: Sequence[Partition], layout: Layout, columns: Sequence[tuple[str, str]], text: str
) -> list[Partition]:
    """The partitions that may hold rows for which ``text`` is true; the same language as the embedded engine's.

    Raises RequestError when it is no expression or names a column that the table is not partitioned by.
    """
    from pyiceberg.expressions.parser import parse
    from pyiceberg.expressions.visitors import expression_evaluator, inclusive_projection
    from pyiceberg.schema import Schema
    from pyiceberg.typedef import Record

    from aurum_orchestration.maintenance.backends.iceberg.compact.state import _columns_of
    from aurum_orchestration.maintenance.backends.iceberg.trino.specs import internal, schema_of, spec_of

    schema = schema_of(columns)
    spec = spec_of(layout, schema)
    try:
        expression = parse(text)
        names = _columns_of(expression)
        projected = inclusive_projection(schema, spec)(expression)
    except Exception as error:
        raise RequestError(f"partition_filter {text!r}: {error}", hint="Write e.g. \"day = '2026-01-31'\".") from error
    known = {field.column for field in layout.fields}
    if unknown := sorted(names - known):
        raise RequestError(
            f"partition_filter names {', '.join(unknown)}, but the table is partitioned by "
            f"{', '.join(sorted(known)) or 'nothing'}",
            hint="Only columns that the table is partitioned by can be named: files are chosen whole.",
        )
    matches = expression_evaluator(Schema(*spec.partition_type(schema).fields), projected, case_sensitive=True)
    if len({one.spec_id for one in partitions}) > 1:
        raise UnsupportedError(
            "partition_filter: the table has files of several partition specs, which Trino cannot tell"
        )
    return [one for one in partitions if matches(Record(*(internal(value) for value in one.values)))]
