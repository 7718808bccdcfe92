"""What a table's metadata.json tells without opening anything else: the cheap depth of measuring.

The JSON is read as it is, not through PyIceberg's models: that is thirty times faster, and a table that
PyIceberg cannot load (format v3 with a variant column, say) is measured all the same.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from aurum_orchestration.errors import CorruptTableError

EMPTY = "empty"
"""State token of a table without a snapshot."""

MOST_COMMITS = 128
"""So many of the latest commits are looked at one by one."""

_KEPT_PROPERTIES = re.compile(r"write\.format\.default|encryption\..*|py-io-impl|(?:s3|gcs|adls|hdfs|hf|client)\..*")


@dataclass(frozen=True, slots=True)
class TableState:
    """One state of one table, as its metadata file has it.

    ``metrics`` are those that need neither clock nor policy. ``windows`` are (files, bytes) net of what the
    latest 1, 2, 4, ... commits added, the whole table last; empty when the summary has no totals.
    ``properties`` are those that decide how files are read and whether they can be rewritten.
    """

    location: str
    token: str
    committed_ms: int
    metrics: Mapping[str, float]
    windows: tuple[tuple[int, int], ...]
    format_version: int
    default_spec_id: int
    manifest_list: str | None
    manifests: tuple[str, ...]
    encrypted: bool
    properties: Mapping[str, str]

    @property
    def files(self) -> int | None:
        """Live data files, None when the summary does not say."""
        return self.windows[-1][0] if self.windows else None


def parse_metadata(content: bytes) -> dict[str, Any]:
    """The metadata file's JSON, gzip-compressed or not. Raises CorruptTableError."""
    try:
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        parsed = orjson.loads(content)
    except (orjson.JSONDecodeError, OSError, EOFError, zlib.error) as error:
        raise CorruptTableError(f"the metadata file cannot be parsed: {error}") from error
    if not isinstance(parsed, dict) or "format-version" not in parsed:
        raise CorruptTableError("the metadata file is no Iceberg table metadata")
    return parsed


def table_state(location: str, metadata: Mapping[str, Any], size: int | None) -> TableState:
    """The state that parsed metadata describes; ``size`` is the file's, in bytes. Raises CorruptTableError."""
    try:
        return _table_state(location, metadata, size)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptTableError(f"the metadata file is not understood: {error!r}") from error


def _table_state(location: str, metadata: Mapping[str, Any], size: int | None) -> TableState:
    snapshots = metadata.get("snapshots") or []
    current_id = metadata.get("current-snapshot-id")
    snapshot: Mapping[str, Any] | None = None
    if current_id is not None and current_id != -1:
        snapshot = next((one for one in reversed(snapshots) if one["snapshot-id"] == current_id), None)
        if snapshot is None:
            raise CorruptTableError(f"the metadata file lacks its current snapshot {current_id}")
    properties = metadata.get("properties") or {}
    metrics: dict[str, float] = {"snapshots": float(len(snapshots))}
    if size is not None:
        metrics["metadata_bytes"] = float(size)
    metrics["format_version"] = float(metadata["format-version"])
    windows: tuple[tuple[int, int], ...] = ((0, 0),)
    if snapshot is None:
        metrics |= _totals({}, missing="0")
    else:
        summary = snapshot.get("summary") or {}
        metrics |= _totals(summary, missing=None)
        windows = _windows(snapshot, snapshots) if {"total-data-files", "total-files-size"} <= summary.keys() else ()
    return TableState(
        location=location,
        token=EMPTY if snapshot is None else str(current_id),
        committed_ms=int(snapshot["timestamp-ms"] if snapshot else metadata["last-updated-ms"]),
        metrics=metrics,
        windows=windows,
        format_version=int(metadata["format-version"]),
        default_spec_id=int(metadata.get("default-spec-id", 0)),
        manifest_list=snapshot.get("manifest-list") if snapshot else None,
        manifests=tuple(snapshot.get("manifests") or ()) if snapshot else (),
        encrypted=bool(metadata.get("encryption-keys")) or "encryption.key-id" in properties,
        properties={key: value for key, value in properties.items() if _KEPT_PROPERTIES.fullmatch(key)},
    )


_TOTALS = (
    ("data_files", "total-data-files"),
    ("data_bytes", "total-files-size"),
    ("rows", "total-records"),
    ("delete_files", "total-delete-files"),
    ("position_delete_rows", "total-position-deletes"),
    ("equality_delete_rows", "total-equality-deletes"),
)


def _totals(summary: Mapping[str, str], missing: str | None) -> dict[str, float]:
    found = {name: float(value) for name, key in _TOTALS if (value := summary.get(key, missing)) is not None}
    if "data_files" in found and "data_bytes" in found:
        found["avg_file_bytes"] = found["data_bytes"] / found["data_files"] if found["data_files"] else 0.0
    return found


def _windows(snapshot: Mapping[str, Any], snapshots: list[Mapping[str, Any]]) -> tuple[tuple[int, int], ...]:
    """Net (files, bytes) of the latest 1, 2, 4, ... commits that are listed, then of the whole table.

    A few files far above the target size can outweigh thousands of tiny ones in the totals; the
    latest commits by themselves show these.
    """
    total = (int(snapshot["summary"]["total-data-files"]), int(snapshot["summary"]["total-files-size"]))
    windows: list[tuple[int, int]] = []
    files = size = count = 0
    mark, wanted = 1, snapshot["snapshot-id"]
    for one in reversed(snapshots):  # parents are listed before their children
        if one["snapshot-id"] != wanted:
            continue
        summary = one.get("summary") or {}
        if added := summary.get("added-data-files"):
            files += int(added)
            size += int(summary.get("added-files-size", 0))
        if deleted := summary.get("deleted-data-files"):
            files -= int(deleted)
            size -= int(summary.get("removed-files-size", 0))
        count += 1
        if count == mark:
            if files > 1 and size > 0:
                windows.append((files, size))
            if mark == MOST_COMMITS:
                break
            mark *= 2
        wanted = one.get("parent-snapshot-id")
    return (*windows, total)


def columns_of(metadata: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Names and types of the current schema's columns."""
    schemas = metadata.get("schemas") or [metadata.get("schema") or {}]
    current = metadata.get("current-schema-id")
    schema = next((one for one in schemas if one.get("schema-id") == current), schemas[-1])
    return tuple((field["name"], type_name(field["type"])) for field in schema.get("fields", ()))


def type_name(type_: Any) -> str:
    """A type as people write it: ``struct<x: int, y: list<string>>``."""
    if isinstance(type_, str):
        return type_
    match type_["type"]:
        case "struct":
            inner = ", ".join(f"{field['name']}: {type_name(field['type'])}" for field in type_["fields"])
            return f"struct<{inner}>"
        case "list":
            return f"list<{type_name(type_['element'])}>"
        case "map":
            return f"map<{type_name(type_['key'])}, {type_name(type_['value'])}>"
        case other:
            return str(other)
