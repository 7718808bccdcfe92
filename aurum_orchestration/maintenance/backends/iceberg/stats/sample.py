"""How many distinct values columns have, estimated from a sample of rows read with pyarrow.

The estimator is GEE (Charikar et al., 2000): values seen once stand for the square root of rows per sampled
row, all others for themselves. Nothing is written: what engines plan by is counted over all rows (``ndv``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, FileFormat

from aurum_orchestration.maintenance.backends.iceberg.compact.reader import open_parquet, reading
from aurum_orchestration.maintenance.interfaces import RunContext

_FIELD_ID = b"PARQUET:field_id"
_SPREAD = 16
"""The sample comes from so many files, evenly spread, as long as they have the rows."""


@dataclass
class Sample:
    """Sampled values by column id, and how many rows they come from."""

    rows: int = 0
    files: int = 0
    values: dict[int, list[pa.ChunkedArray]] = field(default_factory=dict)


def take(files: Sequence[DataFile], io: FileIO, ids: Mapping[int, str], rows: int, run: RunContext) -> Sample:
    """About ``rows`` rows of the top-level columns ``ids`` (id -> name), from Parquet files all over the table."""
    sample = Sample()
    share = max(1, -(-rows // min(_SPREAD, max(1, len(files)))))
    for file in _spread([one for one in files if one.file_format is FileFormat.PARQUET]):
        run.check()
        if sample.rows >= rows:
            break
        sample.files += 1
        with reading(file.file_path), open_parquet(io, file.file_path, ()) as source:
            _take_from(source, ids, min(share, rows - sample.rows), sample)
        run.progress(sample.rows, rows, "rows")
    return sample


def distinct(values: Sequence[pa.ChunkedArray], rows: int) -> dict[str, Any]:
    """Distinct values of a column with ``rows`` rows in all: exact when the sample has all of them."""
    column = pa.chunked_array([chunk for part in values for chunk in part.chunks], type=values[0].type)
    given = column.drop_null()
    counts = pc.value_counts(given).field("counts") if len(given) else pa.array([], pa.int64())
    seen = len(counts)
    if len(column) >= rows:
        return {"distinct": seen, "distinct_is": "exact"}
    once = pc.sum(pc.equal(counts, 1)).as_py() or 0
    present = rows * len(given) / len(column) if len(column) else 0.0
    estimate = seen - once + once * math.sqrt(present / max(1, len(given)))
    return {"distinct": round(min(max(estimate, seen), max(present, seen))), "distinct_is": "estimated"}


def _spread(files: Sequence[DataFile]) -> Iterator[DataFile]:
    """All files, at first some from all over, then those between."""
    step = max(1, len(files) // _SPREAD)
    for start in range(step):
        yield from files[start::step]


def _take_from(source: pq.ParquetFile, ids: Mapping[int, str], rows: int, sample: Sample) -> None:
    places = _places(source.schema_arrow, ids)
    taken = 0
    for batch in source.iter_batches(batch_size=min(rows, 65_536), columns=list(places.values())):
        part = batch.slice(0, rows - taken)
        taken += part.num_rows
        for id_, name in places.items():
            sample.values.setdefault(id_, []).append(pa.chunked_array([_comparable(part.column(name))]))
        if taken >= rows:
            break
    sample.rows += taken


def _comparable(values: pa.Array) -> pa.Array:
    """Values of one column of all files in one type: columns are promoted over time."""
    if isinstance(values, pa.ExtensionArray):
        return values.storage
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    kind = values.type
    for is_kind, wide in _WIDEST:
        if is_kind(kind):
            return values.cast(wide)
    return values.cast(pa.decimal128(38, kind.scale)) if pa.types.is_decimal128(kind) else values


_WIDEST = (
    (pa.types.is_integer, pa.int64()),
    (pa.types.is_floating, pa.float64()),
    (pa.types.is_string, pa.large_string()),
    (pa.types.is_binary, pa.large_binary()),
)


def _places(schema: pa.Schema, ids: Mapping[int, str]) -> dict[int, str]:
    """Names that the columns have in a file: by field id, by name in files without ids."""
    known = {int(field.metadata[_FIELD_ID]): field.name for field in schema if _FIELD_ID in (field.metadata or {})}
    by_name = {id_: name for id_, name in ids.items() if name in schema.names}
    return {id_: known[id_] for id_ in ids if id_ in known} if known else by_name
