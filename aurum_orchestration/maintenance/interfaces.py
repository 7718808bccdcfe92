"""The words of the maintenance system: what flows from measuring a table to recording what was done.

Requests and results (:class:`MaintenanceConfig`, :class:`MaintenanceResult`) are pydantic models, the
public API. What is made by the ten thousand is plain: :class:`TableHealth` a frozen dataclass, :class:`Decision`
a Struct outside the garbage collector; :mod:`aurum_orchestration.maintenance.shapes` has the JSON shapes of both.
"""

from __future__ import annotations

import hashlib
import json
import threading
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Protocol

import msgspec
from pydantic import BaseModel, ConfigDict, Field

from aurum_orchestration.errors import OperationCancelledError, ProblemDetail
from aurum_orchestration.fleet.table_id import TableId

SCHEMA_VERSION = 1
"""Version of every JSON shape printed or stored; raised when a key changes its meaning or goes."""


class OperationType(StrEnum):
    """The kinds of maintenance. Prints as its value."""

    COMPACTION = "compaction"
    RETENTION = "retention"
    PARTITION_EVOLUTION = "partition_evolution"
    VACUUM = "vacuum"
    MANIFESTS = "manifests"
    REINDEX = "reindex"
    CLEANUP = "cleanup"
    LOGS = "logs"
    SESSIONS = "sessions"
    VIEWS = "views"
    STATS = "stats"
    BLOAT = "bloat"
    BACKUP = "backup"
    CUSTOM = "custom"


class MaintenanceStatus(StrEnum):
    """Where an operation stands. ``planned`` is how a dry run ends."""

    PENDING = "pending"
    PLANNED = "planned"
    RUNNING = "running"
    COMPLETED = "completed"
    SKIPPED = "skipped"
    FAILED = "failed"
    CANCELLED = "cancelled"


class MaintenanceConfig(BaseModel):
    """One request: do this operation to this table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation_type: OperationType | str = Field(description="The operation: the enum, its text, or a registered name.")
    target_table: str = Field(description="Id of the table: backend.namespace.table.")
    backend_type: str | None = Field(
        default=None, description="Name of a backend of the fleet, or a backend type that only one backend has."
    )
    dry_run: bool = Field(default=False, description="Plan only: print what would be done and write nothing.")
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="Parameters of the operation; what is absent comes from the table's policy."
    )


class Verification(BaseModel):
    """Proof that a rewrite kept every row."""

    model_config = ConfigDict(frozen=True)

    method: str = Field(description="How it was verified, e.g. 'row-count+multiset-checksum'.")
    rows_before: int = Field(description="Live rows in what was replaced.")
    rows_after: int = Field(description="Rows in the replacement, read back from storage.")
    checksum_equal: bool = Field(description="True when the order-independent checksums are equal.")

    @property
    def ok(self) -> bool:
        """True when neither the count nor the checksum differs."""
        return self.checksum_equal and self.rows_before == self.rows_after

    @staticmethod
    def combine(parts: Sequence[Verification]) -> Verification | None:
        """One verification for several groups: sums of rows, all checksums equal. None for no part."""
        if not parts:
            return None
        return Verification(
            method="; ".join(dict.fromkeys(part.method for part in parts)),
            rows_before=sum(part.rows_before for part in parts),
            rows_after=sum(part.rows_after for part in parts),
            checksum_equal=all(part.checksum_equal for part in parts),
        )


class PlanStep(BaseModel):
    """One bounded piece of work, complete on its own once committed."""

    model_config = ConfigDict(frozen=True)

    number: int = Field(description="Position in the plan, from 1.")
    action: str = Field(description="What it does, e.g. 'rewrite', 'expire', 'sql'.")
    summary: str = Field(description="The step in one sentence a person reads.")
    risk: str = Field(description="What could go wrong and what prevents it, in one sentence.")
    detail: dict[str, Any] = Field(
        default_factory=dict, description="Exactly what is touched: files, bytes, rows, partition, or the SQL."
    )


class MaintenancePlan(BaseModel):
    """What would be done, as data. Made by a backend, printed by a dry run, executed unchanged by a run."""

    model_config = ConfigDict(frozen=True)

    table: str
    backend: str
    operation: str
    parameters: dict[str, Any] = Field(description="Effective parameters after policy and defaults.")
    reason: str = Field(description="Why this is done, or, without steps, why nothing is.")
    fingerprint: dict[str, Any] = Field(description="The state the plan was made from; apply refuses when it drifted.")
    steps: list[PlanStep] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)

    @property
    def plan_id(self) -> str:
        """SHA-256 over the plan's content, shortened: equal plans have equal ids."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class MaintenanceResult(BaseModel):
    """How one request ended."""

    model_config = ConfigDict(frozen=True)

    operation_id: str = Field(default_factory=lambda: uuid.uuid4().hex)
    config: MaintenanceConfig
    backend: str = Field(default="", description="Name of the backend that did it.")
    status: MaintenanceStatus
    reason: str = Field(default="", description="What was done and why, or why nothing was.")
    metrics: dict[str, float] = Field(default_factory=dict)
    plan_id: str | None = None
    steps: list[PlanStep] | None = None
    verification: Verification | None = None
    problem: ProblemDetail | None = None
    warnings: list[str] = Field(default_factory=list)
    undo: str | None = Field(default=None, description="What to run to take it back, or why nothing can.")
    undo_data: dict[str, Any] | None = Field(
        default=None, description="What taking it back needs to know, for the backend that did it; plain JSON."
    )
    started_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    finished_at: datetime | None = None

    @property
    def seconds(self) -> float:
        """Wall seconds from start to finish, 0 while it runs."""
        return (self.finished_at - self.started_at).total_seconds() if self.finished_at else 0.0


@dataclass(frozen=True, slots=True)
class TableHealth:
    """Numbers about one table at one moment. Names and units: docs/metrics.md.

    ``state_token`` changes whenever the table does (for Iceberg: the snapshot id); sensors put it in
    their run keys. ``problem`` says why the table could not be measured; ``metrics`` is empty then.
    ``refusals`` maps an operation to the reason why this engine cannot do it to this table.
    """

    table: TableId
    backend: str
    state_token: str
    measured_at: datetime
    metrics: Mapping[str, float] = field(default_factory=dict)
    refusals: Mapping[str, str] = field(default_factory=dict)
    problem: ProblemDetail | None = None


class Gain(msgspec.Struct, frozen=True, gc=False):
    """What an operation is expected to win: points of debt, files fewer, bytes fewer."""

    debt_score: float = 0.0
    files: float = 0.0
    bytes: float = 0.0


class Cost(msgspec.Struct, frozen=True, gc=False):
    """What an operation is expected to take: wall seconds, bytes read and written."""

    seconds: float = 0.0
    bytes: float = 0.0


class Decision(msgspec.Struct, frozen=True, gc=False):
    """What one operation should do to one table now: act (``act``) or not, and why.

    ``code`` is a short machine word for the reason (``recommended``, ``healthy``, ``cooldown``,
    ``not-due``, ``back-off``, ``refused``, ``unmeasured``, ``disabled``, ``budget``, ``gains-nothing``,
    ``window``, ``blackout``). The priority is the table's, by its calendar.
    """

    table: TableId
    operation: str
    act: bool
    code: str
    reason: str
    gain: Gain = Gain()
    cost: Cost = Cost()
    priority: int = 0


@dataclass
class RunContext:
    """What a running operation may ask of whoever runs it.

    ``still_mine`` raises LeaseLostError when the lease is gone: called before every commit.
    ``progress(done, total, unit)`` feeds bars and logs. ``cancelled`` is set when the run is to stop.
    """

    operation_id: str
    cancelled: threading.Event = field(default_factory=threading.Event)
    progress: Callable[[float, float, str], None] = lambda _done, _total, _unit: None
    still_mine: Callable[[], None] = lambda: None

    def check(self) -> None:
        """Raise OperationCancelledError when the run is to stop."""
        if self.cancelled.is_set():
            raise OperationCancelledError("the run was cancelled", hint="Run again: it carries on from what is done.")


@dataclass
class UnitOutcome:
    """What the commit of one unit changed: metrics to add up, a sentence on how to take it back, warnings.

    ``undo_data`` is what the backend's :meth:`plan_undo` will need, as plain JSON. Of an operation's units
    lists are joined and of other values the first counts; so does the first sentence, because one command
    then takes all of them back.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    undo: str | None = None
    undo_data: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)


class Unit(ABC):
    """One step of a plan being executed: stage, verify, commit. Complete on its own.

    Where the engine can stage (``verify_first``), the executor calls stage -> verify -> commit, so that
    nothing wrong is ever visible. Where it cannot, stage takes the "before" numbers, and the order is
    stage -> commit -> verify; ``take_back`` undoes the commit when the check fails.
    """

    verify_first: bool = True
    fenced: bool = False
    """Every change that its commit makes asks for the lease itself, in the last moment; so nobody needs to before."""

    def __init__(self, step: PlanStep) -> None:
        self.step = step

    @abstractmethod
    def stage(self, run: RunContext) -> None:
        """Prepare everything that no reader sees. Several units may stage at once, in threads."""

    @abstractmethod
    def verify(self, run: RunContext) -> Verification | None:
        """Compare what is replaced with its replacement. None when there is nothing to compare."""

    @abstractmethod
    def commit(self, run: RunContext) -> UnitOutcome:
        """Make it visible, atomically. Only one unit of a plan commits at a time."""

    @abstractmethod
    def discard(self) -> None:
        """Remove what stage left, after a failure or a cancellation. Must not raise."""

    def take_back(self, run: RunContext) -> None:
        """Undo a commit whose verification failed (only when not ``verify_first``)."""
        raise NotImplementedError


class PlanExecution(Protocol):
    """A plan opened on an engine: its units, in order, and how many may stage at once."""

    workers: int

    def units(self) -> Iterator[Unit]:
        """The units of the plan. Raises StateDriftedError before the first when the plan is stale."""
        ...


PolicyLookup = Callable[[TableId, str], BaseModel]
"""Effective policy of an operation (by name) on a table; an instance of the operation's Policy model."""


@dataclass(frozen=True, slots=True)
class DiscoveredTable:
    """A table that a backend's catalog lists. ``location`` and ``comment`` may be empty."""

    table: TableId
    kind: str
    location: str = ""
    comment: str = ""
    columns: tuple[tuple[str, str], ...] = ()
