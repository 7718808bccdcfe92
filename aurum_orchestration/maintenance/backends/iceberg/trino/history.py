"""A table's snapshots, refs and properties as Trino's metadata tables tell them, and the time by Trino's clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aurum_orchestration.errors import StateDriftedError
from aurum_orchestration.maintenance.backends.iceberg.retention.expiry import MAIN, Ref

if TYPE_CHECKING:
    from pyiceberg.table import Table

    from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
    from aurum_orchestration.maintenance.interfaces import MaintenancePlan

UUID = "table_uuid"


@dataclass(frozen=True, slots=True)
class TrinoSnapshot:
    """A snapshot: ids, when it was committed (milliseconds since 1970), what made it and its summary."""

    snapshot_id: int
    parent_snapshot_id: int | None
    timestamp_ms: int
    operation: str
    summary: Mapping[str, str]

    @property
    def query_id(self) -> str:
        """The Trino statement that made it; empty for another engine's."""
        return self.summary.get("trino_query_id", "")


@dataclass(frozen=True, slots=True)
class TableHistory:
    """A table at one moment, ``now_ms`` by Trino's own clock, 0 where that was not asked for.

    Snapshots are in the order of their commits.
    """

    snapshots: tuple[TrinoSnapshot, ...]
    refs: Mapping[str, Ref]
    properties: Mapping[str, str]
    now_ms: int

    @property
    def head(self) -> int | None:
        """The snapshot of main, None for a table that has none."""
        main = self.refs.get(MAIN)
        return main.snapshot_id if main else None

    def by_id(self, snapshot_id: int | None) -> TrinoSnapshot | None:
        """A snapshot that the table still has."""
        return next((one for one in self.snapshots if one.snapshot_id == snapshot_id), None)

    def made_by(self, query_id: str) -> TrinoSnapshot | None:
        """The snapshot that a statement made, None when it made none."""
        return next((one for one in self.snapshots if query_id and one.query_id == query_id), None)


def read_history(table: TrinoTable, *, clock: bool = True, opened: bool = False) -> TableHistory:
    """Read it: from the catalog where the table has one that answers, which takes no statement, else from Trino.

    Without ``clock`` its time is not asked for either. ``opened``: what the catalog told when the table was opened
    will do, for whoever has just done that. Raises what the client raises: TableNotFoundError,
    BackendUnavailableError, ...
    """
    return history_of(table, table.embedded if opened else table.loaded(), clock=clock)


def history_of(table: TrinoTable, loaded: Table | None, *, clock: bool) -> TableHistory:
    """The history as the catalog told it a moment ago; from Trino where it told nothing."""
    return _of_trino(table) if loaded is None else _of_catalog(table, loaded, clock=clock)


def _of_catalog(table: TrinoTable, loaded: Table, *, clock: bool) -> TableHistory:
    from pyiceberg.table.refs import SnapshotRefType

    metadata = loaded.metadata
    snapshots = tuple(
        TrinoSnapshot(
            one.snapshot_id,
            one.parent_snapshot_id,
            one.timestamp_ms,
            one.summary.operation.value if one.summary else "",
            one.summary.additional_properties if one.summary else {},
        )
        for one in sorted(metadata.snapshots, key=lambda one: one.timestamp_ms)
    )
    refs = {
        name: Ref(
            ref.snapshot_id,
            ref.snapshot_ref_type == SnapshotRefType.BRANCH,
            ref.min_snapshots_to_keep,
            ref.max_snapshot_age_ms,
            ref.max_ref_age_ms,
        )
        for name, ref in metadata.refs.items()
    }
    properties = {**metadata.properties, "format-version": str(metadata.format_version)}
    now = table.query("SELECT CAST(to_unixtime(current_timestamp) * 1000 AS bigint)").first()[0] if clock else 0
    return TableHistory(snapshots, refs, properties, now)


def _of_trino(table: TrinoTable) -> TableHistory:
    refs = {
        str(name): Ref(int(snapshot_id), kind == "BRANCH", least, snapshot_age, ref_age)
        for name, kind, snapshot_id, least, snapshot_age, ref_age in table.query(
            "SELECT name, type, snapshot_id, min_snapshots_to_keep, max_snapshot_age_in_ms, max_reference_age_in_ms "
            f"FROM {table.relation('$refs')}"
        ).rows
    }
    told = table.query(
        "SELECT CAST(to_unixtime(current_timestamp) * 1000 AS bigint), p.key, p.value "
        f"FROM (VALUES 1) AS one(x) LEFT JOIN {table.relation('$properties')} AS p ON true"
    ).rows
    snapshots = tuple(
        TrinoSnapshot(snapshot_id, parent, round(when.timestamp() * 1000), operation or "", dict(summary or {}))
        for snapshot_id, parent, when, operation, summary in table.query(
            "SELECT snapshot_id, parent_id, committed_at, operation, summary "
            f"FROM {table.relation('$snapshots')} ORDER BY committed_at"
        ).rows
    )
    properties = {key: value for _, key, value in told if key is not None}
    return TableHistory(snapshots, refs, properties, told[0][0])


def fingerprint(table: TrinoTable, history: TableHistory) -> dict[str, object]:
    """What a plan depends on."""
    return {
        "engine": "trino",
        UUID: str(table.embedded.metadata.table_uuid) if table.embedded is not None else None,
        "snapshot_id": history.head,
    }


def refuse_other_table(table: TrinoTable, history: TableHistory, plan: MaintenancePlan) -> None:
    """Raise StateDriftedError when the name means another table than when the plan was made."""
    planned = plan.fingerprint
    uuid = str(table.embedded.metadata.table_uuid) if table.embedded is not None else None
    known = planned["snapshot_id"] is None or history.by_id(planned["snapshot_id"]) is not None
    if (uuid is not None and planned.get(UUID) not in {None, uuid}) or not known:
        raise StateDriftedError("the table was dropped and created anew since, or lost snapshots", table=plan.table)
