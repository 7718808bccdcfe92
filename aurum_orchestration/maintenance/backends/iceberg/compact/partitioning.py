"""The partitions that rows belong to by a spec, computed from the rows themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform, Transform, UnknownTransform, VoidTransform
from pyiceberg.typedef import Record
from pyiceberg.types import IcebergType, PrimitiveType, StructType, UUIDType

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.arrow_types import field_id

Codes = npt.NDArray[np.int64]


class Partitioner:
    """Tells rows of a schema apart by partition.

    Raises UnsupportedError for a spec with a field that this engine cannot compute.
    """

    def __init__(self, spec: PartitionSpec, schema: Schema, arrow: pa.Schema) -> None:
        self._fields = [_Source.of(field, schema, arrow) for field in spec.fields]

    def split(self, columns: Sequence[pa.Array]) -> tuple[Codes, list[Record]]:
        """For every row the number of its partition, and those partitions.

        ``columns`` stand as in the schema, of its types (texts may be dictionary-encoded).
        """
        codes: Codes = np.zeros(len(columns[0]) if columns else 0, np.int64)
        found: list[tuple[Any, ...]] = [()]
        for source in self._fields:
            if source is None:
                found = [(*values, None) for values in found]
                continue
            own, values = source.encoded(columns)
            present, codes = np.unique(codes * max(len(values), 1) + own, return_inverse=True)
            found = [(*found[code // len(values)], values[code % len(values)]) for code in present.tolist()]
        if not len(codes):
            return codes, []
        return codes, [Record(*values) for values in found]


class _Source:
    """Where a partition field's values come from, and what is done to them."""

    def __init__(self, path: Sequence[int], kind: IcebergType, transform: Transform[Any, Any]) -> None:
        self._path, self._kind, self._transform = path, kind, transform
        self._is_uuid = isinstance(kind, UUIDType) and isinstance(transform, IdentityTransform)

    @classmethod
    def of(cls, field: PartitionField, schema: Schema, arrow: pa.Schema) -> _Source | None:
        """None for a void field, whose value is always null."""
        if isinstance(field.transform, VoidTransform):
            return None
        kind = schema.find_type(field.source_id) if field.source_id in schema.field_ids else None
        path = _path_to(arrow, field.source_id)
        known = kind is not None and not isinstance(field.transform, UnknownTransform)
        if kind is None or path is None or not known or not field.transform.can_transform(kind):
            raise UnsupportedError(
                f"partition field {field.name!r} ({field.transform} of field {field.source_id}) cannot be computed",
                hint="Such a table needs a rewrite by Spark.",
            )
        return cls(path, kind, field.transform)

    def encoded(self, columns: Sequence[pa.Array]) -> tuple[Codes, list[Any]]:
        """For every row the position of its value among the values, which are as manifests hold them."""
        values = columns[self._path[0]]
        for position in self._path[1:]:
            values = pc.struct_field(values, [position])
        kept = pa.types.is_dictionary(values.type)
        plain = values.dictionary if kept else values
        if isinstance(plain, pa.ExtensionArray):
            plain = plain.storage
        made = self._transform.pyarrow_transform(self._kind)(plain)
        if isinstance(made, pa.ChunkedArray):
            made = made.combine_chunks()
        made = made.take(values.indices) if kept else made
        distinct = made.dictionary_encode(null_encoding="encode")
        codes = distinct.indices.cast(pa.int64()).to_numpy(zero_copy_only=False)
        return codes, self._as_stored(distinct.dictionary)

    def _as_stored(self, values: pa.Array) -> list[Any]:
        if pa.types.is_temporal(values.type):
            values = values.view(pa.int32() if values.type.bit_width == 32 else pa.int64())
        listed: list[Any] = values.to_pylist()
        return [None if value is None else UUID(bytes=value) for value in listed] if self._is_uuid else listed


def _path_to(arrow: pa.Schema, identity: int) -> list[int] | None:
    """Positions that lead from the top level into structs to the field with that id."""

    def search(fields: Sequence[pa.Field]) -> list[int] | None:
        for position, field in enumerate(fields):
            if field_id(field) == identity:
                return [position]
            if pa.types.is_struct(field.type):
                rest = search([field.type.field(index) for index in range(field.type.num_fields)])
                if rest is not None:
                    return [position, *rest]
        return None

    return search(list(arrow))


def is_primitive_in_structs(schema: Schema, identity: int) -> bool:
    """Whether a field can be partitioned by: a plain value, inside structs at most."""

    def search(struct: StructType) -> bool:
        return any(
            (field.field_id == identity and isinstance(field.field_type, PrimitiveType))
            or (isinstance(field.field_type, StructType) and search(field.field_type))
            for field in struct.fields
        )

    return search(schema.as_struct())
