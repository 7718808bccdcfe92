"""Writes rows as a streaming writer does: in the order of time, a file for each short while, several to a commit."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyiceberg.io.pyarrow import write_file
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table import Table, WriteTask
from pyiceberg.types import TimestamptzType

if TYPE_CHECKING:
    import pyarrow as pa

_MICROSECONDS_PER_HOUR = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Stream:
    """How a table is written: by the clock of ``time_column``, a file per ``hours_per_file``, so many to a commit."""

    time_column: str
    hours_per_file: int
    files_per_commit: int


def replay(table: Table, rows: pa.Table, stream: Stream, on_commit: Callable[[int], None] = lambda _rows: None) -> None:
    """Append ``rows`` to the table in many small files and commits. ``on_commit`` gets the rows of each commit.

    A partition value must not change within a file: ``hours_per_file`` divides the partition's length.
    """
    ordered = rows.sort_by(stream.time_column).combine_chunks()
    for commit in _batched(_cut(ordered, stream), stream.files_per_commit):
        append_files(table, commit)
        on_commit(sum(piece.num_rows for piece in commit))


def append_files(table: Table, pieces: list[pa.Table]) -> None:
    """Write each piece as one file, partitioned by its first row, and commit them together as one fast append."""
    write = uuid.uuid4()
    tasks = (
        WriteTask(
            write_uuid=write,
            task_id=number,
            record_batches=piece.to_batches(),
            schema=table.schema(),
            partition_key=_partition_key(table, piece),
        )
        for number, piece in enumerate(pieces)
    )
    with table.transaction() as transaction, transaction.update_snapshot().fast_append() as append:
        for data_file in write_file(table.io, table.metadata, tasks):
            append.append_data_file(data_file)


def _cut(ordered: pa.Table, stream: Stream) -> Iterator[pa.Table]:
    import pyarrow as pa
    import pyarrow.compute as pc

    window = pc.divide(ordered[stream.time_column].cast(pa.int64()), stream.hours_per_file * _MICROSECONDS_PER_HOUR)
    runs = pc.run_end_encode(window).combine_chunks()
    for start, end in itertools.pairwise([0, *runs.run_ends.to_pylist()]):
        yield ordered.slice(start, end - start)


def _partition_key(table: Table, piece: pa.Table) -> PartitionKey | None:
    spec, schema = table.spec(), table.schema()
    if spec.is_unpartitioned():
        return None
    values: list[PartitionFieldValue] = []
    for field in spec.fields:
        source = schema.find_field(field.source_id)
        first = piece[source.name][0]
        raw = first.value if isinstance(source.field_type, TimestamptzType) else first.as_py()
        values.append(PartitionFieldValue(field, field.transform.transform(source.field_type)(raw)))
    return PartitionKey(values, spec, schema)


def _batched(pieces: Iterator[pa.Table], size: int) -> Iterator[list[pa.Table]]:
    while batch := list(itertools.islice(pieces, size)):
        yield batch
