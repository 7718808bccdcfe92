"""Would a commit through this catalog drop something that PyIceberg does not know? Then the table is left alone.

Catalogs that keep the metadata file themselves (REST) apply changes to what they have. With all others
PyIceberg writes the file anew from its own models, which skip members they do not know: a key of a newer
format version would be gone after the first commit.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import orjson
from pyiceberg.catalog import MetastoreCatalog
from pyiceberg.table import Table

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.files import Files
from aurum_orchestration.maintenance.backends.iceberg.refusals import NEWEST_FORMAT

_EMPTY: tuple[Any, ...] = (None, [], {}, "", -1)
"""Values that say the same as an absent member; -1 is how an empty table's current snapshot is written."""


def refuse_lossy_commit(table: Table) -> None:
    """Raise UnsupportedError when PyIceberg does not write such metadata, or naming what a commit would drop of it."""
    if (version := table.metadata.format_version) > NEWEST_FORMAT:
        raise UnsupportedError(
            f"PyIceberg does not write metadata of format version {version}; Spark with Iceberg 1.10 or later does"
        )
    if not isinstance(table.catalog, MetastoreCatalog):
        return
    content = Files(table.io.properties, table.io).read(table.metadata_location)
    if content.startswith(b"\x1f\x8b"):
        content = gzip.decompress(content)
    written = orjson.loads(table.metadata.model_dump_json())
    lost = next(_dropped(orjson.loads(content), written, ""), None)
    if lost is not None:
        raise UnsupportedError(
            f"the table's metadata has {lost}, which PyIceberg does not know and a commit would drop",
            hint="Maintain this table with a newer engine, or through a REST catalog.",
        )


def _dropped(stored: Any, written: Any, path: str) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(written, dict):
        for key, value in stored.items():
            if key in written:
                yield from _dropped(value, written[key], f"{path}.{key}" if path else key)
            elif value not in _EMPTY:
                yield f"{path}.{key}" if path else key
    elif isinstance(stored, list) and isinstance(written, list):
        for number, (one, other) in enumerate(zip(stored, written, strict=False)):
            yield from _dropped(one, other, f"{path}[{number}]")
