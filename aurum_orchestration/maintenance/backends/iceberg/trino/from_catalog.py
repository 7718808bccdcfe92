"""What Trino would tell of a table, told by the catalog without a statement: columns, layout, partitions.

Only what Trino says in the same words; None where it might say something else, and then Trino is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from pyiceberg.table.refs import MAIN_BRANCH
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

from aurum_orchestration.errors import CorruptTableError
from aurum_orchestration.maintenance.backends.iceberg.avro import AvroError, Projection, read_avro
from aurum_orchestration.maintenance.backends.iceberg.files import Files, in_threads
from aurum_orchestration.maintenance.backends.iceberg.manifests import DELETED, Manifest, read_manifest_list
from aurum_orchestration.maintenance.backends.iceberg.trino.layout import Field, Layout
from aurum_orchestration.maintenance.backends.iceberg.trino.partitions import Partition

if TYPE_CHECKING:
    from pyiceberg.table import Table

_KINDS: dict[type[IcebergType], str] = {
    BooleanType: "boolean",
    IntegerType: "integer",
    LongType: "bigint",
    FloatType: "real",
    DoubleType: "double",
    StringType: "varchar",
    BinaryType: "varbinary",
    UUIDType: "uuid",
    DateType: "date",
    TimeType: "time(6)",
    TimestampType: "timestamp(6)",
    TimestamptzType: "timestamp(6) with time zone",
}
_VALUES = (BooleanType, IntegerType, LongType, StringType, DateType)
"""Types whose values a manifest has as Trino tells them, dates as their number."""

_TRANSFORM = re.compile(r"(?P<name>[a-z]+)(?:\[(?P<size>\d+)\])?")
_EPOCH = date(1970, 1, 1)
_LISTED: Projection = (500, 503)
_CHANGE: Projection = (0, 1, (2, (134, 100)))
_EXISTING, _ADDED = 0, 1
_ENTRY: Projection = (0, (2, (134, 100, 102, 103, 104)))


def columns_of(table: Table) -> list[tuple[str, str]] | None:
    """Names and Trino types of the columns, None with one of a type that has parts."""
    found = [(field.name.lower(), _kind(field.field_type)) for field in table.schema().fields]
    return [(name, kind) for name, kind in found if kind] if all(kind for _, kind in found) else None


def _kind(type_: IcebergType) -> str | None:
    if isinstance(type_, DecimalType):
        return f"decimal({type_.precision},{type_.scale})"
    return _KINDS.get(type(type_))


def layout_of(table: Table) -> Layout | None:
    """The layout of a table that has had one partition spec only, no sort order, and partition values to be told."""
    metadata = table.metadata
    spec, schema = table.spec(), table.schema()
    if len(metadata.partition_specs) > 1 or not table.sort_order().is_unsorted:
        return None
    fields = []
    for field in spec.fields:
        name, match = schema.find_column_name(field.source_id), _TRANSFORM.fullmatch(str(field.transform))
        if match is None or match["name"] == "void" or name is None or "." in name:
            return None
        if {name, field.name} != {name.lower(), field.name.lower()}:  # Trino folds some of these names and not others
            return None
        if not isinstance(field.transform.result_type(schema.find_type(field.source_id)), _VALUES):
            return None
        size = int(match["size"]) if match["size"] else None
        fields.append(Field(f"{match['name']}({name})", name, match["name"], size))
    return Layout(tuple(fields), ())


def partitions(table: Table, small_bytes: int) -> list[Partition]:
    """The partitions with live files of a table that :func:`layout_of` is known of, as ``read_partitions`` has them.

    Raises CorruptTableError, BackendUnavailableError.
    """
    groups: dict[tuple[int, tuple[Any, ...]], list[_File]] = {}
    for file in _live_files(table):
        groups.setdefault((file.spec_id, file.values), []).append(file)
    fields, schema = table.spec().fields, table.schema()
    types = [it.transform.result_type(schema.find_type(it.source_id)) for it in fields]
    names = tuple(it.name for it in fields)
    found = [
        _partition(spec_id, tuple(map(_value, values, types)), names, files, small_bytes)
        for (spec_id, values), files in groups.items()
    ]
    return sorted(found, key=lambda one: (one.spec_id, one.text))


class _File(NamedTuple):
    """A live file; ``values`` of its partition as stored."""

    spec_id: int
    values: tuple[Any, ...]
    is_data: bool
    path: str
    rows: int
    bytes: int


def _live_files(table: Table) -> Iterator[_File]:
    snapshot = table.metadata.snapshot_by_name(MAIN_BRANCH)
    if snapshot is None:
        return
    files = Files(table.io.properties, table.io)
    listed = [
        one for one in read_manifest_list(snapshot.manifest_list, files.read(snapshot.manifest_list)) if one.live != 0
    ]
    remote = len(listed) > 1 and not files.is_local(listed[0].path)

    def read(manifest: Manifest) -> list[_File]:
        return _files_of(manifest, files.read(manifest.path))

    for found in in_threads(read, listed) if remote else map(read, listed):
        yield from found


def _files_of(manifest: Manifest, content: bytes) -> list[_File]:
    try:
        file = read_avro(content, _ENTRY)
        spec_id = manifest.spec_id if manifest.spec_id is not None else int(file.metadata["partition-spec-id"])
        found = [
            _File(spec_id, values, not kind, path.decode(), rows, size)
            for status, (kind, path, values, rows, size) in file.records
            if status != DELETED
        ]
    except (AvroError, AttributeError, TypeError, ValueError, KeyError) as error:
        raise CorruptTableError(f"manifest {manifest.path}: {error}") from error
    if len(found) < (manifest.live or 0):
        raise CorruptTableError(
            f"manifest {manifest.path} is cut short: it lists fewer files than its manifest list says"
        )
    return found


def changed_files(table: Table, snapshot_id: int) -> list[tuple[str, bool]]:
    """Data files that a snapshot took out and put in (True), from the manifests that it wrote.

    Empty for a snapshot that the table does not have. Raises CorruptTableError, BackendUnavailableError.
    """
    snapshot = table.metadata.snapshot_by_id(snapshot_id)
    if snapshot is None:
        return []
    files = Files(table.io.properties, table.io)
    try:
        listed = read_avro(files.read(snapshot.manifest_list), _LISTED).records
        return [
            (path.decode(), status == _ADDED)
            for manifest, added_by in listed
            if added_by == snapshot_id
            for status, made_by, (kind, path) in read_avro(files.read(manifest.decode()), _CHANGE).records
            if status != _EXISTING and made_by in {None, snapshot_id} and not kind
        ]
    except (AvroError, AttributeError, TypeError, ValueError) as error:
        raise CorruptTableError(f"the manifests of snapshot {snapshot_id}: {error}") from error


def _partition(
    spec_id: int, values: tuple[Any, ...], names: tuple[str, ...], files: Sequence[_File], small_bytes: int
) -> Partition:
    data, deletes = [it for it in files if it.is_data], [it for it in files if not it.is_data]
    small = [it for it in data if it.bytes < small_bytes]
    return Partition(
        spec_id=spec_id,
        values=values,
        names=names,
        files=len(data),
        bytes=sum(it.bytes for it in data),
        rows=sum(it.rows for it in data),
        small=tuple(sorted(it.path for it in small)),
        small_bytes=sum(it.bytes for it in small),
        deletes=len(deletes),
        delete_rows=sum(it.rows for it in deletes),
    )


def _value(value: Any, type_: IcebergType) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return _EPOCH + timedelta(days=value) if isinstance(type_, DateType) and isinstance(value, int) else value
