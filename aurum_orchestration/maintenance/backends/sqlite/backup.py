"""Backups of a SQLite database through its online backup API: proven as a whole, then put in place under their name."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime

from aurum_orchestration.errors import StateDriftedError, VerificationError
from aurum_orchestration.maintenance.backends.backup_place import Kept, Note, Place, Staging, files_of, refuse_secret
from aurum_orchestration.maintenance.backends.reports import DirectUnit
from aurum_orchestration.maintenance.backends.sqlite.catalog import Target, integrity, rows_of, tables_of
from aurum_orchestration.maintenance.backends.sqlite.connection import connect, typed_errors, value
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    OperationType,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.backup import BackupParameters
from aurum_orchestration.maintenance.planner.words import count, size

METHOD = "integrity-check+row-counts"
ENDING = ".sqlite"
_PAGES, _PAUSE = 2_000, 0.01
"""Copied at once, and the pause in seconds that lets writers in, where readers keep them out."""

_RISK = "None: with a write-ahead log nobody waits; without one writers get in between two parts of the copy."


def plan(target: Target, parameters: BackupParameters) -> MaintenancePlan:
    """One copy, and the removal of older ones. No step where no path is set. Raises RequestError for a secret in it."""
    target.require_database(OperationType.BACKUP)
    given = parameters.model_dump()
    if parameters.path is None:
        told = "no path is set: the policy backup: {path: ...} says in which folder or bucket backups are to lie"
        return target.plan(OperationType.BACKUP, given, told, [])
    refuse_secret(parameters.path)
    place = _place(target, parameters)
    with target.database.look() as connection:
        bytes_ = float(value(connection, "PRAGMA page_count") * value(connection, "PRAGMA page_size"))
    file = place.new_name(datetime.now(UTC), ENDING)
    steps = [
        PlanStep(
            number=1,
            action="dump",
            summary=f"Copy {target.id} ({size(bytes_)}) to {place.root}/{file}, check it whole, count its rows.",
            risk=_RISK,
            detail={"file": file, "path": place.root, "database_bytes": bytes_},
        )
    ]
    older = [one.name for one in place.kept()][parameters.keep_last - 1 :]
    if older:
        steps.append(
            PlanStep(
                number=2,
                action="prune",
                summary=f"Delete {count(len(older), 'older backup')} in {place.root}, once the new one is verified.",
                risk=f"The newest {parameters.keep_last} stay, and whatever is not a backup of this database.",
                detail={"remove": older, "keep_last": parameters.keep_last},
            )
        )
    return target.plan(OperationType.BACKUP, given, f"a backup of {size(bytes_)} is due", steps)


def _place(target: Target, parameters: BackupParameters) -> Place:
    path = target.database.path.resolve()
    return Place(parameters.path or "", parameters.file_name, path.stem, f"sqlite:{path}")


def execution(plan: MaintenancePlan, target: Target) -> _Execution:
    """The copy, then the removal of older ones."""
    return _Execution(plan, target)


class _Execution:
    workers = 1

    def __init__(self, plan: MaintenancePlan, target: Target) -> None:
        self._plan, self.target = plan, target
        self.place = _place(target, BackupParameters.model_validate(plan.parameters))
        self.made: Kept | None = None

    def units(self) -> Iterator[Unit]:
        """One unit per step."""
        for step in self._plan.steps:
            yield _Copy(step, self) if step.action == "dump" else _Prune(step, self)


class _Copy(Unit):
    def __init__(self, step: PlanStep, execution: _Execution) -> None:
        super().__init__(step)
        self._execution = execution
        self._staging: Staging | None = None
        self._rows: dict[str, int] | None = None
        self._note: Note | None = None
        self._leftovers = 0

    def stage(self, run: RunContext) -> None:
        """Clear up after killed runs, and copy. Raises LockTimeoutError, StorageWriteError."""
        place = self._execution.place
        self._leftovers = place.clear()
        self._staging = place.staging(self.step.detail["file"])
        with (
            self._execution.target.database.look(run) as source,
            typed_errors(run),
            closing(sqlite3.connect(self._staging.data, isolation_level=None)) as copy,
        ):
            logged = value(source, "PRAGMA journal_mode") == "wal"
            before = value(source, "PRAGMA data_version")
            if logged:  # readers do not keep writers out, so one snapshot serves copy and counts
                source.execute("BEGIN")
                value(source, "SELECT count(*) FROM main.sqlite_schema")
            source.backup(copy, pages=_PAGES, progress=_progress(run), sleep=0.0 if logged else _PAUSE)
            if not logged:
                source.execute("BEGIN")
            rows = {table.name: rows_of(source, table) for table in tables_of(source)}
            unchanged = logged or value(source, "PRAGMA data_version") == before
            self._rows = rows if unchanged else None
            source.execute("COMMIT")

    def verify(self, run: RunContext) -> Verification | None:
        """Check the copy as a whole and count its rows. Raises VerificationError."""
        staging = self._require_staging()
        with typed_errors(run), closing(connect(staging.data, "ro&immutable=1")) as copy:
            wrong = integrity(copy)
            if wrong:
                raise VerificationError(
                    f"the copy is not sound: {wrong[0]}", hint="aurum doctor tells of the original."
                )
            found = {table.name: rows_of(copy, table) for table in tables_of(copy)}
        self._note = Note(
            source=self._execution.place.source,
            format="sqlite",
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            server_version=sqlite3.sqlite_version,
            tool_version=sqlite3.sqlite_version_info[0],
            verified=METHOD,
            tables=found,
            files=files_of(staging.data),
        )
        before = found if self._rows is None else self._rows  # somebody wrote meanwhile: sound, but nothing to compare
        return Verification(
            method=METHOD if self._rows is not None else "integrity-check",
            rows_before=sum(before.values()),
            rows_after=sum(found.values()),
            checksum_equal=found == before,
        )

    def commit(self, run: RunContext) -> UnitOutcome:
        """Put it in place under its name."""
        assert self._note is not None
        place, file = self._execution.place, self.step.detail["file"]
        try:
            note = place.publish(self._require_staging(), file, self._note)
        finally:
            self.discard()
        self._execution.made = Kept(file, note)
        run.progress(note.bytes, note.bytes, "bytes")
        metrics: dict[str, float] = {"backups_made": 1, "backup_bytes": note.bytes, "backup_objects": len(note.tables)}
        if self._leftovers:
            metrics["leftovers_dropped"] = self._leftovers
        told = f"nothing to undo: no row was changed; the backup is {place.root}/{file}"
        return UnitOutcome(metrics=metrics, undo=told)

    def discard(self) -> None:
        """Remove the copy that was not put in place."""
        if self._staging is not None:
            self._staging.remove()

    def _require_staging(self) -> Staging:
        if self._staging is None:
            raise StateDriftedError("there is no copy")
        return self._staging


def _progress(run: RunContext) -> Callable[[int, int, int], None]:
    def told(_status: int, remaining: int, total: int) -> None:
        run.check()
        run.progress(total - remaining, total, "pages")

    return told


class _Prune(DirectUnit):
    """Deletes older backups, once the new one is there as it was written."""

    def __init__(self, step: PlanStep, execution: _Execution) -> None:
        super().__init__(step)
        self._execution = execution

    def commit(self, run: RunContext) -> UnitOutcome:  # noqa: ARG002 - the base's signature
        """Delete those of the plan that are still there. Raises CorruptTableError when the newer one is not sound."""
        place, made = self._execution.place, self._execution.made
        if made is None:
            raise StateDriftedError("there is no newer backup")
        place.check(made)
        there = {one.name for one in place.kept()} & set(self.step.detail["remove"])
        freed = sum(place.remove(name) for name in sorted(there))
        return UnitOutcome(
            {"backups_removed": len(there), "bytes_deleted": freed},
            undo="deleted backups cannot be had back; newer ones are there",
        )
