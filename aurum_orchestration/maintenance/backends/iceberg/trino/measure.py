"""Measuring many tables through Trino alone, with the numbers and names of the embedded engine.

Cheapest, for tables that are known: which snapshot is the current one, as a statement's plan names it. Cheap, for
those that changed or are not known: ``$snapshots``, ``$refs`` and ``$properties``, in one statement. Deep, for the
tables whose summaries do not rule out a compaction, the most suspicious first and so many a call: ``$manifests`` and
``$files``. Where the backend has its ``catalog``, the embedded engine measures instead.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec
from pydantic import BaseModel

from aurum_orchestration.errors import AurumError, CorruptTableError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.layout import Rules, estimate, layout_of, suspicion
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.sizes import excess_of, target_of
from aurum_orchestration.maintenance.backends.iceberg.manifests import EQUALITY_DELETES, LiveFile
from aurum_orchestration.maintenance.backends.iceberg.metadata import (
    EMPTY,
    Metadata,
    Ref,
    Snapshot,
    Summary,
    TableState,
    table_state,
)
from aurum_orchestration.maintenance.backends.iceberg.retention.outlook import outlook
from aurum_orchestration.maintenance.backends.iceberg.trino.batches import Rows, current_snapshots, gather
from aurum_orchestration.maintenance.backends.iceberg.trino.capabilities import Capabilities, session_property
from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient
from aurum_orchestration.maintenance.backends.iceberg.trino.refusals import refusals
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import relation
from aurum_orchestration.maintenance.interfaces import OperationType, PolicyLookup, TableHealth
from aurum_orchestration.maintenance.operations.retention import RetentionParameters

SETTLED_SECONDS = 600.0
"""Refs, properties and the history change without a new snapshot: they are read again after so long."""

DEEP_TABLES = 200
DEEP_FILES = 200_000
"""In one call at most so many tables are read deep, and so many files listed."""

_SNAPSHOT, _REF, _PROPERTY = "s", "r", "p"
_UNKNOWN = "unknown"
_STATISTICS = "statistics_enabled"


@dataclass
class _Known:
    """What is remembered of a table between calls. ``planned``: a plan may be asked for its current snapshot."""

    snapshots: tuple[int, ...]
    settled_at: float
    refs: dict[str, Ref]
    properties: dict[str, str]
    state: TableState | None = None
    planned: bool = True
    deep_token: str = ""
    contents: _Contents | None = None


@dataclass(frozen=True)
class _Contents:
    files: Sequence[LiveFile]
    manifests: Mapping[int, Sequence[int]]


@dataclass
class _Row:
    number: int
    table: TableId
    snapshots: Rows = field(default_factory=list)
    state: TableState | None = None
    problem: AurumError | None = None


class TrinoMeasurer:
    """Measures tables through one coordinator and remembers them. Safe for one caller at a time."""

    def __init__(self, client: TrinoClient, backend: str, capabilities: Capabilities) -> None:
        self._client = client
        self._backend = backend
        self._capabilities = capabilities
        self._known: dict[TableId, _Known] = {}
        # the planner would read what each table's files say of themselves
        known = capabilities.has_session_property(_STATISTICS)
        self._planning = {session_property(client, _STATISTICS): "false"} if known else {}

    def measure(self, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        """Health of the tables, in the order given. A table that cannot be measured has a problem.

        Raises the client's error when Trino cannot be asked at all.
        """
        rows = [_Row(number, table) for number, table in enumerate(tables)]
        changed = self._recall(rows, policy)
        self._read(rows, changed)
        self._settle(rows)
        for row in rows:
            self._describe(row)
        rules = {
            row.number: Rules.of(policy(row.table, OperationType.COMPACTION.value)) for row in rows if not row.problem
        }
        self._deepen(rows, rules)
        now = datetime.now(UTC)
        return [
            self._health(row, rules.get(row.number), policy(row.table, OperationType.RETENTION.value), now)
            for row in rows
        ]

    def _recall(self, rows: Sequence[_Row], policy: PolicyLookup) -> set[int]:
        """Give the tables whose current snapshot is still the same the state that is remembered; the others' numbers.

        An expiry leaves that snapshot as it is, so tables with snapshots that may go are not asked about.
        """
        now = time.monotonic()
        now_ms = int(datetime.now(UTC).timestamp() * 1000)
        asked: dict[int, TableId] = {}
        states: dict[int, TableState] = {}
        for row in rows:
            known = self._known.get(row.table)
            if known is None or known.state is None or not known.planned or now - known.settled_at > SETTLED_SECONDS:
                continue
            if not _expirable(known.state, policy(row.table, OperationType.RETENTION.value), now_ms):
                asked[row.number], states[row.number] = row.table, known.state
        for number, found in current_snapshots(self._client, asked, self._planning).items():
            if isinstance(found, AurumError):
                self._known[asked[number]].planned = False
            elif states[number].token == (EMPTY if found is None else str(found)):
                rows[number].state = states[number]
        return {number for number in asked if rows[number].state is None}

    def _read(self, rows: Sequence[_Row], changed: Set[int]) -> None:
        """Read the snapshots; in the same statement refs and properties of tables that changed or are not known.

        Half of what a statement takes is looking up its tables, so nothing is asked of a table in two of them.
        """
        now = time.monotonic()
        whole = {row.number for row in rows if row.number in changed or not self._settled(row, now)}
        selects = {
            row.number: [self._snapshots(row), *(self._settling(row) if row.number in whole else ())]
            for row in rows
            if row.state is None
        }
        for number, found in gather(self._client, selects).items():
            row = rows[number]
            if isinstance(found, AurumError):
                row.problem = found
                continue
            snapshots = [
                (id_, parent, at, text, more) for kind, _, text, id_, parent, *_, at, more in found if kind == _SNAPSHOT
            ]
            row.snapshots = sorted(snapshots, key=lambda one: one[2])
            if number in whole:
                self._remember(row, found, now)

    def _settled(self, row: _Row, now: float) -> bool:
        known = self._known.get(row.table)
        return known is not None and now - known.settled_at <= SETTLED_SECONDS

    def _settle(self, rows: Sequence[_Row]) -> None:
        """Read refs and properties of the tables that turned out to have changed."""
        now = time.monotonic()
        unsettled = {}
        for row in rows:
            known = self._known.get(row.table)
            ids = tuple(one[0] for one in row.snapshots)
            if not (row.state or row.problem) and known is not None and known.snapshots != ids:
                unsettled[row.number] = self._settling(row)
        for number, found in gather(self._client, unsettled).items():
            if isinstance(found, AurumError):
                rows[number].problem = found
            else:
                self._remember(rows[number], found, now)

    def _remember(self, row: _Row, found: Rows, now: float) -> None:
        before = self._known.get(row.table)
        self._known[row.table] = _Known(
            tuple(one[0] for one in row.snapshots),
            now,
            {
                name: Ref(snapshot_id, str(type_).lower(), least, snapshot_age, ref_age)
                for kind, name, type_, snapshot_id, ref_age, least, snapshot_age, *_ in found
                if kind == _REF
            },
            {str(name): str(value) for kind, name, value, *_ in found if kind == _PROPERTY},
            planned=before.planned if before else True,
            deep_token=before.deep_token if before else "",
            contents=before.contents if before else None,
        )

    def _snapshots(self, row: _Row) -> str:
        return (
            f"SELECT {row.number}, '{_SNAPSHOT}', NULL, manifest_list, snapshot_id, parent_id, NULL, NULL, "
            f"committed_at, summary FROM {relation(self._client.catalog, row.table, '$snapshots')}"
        )

    def _settling(self, row: _Row) -> list[str]:
        refs, properties = (relation(self._client.catalog, row.table, suffix) for suffix in ("$refs", "$properties"))
        return [
            f"SELECT {row.number}, '{_REF}', name, type, snapshot_id, max_reference_age_in_ms, "
            f"min_snapshots_to_keep, max_snapshot_age_in_ms, NULL, NULL FROM {refs}",
            f"SELECT {row.number}, '{_PROPERTY}', key, value, NULL, NULL, NULL, NULL, NULL, NULL FROM {properties}",
        ]

    def _describe(self, row: _Row) -> None:
        known = self._known.get(row.table)
        if row.state is not None or known is None:
            return
        known.state = None
        if row.problem:
            return
        try:
            row.state = known.state = table_state("", _metadata(row.snapshots, known), None)
        except (CorruptTableError, msgspec.ValidationError) as error:
            row.problem = error if isinstance(error, AurumError) else CorruptTableError(f"its summary: {error}")

    def _deepen(self, rows: Sequence[_Row], rules: Mapping[int, Rules]) -> None:
        suspects: list[tuple[float, _Row]] = []
        for row in rows:
            if row.state is None or row.problem:
                continue
            found, mine = suspicion(row.state, rules[row.number]), rules[row.number]
            if found >= mine.clear and self._known[row.table].deep_token != row.state.token:
                suspects.append((found, row))
        suspects.sort(key=lambda pair: -pair[0])
        chosen = [row for _, row in suspects[:DEEP_TABLES]]
        if not chosen:
            return
        listed = gather(self._client, {row.number: [self._manifests(row)] for row in chosen})
        reading: list[_Row] = []
        files = 0
        for row in chosen:
            found_rows = listed[row.number]
            if isinstance(found_rows, AurumError):
                row.problem = found_rows
                continue
            files += sum(one[2] for one in found_rows)
            if files <= DEEP_FILES or not reading:
                reading.append(row)
        partitioned = {row.number: any(one[3] for one in listed[row.number]) for row in reading}  # type: ignore[union-attr]
        contents = gather(self._client, {row.number: [self._files(row, partitioned[row.number])] for row in reading})
        for row in reading:
            found_rows = contents[row.number]
            if isinstance(found_rows, AurumError):
                row.problem = found_rows
                continue
            manifests: dict[int, list[int]] = {}
            for spec, length, *_ in listed[row.number]:  # type: ignore[union-attr]
                manifests.setdefault(spec, []).append(length)
            known = self._known[row.table]
            known.contents = _Contents([_live(one) for one in found_rows], manifests)
            known.deep_token = row.state.token if row.state else ""

    def _manifests(self, row: _Row) -> str:
        return (
            f"SELECT {row.number}, partition_spec_id, length, "
            "COALESCE(added_data_files_count, 0) + COALESCE(existing_data_files_count, 0), "
            "COALESCE(cardinality(partition_summaries), 0) > 0 "
            f"FROM {relation(self._client.catalog, row.table, '$manifests')}"
        )

    def _files(self, row: _Row, partitioned: bool) -> str:
        # an unpartitioned table has no column of that name
        partition = "json_format(CAST(partition AS json))" if partitioned else "''"
        return (
            f"SELECT {row.number}, content, file_format, {partition}, record_count, file_size_in_bytes, spec_id "
            f"FROM {relation(self._client.catalog, row.table, '$files')}"
        )

    def _health(self, row: _Row, rules: Rules | None, retention: BaseModel, now: datetime) -> TableHealth:
        state = row.state
        if row.problem is not None or state is None or rules is None:
            error = row.problem or CorruptTableError("it could not be measured")
            problem = error.problem(table=str(row.table))
            return TableHealth(row.table, self._backend, _UNKNOWN, now, problem=problem)
        known = self._known[row.table]
        small, excess = estimate(state, rules)
        metrics = {**state.metrics, "exact": float(state.files is not None and state.files < rules.min_input_files)}
        if state.windows:
            metrics |= {"small_files": float(small), "excess_files": float(excess)}
        if known.contents is not None and known.deep_token == state.token:
            metrics |= _exact(known.contents, rules, known.properties)
        metrics["seconds_since_commit"] = max(0.0, now.timestamp() - state.committed_ms / 1000)
        if (oldest := state.history.oldest_ms) is not None:
            metrics["oldest_snapshot_seconds"] = max(0.0, now.timestamp() - oldest / 1000)
            metrics["history_expired"] = float(state.history.expired)
        if isinstance(retention, RetentionParameters):
            metrics["expirable_snapshots"] = float(_expirable(state, retention, int(now.timestamp() * 1000)))
        told = refusals(state.format_version, known.properties, self._capabilities)
        return TableHealth(row.table, self._backend, state.token, now, metrics, told)


def _expirable(state: TableState, retention: BaseModel, now_ms: int) -> int:
    """How many snapshots may go, none where the policy does not say."""
    return outlook(state.history, retention, now_ms).expirable if isinstance(retention, RetentionParameters) else 0


def _metadata(snapshots: Iterable[tuple[Any, ...]], known: _Known) -> Metadata:
    made = [
        Snapshot(
            snapshot_id=snapshot_id,
            timestamp_ms=round(committed_at.timestamp() * 1000),
            parent_snapshot_id=parent_id,
            manifest_list=manifest_list,
            summary=msgspec.convert(summary or {}, Summary, strict=False),
        )
        for snapshot_id, parent_id, committed_at, manifest_list, summary in snapshots
    ]
    main = known.refs.get("main")
    return Metadata(
        format_version=int(known.properties.get("format-version", 2)),
        last_updated_ms=made[-1].timestamp_ms if made else 0,
        location=known.properties.get("location", ""),
        current_snapshot_id=main.snapshot_id if main else None,
        snapshots=made,
        refs=known.refs,
        properties=dict(known.properties),
    )


def _live(row: tuple[Any, ...]) -> LiveFile:
    content, file_format, partition, records, size, spec = row
    return LiveFile(content, str(file_format).upper(), (partition,), records, size, None, spec, 0)


def _exact(contents: _Contents, rules: Rules, properties: Mapping[str, str]) -> dict[str, float]:
    deletes = [file for file in contents.files if file.content != 0]
    layout = layout_of([file for file in contents.files if file.content == 0], rules)
    target = target_of(properties)
    # which manifests list deletes is not told; they are not joined with the others, so at least one more stays
    stays = 1 if deletes else 0
    excess = sum(max(0, excess_of(sizes, target) - stays) for sizes in contents.manifests.values())
    return {
        **layout.metrics,
        "delete_files": float(len(deletes)),
        "equality_delete_files": float(sum(file.content == EQUALITY_DELETES for file in deletes)),
        "manifests": float(sum(map(len, contents.manifests.values()))),
        "manifest_bytes": float(sum(map(sum, contents.manifests.values()))),
        "excess_manifests": float(excess),
        "exact": 1.0,
    }
