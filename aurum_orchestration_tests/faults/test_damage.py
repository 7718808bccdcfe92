"""Every operation on a table with a damaged file: refused as a corrupt table, or done right without that file.

Whatever it says, it commits nothing wrong and deletes nothing: with the file put back the table is as before.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyiceberg.manifest import DataFile, DataFileContent, ManifestContent

from aurum_orchestration_tests.faults.reading import local
from aurum_orchestration_tests.faults.scene import OPERATIONS, Scene, heal_and_finish, told

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "missing": lambda _: None,
    "cut short": lambda content: content[: len(content) // 2],
    "garbage": lambda content: (b"garbage" * len(content))[: len(content)],
}
READ_DATA = {"compaction", "partition_evolution", "stats"}
LOOK_FOR_DATA = {"backup"}
"""Not into it: a backup promises that the files are there, as long as they were written."""


def location_of(scene: Scene, kind: str) -> str:
    head = scene.table.current_snapshot()
    assert head is not None
    if kind == "metadata":
        return scene.table.metadata_location
    if kind == "manifest list":
        return head.manifest_list
    manifests = head.manifests(scene.table.io)
    if kind == "manifest":
        return next(one for one in manifests if one.content == ManifestContent.DATA).manifest_path
    entries = [entry for manifest in manifests for entry in manifest.fetch_manifest_entry(scene.table.io)]
    wanted = {"data file": DataFileContent.DATA, "delete file": DataFileContent.POSITION_DELETES}[kind]
    found: list[DataFile] = [entry.data_file for entry in entries if entry.data_file.content == wanted]
    return found[-1].file_path


def needs(operation: str, kind: str, damage: str) -> bool:
    """Whether the operation cannot do its work without the file."""
    match kind:
        case "data file":
            return operation in READ_DATA or (operation in LOOK_FOR_DATA and damage != "garbage")
        case "delete file":
            return operation in {"compaction", "partition_evolution"} or (
                operation in LOOK_FOR_DATA and damage != "garbage"
            )
        case _:
            return True


def refused_or_right(scene: Scene, operation: str, kind: str, damage: str) -> None:
    before, needed = scene.rows(), needs(operation, kind, damage)
    path = Path(local(location_of(scene, kind)))
    content = path.read_bytes()
    damaged = DAMAGES[damage](content)
    if damaged is None:
        path.unlink()
    else:
        path.write_bytes(damaged)
    stored = set(scene.disk.rglob("*"))
    _, error = scene.run(operation)
    now = set(scene.disk.rglob("*"))
    path.write_bytes(content)
    if needed:
        assert error is not None
        told(error, "corrupt-table")
        assert not error.transient
        assert path.name in error.detail
        assert stored <= now
        if "file" not in kind:  # groups without a damaged data file are rewritten
            assert stored == now
            assert scene.catalog.load_table("ns.t").metadata_location == scene.table.metadata_location
    else:
        assert error is None, error
    heal_and_finish(scene, operation, before)


@pytest.mark.parametrize(
    ("operation", "kind", "damage"),
    [
        ("compaction", "data file", "cut short"),
        ("stats", "data file", "garbage"),
        ("retention", "manifest", "missing"),
        ("vacuum", "manifest list", "garbage"),
        ("manifests", "metadata", "cut short"),
        ("backup", "delete file", "missing"),
    ],
)
def test_a_damaged_file(scene: Scene, operation: str, kind: str, damage: str) -> None:
    refused_or_right(scene, operation, kind, damage)


@pytest.mark.thorough
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["metadata", "manifest list", "manifest", "data file", "delete file"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_on_every_damage(scene: Scene, operation: str, kind: str, damage: str) -> None:
    refused_or_right(scene, operation, kind, damage)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_manifest_cut_between_two_blocks_is_no_shorter_list_of_files(scene: Scene, operation: str) -> None:
    """Its decoder finds nothing wrong with it: what it lacks would be taken for deleted, its files for orphans."""
    scene.table.append(pa.table({"id": [1000, 1001], "region": ["N", "S"], "note": ["", ""]}))
    before = scene.rows()
    path = Path(local(location_of(scene, "manifest")))
    content = path.read_bytes()
    sync = content[-16:]
    path.write_bytes(content[: content.rindex(sync, 0, -16) + 16])
    stored = set(scene.disk.rglob("*"))
    _, error = scene.run(operation)
    assert error is not None
    told(error, "corrupt-table")
    assert path.name in error.detail
    assert stored == set(scene.disk.rglob("*"))
    path.write_bytes(content)
    heal_and_finish(scene, operation, before)
