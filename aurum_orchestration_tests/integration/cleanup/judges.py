"""What the tests of retention and vacuum hold tables to, told by PyIceberg and by the disk."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from pyiceberg.table import Table

from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside

NOW: dict[str, Any] = {"retention_days": 0, "override_floor": True, "override_reason": "nobody reads this table"}
"""Parameters that let every snapshot go that is not among the last."""


DAY = 86_400


def local(location: str) -> str:
    return location.removeprefix("file://")


def snapshot_rows(table: Table) -> dict[int, Counter[str]]:
    """The rows of every snapshot, by its id."""
    return {
        snapshot.snapshot_id: Counter(map(repr, table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().to_pylist()))
        for snapshot in table.metadata.snapshots
    }


def content_of(table: Table, snapshot_id: int, known: dict[str, set[str]] | None = None) -> set[str]:
    """The manifest list, manifests and live files of a snapshot; ``known`` keeps the files of each manifest."""
    snapshot = table.metadata.snapshot_by_id(snapshot_id)
    assert snapshot is not None
    known = {} if known is None else known
    found = {local(snapshot.manifest_list)}
    for manifest in snapshot.manifests(table.io):
        path = local(manifest.manifest_path)
        if path not in known:
            entries = manifest.fetch_manifest_entry(table.io, discard_deleted=True)
            known[path] = {local(entry.data_file.file_path) for entry in entries}
        found |= {path, *known[path]}
    return found


def reachable(table: Table) -> set[str]:
    """Everything that any snapshot of the table refers to, and its statistics files."""
    files = {local(file.statistics_path) for file in (*table.metadata.statistics, *table.metadata.partition_statistics)}
    known: dict[str, set[str]] = {}
    return files.union(*(content_of(table, snapshot.snapshot_id, known) for snapshot in table.metadata.snapshots))


def on_disk(table: Table) -> set[str]:
    """Every file under the table's location but metadata files themselves."""
    return {
        str(path)
        for path in Path(local(table.location())).rglob("*")
        if path.is_file() and not path.name.endswith(".metadata.json")
    }


def rewrite_metadata(lake: Lakeside, table: Table, change: Callable[[dict[str, Any]], None]) -> Table:
    """Change the table's metadata file behind the catalog's back: a function of the decoded JSON."""
    path = Path(local(table.metadata_location))
    metadata = json.loads(path.read_text())
    change(metadata)
    new = path.with_name(f"{int(path.name[:5]) + 1:05d}-{path.name[6:]}")
    new.write_text(json.dumps(metadata))
    with closing(sqlite3.connect(lake.home / "catalog.db")) as database:
        database.execute(
            "update iceberg_tables set metadata_location = ? where metadata_location = ?",
            (f"file://{new}", table.metadata_location),
        )
        database.commit()
    return table.refresh()


def aged(lake: Lakeside, table: Table, days: float) -> Table:
    """The table as if everything in it had happened so many days earlier."""

    def shift(metadata: dict[str, Any]) -> None:
        step = int(days * 86_400_000)
        metadata["last-updated-ms"] -= step
        for name in ("snapshots", "snapshot-log", "metadata-log"):
            for item in metadata.get(name, []):
                item["timestamp-ms"] -= step

    return rewrite_metadata(lake, table, shift)


def set_properties(table: Table, **properties: str) -> Table:
    """Set table properties; two underscores stand for a dot, one for a dash."""
    given = {key.replace("__", ".").replace("_", "-"): value for key, value in properties.items()}
    table.transaction().set_properties(given).commit_transaction()
    return table.refresh()


def plant(table: Table, *names: str, days: float = 30) -> list[Path]:
    """Orphans under the table's location, written so many days ago."""
    made = []
    for name in names:
        path = Path(local(table.location())) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
        age(days, path)
        made.append(path)
    return made


def age(days: float, *paths: Path) -> None:
    moment = time.time() - days * DAY
    for path in paths:
        os.utime(path, (moment, moment))


def everything(table: Table) -> set[Path]:
    return {path for path in Path(local(table.location())).rglob("*") if path.is_file()}


def age_all(table: Table, days: float = 30) -> None:
    """Every file as if it had been written so many days ago."""
    age(days, *everything(table))


def quarantined(table: Table) -> set[Path]:
    home = Path(local(table.location())) / ".aurum-quarantine"
    return {path for path in home.rglob("*") if path.is_file() and path.name != "manifest.jsonl"}


def names(paths: Iterable[Path | str]) -> list[str]:
    return sorted(Path(path).name for path in paths)
