"""A small lake and its service, as the tests of manifests, backup, stats, bloat and undo use them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import ManifestContent
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC, PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, NestedField, StringType

import aurum_orchestration_tests.disk  # noqa: F401 - for what it does, in processes of their own too
from aurum_orchestration.history import History
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration.maintenance.metrics import METRICS
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings

SCHEMA = Schema(
    NestedField(1, "id", LongType(), required=False),
    NestedField(2, "region", StringType(), required=False),
    NestedField(3, "note", StringType(), required=False),
)
BY_REGION = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "region"))
REGIONS = ("N", "S", None, "None", "ä b/ö%20")

FLEET = """\
version: 1
backends:
  lake:
    type: iceberg
    engine: pyiceberg
    catalog: {type: sql, uri: "sqlite:///${AURUM_HOME}/catalog.db", warehouse: "file://${AURUM_HOME}/warehouse"}
policy: %s
"""


@dataclass
class Lakeside:
    """A catalog named ``lake`` with the namespace ``ns``; ``home`` is AURUM_HOME."""

    home: Path
    catalog: SqlCatalog

    @classmethod
    @contextmanager
    def at(cls, home: Path) -> Iterator[Lakeside]:
        """Open the lake in ``home``, made when it is not there."""
        home.mkdir(parents=True, exist_ok=True)
        uri, warehouse = f"sqlite:///{home}/catalog.db", f"file://{home}/warehouse"
        with closing(SqlCatalog("lake", uri=uri, warehouse=warehouse)) as catalog:
            catalog.create_namespace_if_not_exists("ns")
            lake = cls(home, catalog)
            if not (home / "fleet.yaml").exists():
                lake.policy()
            yield lake

    def policy(self, **sections: Mapping[str, Any]) -> None:
        """Write the fleet file with these policies."""
        (self.home / "fleet.yaml").write_text(FLEET % json.dumps(sections), encoding="utf-8")

    def table(
        self,
        name: str | tuple[str, ...] = "ns.t",
        spec: PartitionSpec = UNPARTITIONED_PARTITION_SPEC,
        *,
        schema: Schema = SCHEMA,
        properties: Mapping[str, str] | None = None,
        **more: str,
    ) -> Table:
        """A new table; in the name of a property given as keyword, dots are written as double underscores."""
        given = {**(properties or {}), **{key.replace("__", "."): value for key, value in more.items()}}
        return self.catalog.create_table(name, schema, partition_spec=spec, properties=given)

    @property
    def settings(self) -> AurumSettings:
        """The settings of a process that keeps this lake."""
        return AurumSettings(home=self.home, fleet=self.home / "fleet.yaml")

    def run(
        self, operation: str, table: str = "lake.ns.t", *, dry_run: bool = False, **parameters: Any
    ) -> MaintenanceResult:
        """Do one operation through the service. Every metric that it returns has to be in the catalogue."""

        async def work() -> MaintenanceResult:
            async with MaintenanceService(self.settings) as service:
                return await service.execute_maintenance(None, operation, table, dry_run, parameters)

        return _explained(asyncio.run(work()))

    def undo(self, operation_id: str, *, dry_run: bool = False) -> MaintenanceResult:
        """Take an operation back through the service."""

        async def work() -> MaintenanceResult:
            async with MaintenanceService(self.settings) as service:
                return await service.undo(operation_id, dry_run)

        return _explained(asyncio.run(work()))

    def recorded(self) -> list[MaintenanceResult]:
        """What the history has, newest first."""
        with History(self.settings.history_url) as history:
            return history.operations(None)


def _explained(result: MaintenanceResult) -> MaintenanceResult:
    assert result.metrics.keys() <= METRICS.keys(), "a metric that the catalogue does not explain"
    return result


def rows(table: Table, start: int, count: int = 10, region: str | None = "N") -> pa.Table:
    """``count`` rows with consecutive ids."""
    values = {"id": range(start, start + count), "region": [region] * count, "note": [f"note {start}"] * count}
    return pa.table({name: pa.array(list(value)) for name, value in values.items()}).cast(
        schema_to_pyarrow(table.schema().select("id", "region", "note"), include_field_ids=False)
    )


def append(table: Table, commits: int = 4, *, start: int = 0, region: str | None = "N") -> None:
    """That many appends of ten rows, a file and a manifest each; the table is refreshed."""
    for number in range(commits):
        table.append(rows(table, start + number * 10, region=region))


def contents(table: Table, snapshot_id: int | None = None) -> Counter[str]:
    """The rows of a snapshot as a multiset."""
    return Counter(map(repr, table.scan(snapshot_id=snapshot_id).to_arrow().to_pylist()))


def entries(table: Table) -> Counter[tuple[Any, ...]]:
    """What the live manifest entries of the current snapshot say of each file, as PyIceberg reads them."""
    snapshot = table.current_snapshot()
    found: Counter[tuple[Any, ...]] = Counter()
    for manifest in snapshot.manifests(table.io) if snapshot else ():
        for item in manifest.fetch_manifest_entry(table.io):
            file = item.data_file
            found[
                (
                    manifest.content,
                    manifest.partition_spec_id,
                    item.snapshot_id,
                    item.sequence_number,
                    item.file_sequence_number,
                    file.content,
                    file.file_path,
                    file.file_format,
                    repr(file.partition),
                    file.record_count,
                    file.file_size_in_bytes,
                    *(
                        repr(sorted((getattr(file, name) or {}).items()))
                        for name in (
                            "column_sizes",
                            "value_counts",
                            "null_value_counts",
                            "nan_value_counts",
                            "lower_bounds",
                            "upper_bounds",
                        )
                    ),
                    repr(file.split_offsets),
                    repr(file.equality_ids),
                    file.sort_order_id,
                )
            ] += 1
    return found


def manifests(table: Table, content: ManifestContent = ManifestContent.DATA) -> list[str]:
    """Paths of the current snapshot's manifests of a kind."""
    snapshot = table.current_snapshot()
    listed = snapshot.manifests(table.io) if snapshot else []
    return [manifest.manifest_path for manifest in listed if manifest.content == content]


def files_of(table: Table) -> set[str]:
    """Every file under the table's location."""
    root = Path(table.location().removeprefix("file://"))
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
