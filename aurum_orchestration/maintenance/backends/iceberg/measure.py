"""Measuring many Iceberg tables at once, at two depths.

Cheap, for all: what the current metadata file tells, read only when it changed. Deep, for tables whose
cheap numbers do not rule out a compaction: the manifests of the current snapshot, which tell exactly
which files a compaction would rewrite. Deep reading has a time budget, worst tables first; what it
does not reach keeps estimates (``exact`` 0) and comes first-served the next time.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from pydantic import BaseModel
from pyiceberg.catalog import Catalog

from aurum_orchestration.errors import AurumError, CorruptTableError, as_aurum_error
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.failures import catalog_errors
from aurum_orchestration.maintenance.backends.iceberg.files import Files, in_threads
from aurum_orchestration.maintenance.backends.iceberg.layout import Rules, estimate, layout_of, suspicion
from aurum_orchestration.maintenance.backends.iceberg.manifests import EQUALITY_DELETES, Contents, ManifestReader
from aurum_orchestration.maintenance.backends.iceberg.metadata import TableState, table_state
from aurum_orchestration.maintenance.backends.iceberg.refusals import compaction_refusal
from aurum_orchestration.maintenance.backends.iceberg.sources import Opened, Source, source_of
from aurum_orchestration.maintenance.interfaces import OperationType, PolicyLookup, TableHealth

COMPACTION = OperationType.COMPACTION.value
UNKNOWN = "unknown"
"""State token of a table that could not be measured."""


class _Measured:
    """The latest known state of one table, and the numbers made of it under the rules of its policy."""

    __slots__ = ("exact", "files", "metrics", "policy", "refusals", "rules", "state", "suspicion")

    def __init__(self, state: TableState, files: Files) -> None:
        self.state = state
        self.files = files
        self.policy: BaseModel | None = None
        self.rules: Rules | None = None
        self.suspicion = 0.0
        self.exact = False
        self.metrics: dict[str, float] = {}
        self.refusals: dict[str, str] = {}

    def follow(self, policy: BaseModel) -> None:
        """Take over a policy; what was known stays when its rules are those of the one before."""
        rules = Rules.of(policy)
        self.policy = policy
        if self.rules != rules:
            self.judge(rules)

    def judge(self, rules: Rules) -> None:
        """Numbers and refusals from the metadata file alone."""
        state = self.state
        small, excess = estimate(state, rules)
        self.rules = rules
        self.suspicion = suspicion(state, rules)
        self.exact = state.files is not None and state.files < rules.min_input_files
        self.metrics = dict(state.metrics, exact=float(self.exact))
        if state.windows:
            self.metrics |= {"small_files": float(small), "excess_files": float(excess)}
        self._refuse(
            compaction_refusal(
                format_version=state.format_version,
                default_spec_id=state.default_spec_id,
                delete_files=int(state.metrics.get("delete_files", 0)),
                encrypted=state.encrypted,
                properties=state.properties,
            )
        )

    def judge_exactly(self, rules: Rules, contents: Contents) -> None:
        """Numbers and refusals from the live files."""
        state = self.state
        layout = layout_of(contents.data, rules)
        self.exact = True
        self.metrics = {
            **state.metrics,
            **layout.metrics,
            "manifests": float(contents.manifests),
            "delete_files": float(len(contents.deletes)),
            "equality_delete_files": float(sum(file.content == EQUALITY_DELETES for file in contents.deletes)),
            "exact": 1.0,
        }
        self._refuse(
            compaction_refusal(
                format_version=state.format_version,
                default_spec_id=state.default_spec_id,
                delete_files=len(contents.deletes),
                encrypted=state.encrypted,
                properties=state.properties,
                candidates=layout.candidates,
            )
        )

    def _refuse(self, reason: str | None) -> None:
        self.refusals = {} if reason is None else {COMPACTION: reason}


class IcebergMeasurer:
    """Measures tables of one catalog; remembers them, so that the next time only what changed is read.

    ``deep_seconds`` bounds the reading of manifests in one call. ``survey_seconds`` is for tables that look
    well in the summaries, where very large files may still hide small ones: a few more of them are read in
    every call until all are known exactly. ``max_tables`` and ``max_files`` bound what is remembered.
    """

    def __init__(
        self,
        catalog: Catalog,
        backend_name: str,
        *,
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
        self._source: Source = source_of(catalog)
        self._reader = ManifestReader(max_files)
        self._known: dict[TableId, _Measured] = {}

    def measure(self, tables: Sequence[TableId], policy: PolicyLookup) -> list[TableHealth]:
        """Health of the tables, in the order given. A table that cannot be measured has a problem.

        Raises BackendUnavailableError when the catalog itself does not answer.
        """
        problems: dict[int, AurumError] = {}
        measured = self._refresh(tables, problems)
        for position, (table, one) in enumerate(zip(tables, measured, strict=True)):
            if one is not None and position not in problems:
                given = policy(table, COMPACTION)
                if one.policy is not given:
                    one.follow(given)
        self._deepen(tables, measured, problems)
        now = datetime.now(UTC)
        return [
            self._healthy(table, one, now)
            if one is not None and position not in problems
            else self._failed(table, problems[position], now)
            for position, (table, one) in enumerate(zip(tables, measured, strict=True))
        ]

    def _refresh(self, tables: Sequence[TableId], problems: dict[int, AurumError]) -> list[_Measured | None]:
        measured = [self._known.get(table) for table in tables]
        locations = [one.state.location if one is not None else None for one in measured]
        with catalog_errors(self._backend, self._catalog.properties):
            for position, opened in self._source.changed(tables, locations):
                if isinstance(opened, AurumError):
                    problems[position] = opened
                    continue
                try:
                    measured[position] = self._remember(tables[position], opened)
                except CorruptTableError as error:
                    problems[position] = error
        return measured

    def _remember(self, table: TableId, opened: Opened) -> _Measured:
        state = table_state(opened.location, opened.metadata, opened.size)
        one = _Measured(state, opened.files.for_table(state.properties))
        self._known.pop(table, None)
        self._known[table] = one
        while len(self._known) > self._max_tables:
            self._known.pop(next(iter(self._known)), None)
        return one

    def _deepen(
        self, tables: Sequence[TableId], measured: Sequence[_Measured | None], problems: dict[int, AurumError]
    ) -> None:
        """Read the manifests that matter: of suspects, most suspicious first, then of a few that look well."""
        suspects: list[tuple[float, int]] = []
        unsure: list[tuple[float, int]] = []
        for position, one in enumerate(measured):
            if one is None or one.exact or position in problems or one.state.encrypted:
                continue
            assert one.rules is not None
            if one.suspicion >= one.rules.clear:
                suspects.append((-one.suspicion, position))
            elif (one.state.files or 0) > one.rules.clear:
                unsure.append((-(one.state.files or 0), position))
        for queue, seconds in ((suspects, self._deep_seconds), (unsure, self._survey_seconds)):
            if queue:
                positions = [position for _, position in sorted(queue)]
                self._read_deep(tables, measured, positions, problems, time.monotonic() + seconds)

    def _read_deep(
        self,
        tables: Sequence[TableId],
        measured: Sequence[_Measured | None],
        positions: Iterable[int],
        problems: dict[int, AurumError],
        deadline: float,
    ) -> None:
        def give_up() -> bool:
            return time.monotonic() >= deadline

        def read(position: int) -> None:
            one = measured[position]
            assert one is not None
            assert one.rules is not None
            if give_up():
                return
            try:
                contents = self._reader.contents(one.state, one.files, give_up)
                if contents is not None:
                    one.judge_exactly(one.rules, contents)
            except CorruptTableError as error:
                if self._source.location(tables[position]) == one.state.location:
                    problems[position] = error
                # else a commit removed the files meanwhile: the next call sees the new state
            except AurumError as error:
                problems[position] = error

        local: list[int] = []
        remote: list[int] = []
        for position in positions:
            one = measured[position]
            assert one is not None
            (local if one.files.is_local(one.state.location) else remote).append(position)
        for position in local:
            read(position)
        if remote:
            list(in_threads(read, remote))

    def _healthy(self, table: TableId, one: _Measured, now: datetime) -> TableHealth:
        age = max(0.0, now.timestamp() - one.state.committed_ms / 1000)
        return TableHealth(
            table, self._backend, one.state.token, now, {**one.metrics, "seconds_since_commit": age}, one.refusals
        )

    def _failed(self, table: TableId, error: AurumError, now: datetime) -> TableHealth:
        problem = as_aurum_error(error).problem(table=str(table))
        return TableHealth(table, self._backend, UNKNOWN, now, problem=problem)
