"""Would a commit through this catalog drop something that PyIceberg does not know? Then the table is left alone.

Catalogs that keep the metadata file themselves (REST) apply changes to what they have. With all others
PyIceberg writes the file anew from its own models, which skip members they do not know: a key of a newer
format version would be gone after the first commit.

PyIceberg 0.12 keeps what it knows of version 3 through a commit (row ids too) and refuses only to write it.
Changes that are of the metadata alone, such as expiring snapshots or setting a tag, need no more than its text,
so it is written here. There a value that comes back as another one counts as lost too (the default of a column
stands for the rows of all older files), and it is looked at once more when the file is written: the table may
have been upgraded since it was planned.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from pyiceberg.catalog import Catalog, MetastoreCatalog
from pyiceberg.io import FileIO
from pyiceberg.serializers import Compressor, ToOutputFile
from pyiceberg.table import Table
from pyiceberg.table.metadata import TableMetadata, TableMetadataUtil, TableMetadataV3
from pyiceberg.typedef import IcebergBaseModel

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.files import Files
from aurum_orchestration.maintenance.backends.iceberg.metadata import unpacked

_EMPTY: tuple[Any, ...] = (None, [], {}, "", -1)
"""Values that say the same as an absent member; -1 is how an empty table's current snapshot is written."""


def refuse_lossy_commit(table: Table) -> None:
    """Raise UnsupportedError naming what a commit of the table's metadata would drop or change by the way."""
    if isinstance(table.catalog, MetastoreCatalog):
        _refuse_lossy(_stored(table.io, table.metadata_location), table.metadata)


def write_version_3(catalog: Catalog) -> None:
    """Let a catalog for which PyIceberg writes the metadata file write that of version 3 too."""
    if isinstance(catalog, MetastoreCatalog):
        setattr(catalog, "_write_metadata", _write)  # noqa: B010 - a method that is replaced on one object


def _write(metadata: TableMetadata, io: FileIO, metadata_path: str) -> None:
    output = io.new_output(metadata_path)
    if not isinstance(metadata, TableMetadataV3):
        ToOutputFile.table_metadata(metadata, output)
        return
    former = _stored(io, metadata.metadata_log[-1].metadata_file)
    _refuse_lossy(former, TableMetadataUtil.parse_raw(former.decode()))
    compress = Compressor.get_compressor(output.location).bytes_compressor()
    with output.create() as stream:
        stream.write(compress(_text(metadata).encode()))


def _text(metadata: TableMetadata) -> str:
    if isinstance(metadata, TableMetadataV3):
        return IcebergBaseModel.model_dump_json(metadata)  # its own method only raises
    return metadata.model_dump_json()


def _stored(io: FileIO, location: str) -> bytes:
    return unpacked(Files(io.properties, io).read(location))


def _refuse_lossy(stored: bytes, metadata: TableMetadata) -> None:
    """Raise UnsupportedError when ``metadata``, as read from a file with that text, would not be written like it."""
    changed = isinstance(metadata, TableMetadataV3)
    lost = next(_lost(orjson.loads(stored), orjson.loads(_text(metadata)), "", changed=changed), None)
    if lost is not None:
        raise UnsupportedError(
            f"the table's metadata has {lost}, which PyIceberg does not know and a commit would drop",
            hint="Maintain this table with a newer engine, or through a REST catalog.",
        )


def _lost(stored: Any, written: Any, path: str, *, changed: bool) -> Iterator[str]:
    """Where ``written`` lacks what ``stored`` has; with ``changed`` also where it has another value."""
    if isinstance(stored, dict) and isinstance(written, dict):
        for key, value in stored.items():
            if key in written:
                yield from _lost(value, written[key], f"{path}.{key}" if path else key, changed=changed)
            elif value not in _EMPTY:
                yield f"{path}.{key}" if path else key
    elif isinstance(stored, list) and isinstance(written, list):
        for number, (one, other) in enumerate(zip(stored, written, strict=False)):
            yield from _lost(one, other, f"{path}[{number}]", changed=changed)
    elif changed and stored != written:
        yield path
