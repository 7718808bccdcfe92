"""Manifests as PyIceberg writes them: which files live, and what they inherit from their manifest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestEntry,
    ManifestEntryStatus,
    write_manifest,
    write_manifest_list,
)
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import IdentityTransform
from pyiceberg.typedef import Record
from pyiceberg.types import LongType, NestedField, StringType

from aurum_orchestration.errors import CorruptTableError
from aurum_orchestration.maintenance.backends.iceberg.manifests import (
    LiveFile,
    Manifest,
    read_manifest,
    read_manifest_list,
)

SCHEMA = Schema(NestedField(1, "id", LongType()), NestedField(2, "region", StringType()))
SPEC = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "region"), spec_id=3)
SNAPSHOT = 77


def entry(size: int, sequence_number: int | None, version: Any) -> ManifestEntry:
    fields: dict[str, Any] = {
        "content": DataFileContent.DATA,
        "file_path": f"file:///d/{size}.parquet",
        "file_format": FileFormat.PARQUET,
        "partition": Record("ö"),
        "record_count": size // 10,
        "file_size_in_bytes": size,
        "column_sizes": {1: 5, 2: 6},
        "value_counts": {1: 1},
        "null_value_counts": {},
        "nan_value_counts": None,
        "lower_bounds": {1: b"\0" * 8, 2: b""},
        "upper_bounds": {1: b"\1" * 8},
        "key_metadata": None,
        "split_offsets": [4, 400],
        "equality_ids": None,
        "sort_order_id": 0,
    }
    return ManifestEntry.from_args(
        status=ManifestEntryStatus.ADDED,
        snapshot_id=SNAPSHOT,
        sequence_number=sequence_number,
        file_sequence_number=sequence_number,
        data_file=DataFile.from_args(**fields),
    )


def live(size: int, sequence_number: int) -> LiveFile:
    return LiveFile(0, "PARQUET", ("ö".encode(),), size // 10, size, None, 3, sequence_number)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("codec", ["deflate", "null", "zstandard"])
def test_live_files_of_a_manifest_with_entries_of_every_status(tmp_path: Path, version: Any, codec: Any) -> None:
    io = PyArrowFileIO()
    path = f"file://{tmp_path}/m.avro"
    with write_manifest(version, SPEC, SCHEMA, io.new_output(path), SNAPSHOT, codec) as writer:
        writer.add(entry(100, None, version))
        writer.delete(entry(200, 4, version))
        writer.existing(entry(300, 5, version))
    manifest = writer.to_manifest_file()
    list_path = f"file://{tmp_path}/list.avro"
    with write_manifest_list(version, io.new_output(list_path), SNAPSHOT, None, 9, codec) as lister:
        lister.add_manifests([manifest])
    (listed,) = read_manifest_list(list_path, (tmp_path / "list.avro").read_bytes())
    numbers = (9, 9, 5) if version == 2 else (0, 0, 0)
    assert listed == Manifest(path, 3, False, 2, numbers[0], (tmp_path / "m.avro").stat().st_size)
    found = read_manifest(listed, (tmp_path / "m.avro").read_bytes())
    assert found == [live(100, numbers[1]), live(300, numbers[2])]


def test_a_manifest_that_nothing_is_known_about_tells_its_spec(tmp_path: Path) -> None:
    path = tmp_path / "m.avro"
    with write_manifest(1, SPEC, SCHEMA, PyArrowFileIO().new_output(f"file://{path}"), SNAPSHOT, "null") as writer:
        writer.add(entry(100, None, 1))
    assert [file.spec_id for file in read_manifest(Manifest(str(path)), path.read_bytes())] == [3]


def test_files_of_another_kind_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.avro"
    with write_manifest(2, SPEC, SCHEMA, PyArrowFileIO().new_output(f"file://{path}"), SNAPSHOT, "null") as writer:
        writer.add(entry(100, None, 2))
    with pytest.raises(CorruptTableError, match="manifest list x"):
        read_manifest_list("x", path.read_bytes())
    with pytest.raises(CorruptTableError, match=r"manifest y: not an Avro file"):
        read_manifest(Manifest("y"), b"?")
