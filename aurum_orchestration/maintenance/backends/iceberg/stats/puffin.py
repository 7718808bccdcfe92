"""Puffin files of statistics (https://iceberg.apache.org/puffin-spec/), which PyIceberg reads but does not write."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import orjson
from pyiceberg.table.puffin import MAGIC_BYTES, PuffinFile
from pyiceberg.table.statistics import BlobMetadata, StatisticsFile

THETA = "apache-datasketches-theta-v1"
NDV = "ndv"
"""The property of a sketch's blob that readers take the number of distinct values from."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob and what its file says of it, but for where it lies."""

    kind: str
    fields: Sequence[int]
    snapshot_id: int
    sequence_number: int
    content: bytes
    properties: Mapping[str, str] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """As the footer and the table's metadata have it."""
        return {
            "type": self.kind,
            "fields": list(self.fields),
            "snapshot-id": self.snapshot_id,
            "sequence-number": self.sequence_number,
            "properties": dict(self.properties),
        }


def write(blobs: Sequence[Blob]) -> tuple[bytes, int]:
    """The file, and how many bytes of it are its footer. Blobs stay as they are: hashes do not compress."""
    parts, offset, footer = [MAGIC_BYTES], len(MAGIC_BYTES), []
    for blob in blobs:
        footer.append({**blob.described(), "offset": offset, "length": len(blob.content)})
        parts.append(blob.content)
        offset += len(blob.content)
    made_by = f"aurum-orchestration {version('aurum-orchestration')}"
    payload = orjson.dumps({"blobs": footer, "properties": {"created-by": made_by}})
    end = MAGIC_BYTES + payload + struct.pack("<ii", len(payload), 0) + MAGIC_BYTES
    return b"".join([*parts, end]), len(end)


def read(content: bytes) -> list[Blob]:
    """The blobs of a file, unpacked. Raises ValueError for one that cannot be read."""
    file = PuffinFile(content)
    return [
        Blob(one.type, one.fields, one.snapshot_id, one.sequence_number, file.get_blob_payload(one), one.properties)
        for one in file.footer.blobs
    ]


def statistics_file(snapshot_id: int, path: str, blobs: Sequence[Blob], size: int, footer: int) -> StatisticsFile:
    """What the table's metadata says of a file of blobs."""
    return StatisticsFile(
        snapshot_id=snapshot_id,
        statistics_path=path,
        file_size_in_bytes=size,
        file_footer_size_in_bytes=footer,
        blob_metadata=[BlobMetadata.model_validate(blob.described()) for blob in blobs],
    )


def counted(statistics: StatisticsFile | None) -> set[int]:
    """The columns whose distinct values a statistics file tells."""
    return {
        one.fields[0]
        for one in (statistics.blob_metadata if statistics else ())
        if one.type == THETA and len(one.fields) == 1 and NDV in (one.properties or {})
    }
