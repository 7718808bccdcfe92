"""Measuring many Iceberg tables at once, at two depths.

Cheap, for all: what the current metadata file tells, read only when it changed. Deep, for tables whose
cheap numbers do not rule out a compaction: the manifests of the current snapshot, which tell exactly
which files a compaction would rewrite. Deep reading has a time budget, worst tables first; what it
does not reach keeps estimates (``exact`` 0) until a later call reaches it.

What is kept by the ten thousand is a Struct outside the garbage collector, whose passes over them
would otherwise take as long as the measuring.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
from pydantic import BaseModel

from aurum_orchestration.errors import AurumError, CorruptTableError, ProblemDetail
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.failures import catalog_errors
from aurum_orchestration.maintenance.backends.iceberg.files import Files, in_threads
from aurum_orchestration.maintenance.backends.iceberg.layout import Rules, estimate, layout_of, suspicion
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.sizes import (
    excess_of,
    manifests_refusal,
    target_of,
)
from aurum_orchestration.maintenance.backends.iceberg.manifests import (
    EQUALITY_DELETES,
    Contents,
    LiveFile,
    Manifest,
    ManifestReader,
)
from aurum_orchestration.maintenance.backends.iceberg.metadata import TableState, table_state
from aurum_orchestration.maintenance.backends.iceberg.refusals import compaction_refusal, foreign_files_refusal
from aurum_orchestration.maintenance.backends.iceberg.retention.outlook import NOTHING, Outlook, outlook
from aurum_orchestration.maintenance.backends.iceberg.sources import Opened, Source, source_of
from aurum_orchestration.maintenance.interfaces import OperationType, PolicyLookup, TableHealth
from aurum_orchestration.maintenance.operations.retention import RetentionParameters

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from aurum_orchestration.maintenance.backends.iceberg.sql_listing import SqlListing

COMPACTION, MANIFESTS = OperationType.COMPACTION.value, OperationType.MANIFESTS.value
RETENTION, VACUUM = OperationType.RETENTION.value, OperationType.VACUUM.value
UNKNOWN = "unknown"
"""State token of a table that could not be measured."""


class _Judgement(msgspec.Struct, frozen=True, gc=False):
    """Numbers and refusals of one state under the rules of one policy. ``exact``: not estimated."""

    policy: BaseModel
    rules: Rules
    suspicion: float
    exact: bool
    metrics: dict[str, float]
    refusals: dict[str, str]


class _Known(msgspec.Struct, gc=False):
    """The latest known state of a table, how its files are read, and the last judgement of it."""

    state: TableState
    files: Files
    judgement: _Judgement | None = None
    retention: BaseModel | None = None
    outlook: Outlook = NOTHING

    def expirable(self, policy: BaseModel, now_ms: int) -> int | None:
        """Snapshots that may go under a policy; None when it is no retention policy."""
        if not isinstance(policy, RetentionParameters):
            return None
        if policy is not self.retention or now_ms >= self.outlook.until_ms:
            self.retention = policy
            foreign = foreign_files_refusal(self.state.properties)
            self.outlook = NOTHING if foreign else outlook(self.state.history, policy, now_ms)
        return self.outlook.expirable

    def judged(self, policy: BaseModel) -> _Judgement:
        """The judgement under a policy: the last one when its rules are the same, else one by the metadata alone."""
        last = self.judgement
        if last is not None and last.policy is policy:
            return last
        rules = Rules.of(policy)
        if last is not None and last.rules == rules:
            new = msgspec.structs.replace(last, policy=policy)
        else:
            new = _by_metadata(self.state, policy, rules)
        self.judgement = new
        return new


def _by_metadata(state: TableState, policy: BaseModel, rules: Rules) -> _Judgement:
    small, excess = estimate(state, rules)
    exact = state.files is not None and state.files < rules.min_input_files
    metrics = {**state.metrics, "exact": float(exact)}
    if state.windows:
        metrics |= {"small_files": float(small), "excess_files": float(excess)}
    refusals = _refusals(state, ())
    return _Judgement(policy, rules, suspicion(state, rules), exact, metrics, refusals)


def _by_contents(state: TableState, before: _Judgement, contents: Contents) -> _Judgement:
    layout = layout_of(contents.data, before.rules)
    metrics = {
        **state.metrics,
        **layout.metrics,
        **_manifest_metrics(contents.manifests, state.properties),
        "delete_files": float(len(contents.deletes)),
        "equality_delete_files": float(sum(file.content == EQUALITY_DELETES for file in contents.deletes)),
        "exact": 1.0,
    }
    refusals = _refusals(state, layout.candidates)
    return msgspec.structs.replace(before, exact=True, metrics=metrics, refusals=refusals)


def _manifest_metrics(listed: Sequence[Manifest], properties: Mapping[str, str]) -> dict[str, float]:
    """How many manifests there are, and, where the list says how large they are, how many fewer would do."""
    found = {"manifests": float(len(listed))}
    kinds: dict[tuple[bool, int | None], list[int]] = {}
    for manifest in listed:
        if manifest.length is None:
            return found
        if manifest.live != 0:
            kinds.setdefault((manifest.deletes, manifest.spec_id), []).append(manifest.length)
    target = target_of(properties)
    found["manifest_bytes"] = float(sum(manifest.length or 0 for manifest in listed))
    found["excess_manifests"] = float(sum(excess_of(sizes, target) for sizes in kinds.values()))
    return found


def _refusals(state: TableState, candidates: Sequence[LiveFile]) -> dict[str, str]:
    reason = compaction_refusal(
        format_version=state.format_version,
        encrypted=state.encrypted,
        properties=state.properties,
        candidates=candidates,
    )
    manifests = manifests_refusal(state.format_version, encrypted=state.encrypted)
    foreign = foreign_files_refusal(state.properties)
    found = {COMPACTION: reason, MANIFESTS: manifests, RETENTION: foreign, VACUUM: foreign}
    return {operation: told for operation, told in found.items() if told is not None}


class _Row(msgspec.Struct, gc=False):
    """A table in one call: what is known of it, or why it cannot be measured."""

    table: TableId
    known: _Known | None
    judgement: _Judgement | None = None
    retention: BaseModel | None = None
    problem: ProblemDetail | None = None

    def fail(self, error: AurumError) -> None:
        """Say why it cannot be measured. By its traceback the error itself would lead back here: never garbage."""
        self.problem = error.problem(table=str(self.table), operation=None)

    def judge(self, policy: PolicyLookup) -> None:
        if self.known is not None and self.problem is None:
            self.judgement = self.known.judged(policy(self.table, COMPACTION))
            self.retention = policy(self.table, RETENTION)


class IcebergMeasurer:
    """Measures tables of one catalog; remembers them, so that the next time only what changed is read.

    ``deep_seconds`` bounds the reading of manifests in one call. ``survey_seconds`` is for tables that look
    well in the summaries, where very large files may still hide small ones: a few more of them are read in
    every call until all are known exactly. ``max_tables`` and ``max_files`` bound what is remembered.
    ``source``: one that is shared with listing.
    """

    def __init__(
        self,
        catalog: Catalog | SqlListing,
        backend_name: str,
        *,
        source: Source | None = None,
        deep_seconds: float = 10.0,
        survey_seconds: float = 0.02,
        max_tables: int = 50_000,
        max_files: int = 500_000,
    ) -> None:
        self._catalog = catalog
        self._backend = backend_name
        self._deep_seconds = deep_seconds
        self._survey_seconds = survey_seconds
        self._max_tables = max_tables
        self._source: Source = source or source_of(catalog)
        self._reader = ManifestReader(max_files)
        self._known: dict[TableId, _Known] = {}

    def measure(self, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        """Health of the tables, in the order given. A table that cannot be measured has a problem.

        Raises BackendUnavailableError when the catalog itself does not answer.
        """
        rows = [_Row(table, self._known.get(table)) for table in tables]
        self._refresh(rows)
        for row in rows:
            row.judge(policy)
        self._deepen(rows)
        now = datetime.now(UTC)
        return [self._health(row, now) for row in rows]

    def _refresh(self, rows: Sequence[_Row]) -> None:
        """Read what changed since the tables were known, or was never."""
        tables = [row.table for row in rows]
        locations = [row.known.state.location if row.known is not None else None for row in rows]
        with catalog_errors(self._backend, self._catalog.properties):
            for position, found in self._source.changed(tables, locations):
                row = rows[position]
                if isinstance(found, AurumError):
                    row.fail(found)
                elif isinstance(found, Opened):
                    self._remember(row, found)
                elif row.known is not None:
                    row.known.files = found

    def _remember(self, row: _Row, opened: Opened) -> None:
        try:
            state = table_state(opened.location, opened.metadata, opened.size)
        except CorruptTableError as error:
            row.fail(error)
            return
        row.known = _Known(state, opened.files.for_table(state.properties))
        self._known.pop(row.table, None)
        self._known[row.table] = row.known
        while len(self._known) > self._max_tables:
            self._known.pop(next(iter(self._known)), None)

    def _deepen(self, rows: Iterable[_Row]) -> None:
        """Read the manifests that matter: of suspects, most suspicious first, then of a few that look well."""
        suspects: list[tuple[float, int, _Row]] = []
        unsure: list[tuple[float, int, _Row]] = []
        for row in rows:
            judgement, known = row.judgement, row.known
            if judgement is None or known is None or judgement.exact or known.state.encrypted:
                continue
            if judgement.suspicion >= judgement.rules.clear:
                suspects.append((-judgement.suspicion, len(suspects), row))
            elif (known.state.files or 0) > judgement.rules.clear:
                unsure.append((-(known.state.files or 0), len(unsure), row))
        for queue, seconds in ((suspects, self._deep_seconds), (unsure, self._survey_seconds)):
            if queue:
                self._read_deep([row for _, _, row in sorted(queue)], time.monotonic() + seconds)

    def _read_deep(self, rows: Sequence[_Row], deadline: float) -> None:
        local: list[_Row] = []
        remote: list[_Row] = []
        for row in rows:
            known = row.known
            (local if known is not None and known.files.is_local(known.state.location) else remote).append(row)
        for row in local:
            self._read_contents(row, deadline)
        if remote:
            list(in_threads(lambda row: self._read_contents(row, deadline), remote))

    def _read_contents(self, row: _Row, deadline: float) -> None:
        known, judgement = row.known, row.judgement
        if known is None or judgement is None or time.monotonic() >= deadline:
            return
        try:
            contents = self._reader.contents(known.state, known.files, lambda: time.monotonic() >= deadline)
            if contents is not None:
                row.judgement = known.judgement = _by_contents(known.state, judgement, contents)
        except CorruptTableError as error:
            # a commit may have removed the files meanwhile: then the next call sees the new state
            if self._source.location(row.table) == known.state.location:
                row.fail(error)
        except AurumError as error:
            row.fail(error)

    def _health(self, row: _Row, now: datetime) -> TableHealth:
        if row.problem is None and row.judgement is None:
            row.fail(CorruptTableError("it could not be measured"))
        if row.problem is not None or row.judgement is None or row.known is None:
            return TableHealth(row.table, self._backend, UNKNOWN, now, problem=row.problem)
        state, judgement = row.known.state, row.judgement
        age = max(0.0, now.timestamp() - state.committed_ms / 1000)
        metrics = {**judgement.metrics, "seconds_since_commit": age}
        if (oldest := state.history.oldest_ms) is not None:
            metrics["oldest_snapshot_seconds"] = max(0.0, now.timestamp() - oldest / 1000)
            metrics["history_expired"] = float(state.history.expired)
        if row.retention is not None:
            expirable = row.known.expirable(row.retention, int(now.timestamp() * 1000))
            if expirable is not None:
                metrics["expirable_snapshots"] = float(expirable)
        return TableHealth(row.table, self._backend, state.token, now, metrics, judgement.refusals)
