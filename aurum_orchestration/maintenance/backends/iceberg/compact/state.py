"""A table at one snapshot, as compaction sees it: live data files and delete files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pyiceberg.catalog import Catalog
from pyiceberg.expressions.visitors import expression_evaluator, inclusive_projection
from pyiceberg.manifest import DataFile, ManifestContent, ManifestEntry
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from aurum_orchestration.errors import CorruptTableError, RequestError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader, manifests_of, partition_key


@dataclass
class TableState:
    """A loaded table with the live entries of its main branch."""

    table: Table
    snapshot: Snapshot | None
    data: list[ManifestEntry] = field(default_factory=list)
    deletes: list[ManifestEntry] = field(default_factory=list)

    @property
    def spec(self) -> PartitionSpec:
        """The table's current partition spec."""
        return self.table.metadata.spec()

    def fingerprint(self) -> dict[str, Any]:
        """What a plan depends on."""
        metadata = self.table.metadata
        return {
            "table_uuid": str(metadata.table_uuid),
            "snapshot_id": self.snapshot.snapshot_id if self.snapshot else None,
            "schema_id": metadata.current_schema_id,
            "spec_id": metadata.default_spec_id,
        }


def load_table(catalog: Catalog, table: TableId) -> Table:
    """The PyIceberg table. Raises TableNotFoundError, CorruptTableError or BackendUnavailableError."""
    from pyiceberg.catalog.sql import SqlCatalog

    from aurum_orchestration.maintenance.backends.iceberg.failures import NOT_METADATA, catalog_errors, message_of
    from aurum_orchestration.maintenance.backends.iceberg.sources import SqlSource

    with catalog_errors(table.backend, catalog.properties):
        try:
            return catalog.load_table(table.parts)
        except NOT_METADATA as error:
            if not isinstance(catalog, SqlCatalog):
                raise
            file = SqlSource(catalog).location(table)  # which PyIceberg does not tell
            raise CorruptTableError(
                f"metadata file {file} cannot be read: {message_of(error)}", table=str(table)
            ) from error


def read_state(table: Table, reader: EntryReader, snapshot: Snapshot | None = None) -> TableState:
    """Read the manifests of a snapshot, or of the table's main branch."""
    snapshot = snapshot or table.metadata.snapshot_by_name(MAIN_BRANCH)
    state = TableState(table, snapshot)
    if snapshot is None:
        return state
    for manifest in manifests_of(snapshot, table.io):
        if not (manifest.has_added_files() or manifest.has_existing_files()):
            continue
        entries = reader.live(manifest)
        if manifest.content == ManifestContent.DATA:
            state.data.extend(entries)
        else:
            state.deletes.extend(entries)
    return state


def partitions_of(files: Sequence[ManifestEntry]) -> dict[tuple[int, str], list[ManifestEntry]]:
    """Entries by partition (spec and values), in the order in which they were committed."""
    groups: dict[tuple[int, str], list[ManifestEntry]] = {}
    for item in sorted(files, key=lambda item: item.sequence_number or 0):
        groups.setdefault(partition_key(item.data_file), []).append(item)
    return groups


def filter_partitions(state: TableState, text: str) -> list[ManifestEntry]:
    """The entries whose partition may hold rows for which ``text`` is true.

    Raises RequestError when it is no expression or names a column that the table is not partitioned by.
    """
    from pyiceberg.expressions.parser import parse

    schema, spec = state.table.schema(), state.spec
    sources = {schema.find_column_name(item.source_id) for item in spec.fields}
    try:
        project = inclusive_projection(schema, spec)
        expression = parse(text)
        names = _columns_of(expression)
        projected = project(expression)
    except Exception as error:
        raise RequestError(f"partition_filter {text!r}: {error}", hint="Write e.g. \"day = '2026-01-31'\".") from error
    if unknown := sorted(names - {name for name in sources if name}):
        known = ", ".join(sorted(name for name in sources if name)) or "nothing"
        raise RequestError(
            f"partition_filter names {', '.join(unknown)}, but the table is partitioned by {known}",
            hint="Only columns that the table is partitioned by can be named: files are chosen whole.",
        )
    partition_schema = _schema_of(spec, state)
    matches = expression_evaluator(partition_schema, projected, case_sensitive=True)
    return [item for item in state.data if item.data_file.spec_id == spec.spec_id and matches(item.data_file.partition)]


def _schema_of(spec: PartitionSpec, state: TableState) -> Any:
    from pyiceberg.schema import Schema

    return Schema(*spec.partition_type(state.table.schema()).fields)


def _columns_of(expression: Any) -> set[str]:
    """Names of the columns that an unbound expression refers to."""
    if (term := getattr(expression, "term", None)) is not None:
        return {term.name}
    children = [getattr(expression, name, None) for name in ("left", "right", "child")]
    return {name for child in children if child is not None for name in _columns_of(child)}


def partition_text(file: DataFile, spec: PartitionSpec, table: Table) -> str:
    """A partition as its path, e.g. ``day=2026-01-31``; empty when the table is not partitioned."""
    return spec.partition_to_path(file.partition, table.schema()) if spec.fields else ""
