"""The order that a sort or z-order rewrite puts rows in: which columns, and the numbers they are compared by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.sorting import NullOrder, SortDirection, SortField
from pyiceberg.transforms import IdentityTransform, Transform, VoidTransform
from pyiceberg.types import NestedField

from aurum_orchestration.errors import RequestError, UnsupportedError, nearest
from aurum_orchestration.maintenance.backends.iceberg.arrow_types import arrow_schema
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters

Codes = npt.NDArray[Any]

_TERM = re.compile(
    r"(?P<name>\S+|\"[^\"]+\")(\s+(?P<direction>asc|desc))?(\s+nulls\s+(?P<nulls>first|last))?", re.IGNORECASE
)
_Z_BITS = 16
_RADIX = 65_535
"""Up to so many different values are sorted by radix."""


@dataclass(frozen=True, slots=True)
class SortColumn:
    """A column to sort by: where it stands in the schema, what is done to its values, and which come first."""

    position: int
    field: SortField
    column: NestedField

    def keys(self, values: pa.Array) -> list[Codes]:
        """What rows are compared by, the most significant first: null or not, then the value."""
        transform = self.field.transform
        if not isinstance(transform, IdentityTransform):
            values = _transformed(values, transform, self.column)
        codes = _codes(values)
        keys = [_descending(codes) if self.field.direction == SortDirection.DESC else codes]
        if values.null_count:
            null = np.asarray(pc.is_null(values).to_numpy(zero_copy_only=False), np.bool_)
            keys[0] = np.where(null, keys[0].dtype.type(0), keys[0])
            last = null if self.field.null_order == NullOrder.NULLS_LAST else ~null
            keys.insert(0, last.view(np.uint8))
        return keys


@dataclass(frozen=True, slots=True)
class Ordering:
    """Columns in order of significance. ``order_id`` is the table's own sort order, if it is this one."""

    columns: Sequence[SortColumn]
    order_id: int | None = None
    interleaved: bool = False

    def permutation(self, columns: Sequence[pa.Array]) -> npt.NDArray[np.int64]:
        """The rows in order, those that compare equal as they were."""
        keys = [column.keys(columns[column.position]) for column in self.columns]
        if not self.interleaved:
            return _lexical([key for one in keys for key in one])
        return np.argsort(_interleave([_ranks(one) for one in keys]), kind="stable")


def ordering_of(metadata: TableMetadata, parameters: CompactionParameters) -> Ordering | None:
    """The order that the parameters ask for; None when rows keep theirs.

    Raises RequestError for columns that are none, or when there is nothing to sort by, UnsupportedError
    for an order of the table that cannot be made.
    """
    if parameters.strategy == "binpack":
        return None
    schema = metadata.schema()
    own = metadata.sort_order_by_id(metadata.default_sort_order_id)
    if parameters.strategy == "zorder":
        if not parameters.zorder_columns:
            raise RequestError("strategy zorder needs zorder_columns", hint="Write e.g. zorder_columns='x, y'.")
        fields = [_parsed(term, schema) for term in parameters.zorder_columns.split(",")]
        if len(fields) > 8:
            raise RequestError(f"{len(fields)} zorder_columns: more than 8 tell apart too little")
        return Ordering(_columns(fields, schema), None, interleaved=True)
    if not parameters.sort_columns:
        if own is None or own.is_unsorted:
            raise RequestError(
                "the table has no sort order to sort by", hint="Give sort_columns, e.g. sort_columns='id, ts desc'."
            )
        return Ordering(_columns(own.fields, schema), own.order_id)
    fields = [_parsed(term, schema) for term in parameters.sort_columns.split(",")]
    same = own is not None and not own.is_unsorted and list(own.fields) == fields
    return Ordering(_columns(fields, schema), own.order_id if own is not None and same else None)


def _parsed(term: str, schema: Schema) -> SortField:
    match = _TERM.fullmatch(term.strip())
    if match is None:
        raise RequestError(f"cannot sort by {term.strip()!r}", hint="Write e.g. 'price desc nulls last'.")
    name = match["name"].strip('"')
    columns = {field.name: field for field in schema.fields}
    if name not in columns:
        raise RequestError(f"there is no column {name!r} to sort by", hint=nearest(name, columns))
    direction = SortDirection.DESC if (match["direction"] or "").lower() == "desc" else SortDirection.ASC
    nulls = {"first": NullOrder.NULLS_FIRST, "last": NullOrder.NULLS_LAST}.get((match["nulls"] or "").lower())
    return SortField(columns[name].field_id, IdentityTransform(), direction, nulls)


def _columns(fields: Sequence[SortField], schema: Schema) -> list[SortColumn]:
    positions = {field.field_id: index for index, field in enumerate(schema.fields)}
    found = []
    for field in fields:
        if isinstance(field.transform, VoidTransform):
            continue
        if field.source_id not in positions:
            raise UnsupportedError(f"sorting by field {field.source_id}, which is inside another column, needs Spark")
        column = schema.fields[positions[field.source_id]]
        if not column.field_type.is_primitive:
            raise RequestError(f"column {column.name!r} is a {column.field_type}: it cannot be sorted by")
        if not isinstance(field.transform, IdentityTransform):
            _transformed(arrow_schema(Schema(column)).empty_table().column(0).combine_chunks(), field.transform, column)
        found.append(SortColumn(positions[field.source_id], field, column))
    return found


def _transformed(values: pa.Array, transform: Transform[Any, Any], column: NestedField) -> pa.Array:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    try:
        made = transform.pyarrow_transform(column.field_type)(values)
    except Exception as error:
        raise UnsupportedError(f"sorting by {transform} of {column.name!r} needs Spark: {error}") from error
    return made.combine_chunks() if isinstance(made, pa.ChunkedArray) else made


def _codes(values: pa.Array) -> Codes:
    """Integers that compare as the values do; anything where null."""
    kind = values.type
    if isinstance(values, pa.ExtensionArray):
        return _codes(values.storage)
    if pa.types.is_dictionary(kind) and not values.dictionary.null_count:
        return _ranked(values)
    if pa.types.is_boolean(kind):
        return np.asarray(pc.fill_null(values, False).cast(pa.uint8()).to_numpy())
    if pa.types.is_floating(kind):
        bits = np.asarray(pc.fill_null(values.cast(pa.float64()), 0.0).to_numpy()).view(np.int64)
        return bits ^ ((bits >> 63) & np.int64(0x7FFFFFFFFFFFFFFF))
    if pa.types.is_integer(kind) or (pa.types.is_temporal(kind) and not pa.types.is_interval(kind)):
        plain = (
            values.view(pa.int32() if kind.bit_width == 32 else pa.int64()) if pa.types.is_temporal(kind) else values
        )
        return np.asarray(pc.fill_null(plain, 0).to_numpy())
    if pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind):
        values = values.cast(pa.binary())
    if pa.types.is_dictionary(kind):
        values = values.cast(kind.value_type)
    return _ranked(values.dictionary_encode())


def _ranked(values: pa.DictionaryArray) -> Codes:
    count = len(values.dictionary)
    small = np.uint16 if count <= _RADIX else np.int64
    ranks = np.zeros(max(count, 1), small)
    ranks[pc.sort_indices(values.dictionary).to_numpy()] = np.arange(count, dtype=small)
    return np.asarray(ranks[pc.fill_null(values.indices, 0).to_numpy()])


def _descending(codes: Codes) -> Codes:
    return np.asarray(~codes)


def _lexical(keys: Sequence[Codes]) -> npt.NDArray[np.int64]:
    """Rows sorted by the keys, the first the most significant, stably."""
    order: npt.NDArray[np.int64] | None = None
    for key in map(_narrow, reversed(keys)):
        sorted_ = np.argsort(key if order is None else key[order], kind="stable")
        order = sorted_ if order is None else order[sorted_]
    if order is None:
        raise RequestError("there is nothing to sort by")
    return order


def _narrow(codes: Codes) -> Codes:
    """The same order in 16 bits where that is enough: numpy sorts these by radix."""
    if codes.dtype.itemsize <= 2 or not len(codes):
        return codes
    low, high = int(codes.min()), int(codes.max())
    return (codes - codes.dtype.type(low)).astype(np.uint16) if high - low <= _RADIX else codes


def _ranks(keys: Sequence[Codes]) -> npt.NDArray[np.uint64]:
    """The place of each row among all, from 0 to 2**16 - 1; equal rows have the same."""
    order = _lexical(keys)
    new = np.zeros(len(order), np.bool_)
    for key in keys:
        new[1:] |= key[order[1:]] != key[order[:-1]]
    places = np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))
    ranks = np.empty(len(order), np.uint64)
    ranks[order] = (places << _Z_BITS) // max(len(order), 1)
    return ranks


def _interleave(ranks: Sequence[npt.NDArray[np.uint64]]) -> npt.NDArray[np.uint64]:
    """One number per row of the leading bits of all columns in turn."""
    bits = min(_Z_BITS, 63 // len(ranks))
    made = np.zeros(len(ranks[0]), np.uint64)
    for bit in range(_Z_BITS - 1, _Z_BITS - 1 - bits, -1):
        for one in ranks:
            np.left_shift(made, np.uint64(1), out=made)
            made |= (one >> np.uint64(bit)) & np.uint64(1)
    return made
