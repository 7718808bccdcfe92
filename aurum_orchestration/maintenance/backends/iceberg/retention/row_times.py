"""Reading the time column of data files, and nothing else of them: how many rows are old."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile
from pyiceberg.table.name_mapping import NameMapping

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.arrow_types import field_id
from aurum_orchestration.maintenance.backends.iceberg.compact.deletes import DeletedRows
from aurum_orchestration.maintenance.backends.iceberg.compact.name_mapping import identified
from aurum_orchestration.maintenance.backends.iceberg.compact.reader import open_parquet, reading
from aurum_orchestration.maintenance.backends.iceberg.retention.cutoff import Cutoff

Mask = npt.NDArray[np.bool_]

_BATCH_ROWS = 262_144


class Counted(NamedTuple):
    """Rows of a data file that are old, and those that are kept: younger ones and those without a time."""

    old: int
    kept: int


def unreadable(file: DataFile) -> str | None:
    """Why the time column of a data file cannot be read, as far as the manifest tells."""
    name = str(getattr(file.file_format, "value", file.file_format)).upper()
    if name != "PARQUET":
        return f"{name}, and only Parquet can be read"
    return "encrypted" if file.key_metadata is not None else None


def count_times(
    io: FileIO,
    location: str,
    cutoff: Cutoff,
    deleted: DeletedRows | None = None,
    *,
    absent: int | None = None,
    mapping: NameMapping | None = None,
) -> Counted:
    """Count the rows of a Parquet file; without those that ``deleted`` says are gone.

    ``absent`` is the time of all rows when the file lacks the column, None for no time; ``mapping`` tells the
    columns of a file without field ids.
    Raises CorruptTableError, BackendUnavailableError, or UnsupportedError when the file has no field ids or
    stores something else than times.
    """
    old = kept = position = 0
    for mask in _masks(io, location, cutoff, absent, mapping):
        gone = deleted.slice(location, position, len(mask)) if deleted is not None else None
        position += len(mask)
        living = mask if gone is None else mask[~gone]
        count = int(living.sum())
        old, kept = old + count, kept + len(living) - count
    return Counted(old, kept)


def has_fields(io: FileIO, location: str, identities: Iterable[int], mapping: NameMapping | None) -> bool:
    """Whether a Parquet file has all of these fields, at any depth. Raises as :func:`count_times`."""
    with open_parquet(io, location, ()) as file:
        fields = list(identified(file.schema_arrow.empty_table(), mapping).schema)
    found = set()
    while fields:
        field = fields.pop()
        found.add(field_id(field))
        if pa.types.is_struct(field.type):
            fields += list(field.type)
    return found.issuperset(identities)


def _masks(
    io: FileIO, location: str, cutoff: Cutoff, absent: int | None, mapping: NameMapping | None
) -> Iterator[Mask]:
    """Batch by batch, True for each row that is old."""
    with open_parquet(io, location, ()) as file, reading(location):
        schema = identified(file.schema_arrow.empty_table(), mapping).schema
        if any(field_id(field) is None for field in schema):
            raise UnsupportedError(f"data file {location} has columns without field ids")
        names = _names(schema, cutoff.column.path)
        if not names:
            yield np.full(file.metadata.num_rows, absent is not None and absent < cutoff.limit)
            return
        for batch in file.iter_batches(_BATCH_ROWS, columns=[".".join(names)], use_threads=False):
            read = identified(pa.Table.from_batches([batch]), mapping)
            top = next(index for index, field in enumerate(read.schema) if field_id(field) == cutoff.column.path[0])
            yield older(read.column(top), cutoff)


def _names(fields: Iterable[pa.Field], path: Sequence[int]) -> list[str]:
    """The names in a file of the fields that lead to a column; none when the file does not have it."""
    names: list[str] = []
    for identity in path:
        found = next((field for field in fields if field_id(field) == identity), None)
        if found is None:
            return []
        names.append(found.name)
        fields = list(found.type) if pa.types.is_struct(found.type) else []
    return names


def older(values: pa.Array | pa.ChunkedArray, cutoff: Cutoff) -> Mask:
    """True for each row that is old. ``values`` is the top-level column that holds the time.

    A time that is missing, whether null or not in the file, is not old. Raises UnsupportedError.
    """
    for identity in cutoff.column.path[1:]:
        fields = list(values.type) if pa.types.is_struct(values.type) else []
        position = next((index for index, field in enumerate(fields) if field_id(field) == identity), None)
        if position is None:
            return np.zeros(len(values), np.bool_)
        values = pc.struct_field(values, position)  # null where the struct is
    if pa.types.is_null(values.type):
        return np.zeros(len(values), np.bool_)
    limit = cutoff.in_unit_of(values.type)
    found: Any = pc.fill_null(pc.less(values.cast(_number(values.type)), limit), False)
    return np.asarray(found.to_numpy() if isinstance(found, pa.ChunkedArray) else found.to_numpy(zero_copy_only=False))


def _number(kind: pa.DataType) -> pa.DataType:
    return pa.int32() if kind.bit_width == 32 else pa.int64()
