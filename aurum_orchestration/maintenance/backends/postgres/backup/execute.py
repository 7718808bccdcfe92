"""Makes, verifies, publishes and prunes backups.

What could lose a backup or leave debris, and what prevents it:

* half a dump under a name that promises a whole one: it is made in a folder that nobody takes for a backup, read
  whole (or restored) there, and renamed, or on object storage sent as one object and read back;
* a killed run: the advisory lock ends with our session, the staging folder's lock with us and pg_dump; the next run
  ends the pg_dump that outlived us, and removes folder, scratch database and unverified files;
* the last good backup goes before there is a newer one: older ones are removed in a step of their own, after the
  newer one was published and is found as it was written.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aurum_orchestration.errors import AurumError, CorruptTableError, EngineError, StateDriftedError
from aurum_orchestration.maintenance.backends.backup_place import Kept, Note, Place, Staging, files_of
from aurum_orchestration.maintenance.backends.postgres.advisory import reserved
from aurum_orchestration.maintenance.backends.postgres.backup.plan import dump_command, place_of
from aurum_orchestration.maintenance.backends.postgres.backup.restore import count_rows, drop_leftovers, restored
from aurum_orchestration.maintenance.backends.postgres.backup.tools import Caller, Tools, find_tools
from aurum_orchestration.maintenance.backends.postgres.connection import Session, patiently
from aurum_orchestration.maintenance.backends.postgres.table import Database
from aurum_orchestration.maintenance.backends.reports import DirectUnit
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

READ, RESTORED = "every-byte-read", "restored+row-counts"
_COMPLETE = b"PostgreSQL database dump complete"
_ORPHANS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND usename = current_user AND starts_with(application_name, 'aurum:pg_dump:')
"""
_ORPHANS_END_SECONDS = 5.0


class BackupExecution:
    """The units of a backup plan."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, database: Database) -> None:
        self._plan, self.database = plan, database
        self.parameters = BackupParameters.model_validate(plan.parameters)
        self.made: Kept | None = None

    def units(self) -> Iterator[Unit]:
        """The dump, then the removal of older ones."""
        for step in self._plan.steps:
            yield DumpUnit(step, self) if step.action == "dump" else PruneUnit(step, self)

    def place(self, session: Session) -> Place:
        """Where the backups lie."""
        return place_of(session, self.database, self.parameters)


class DumpUnit(Unit):
    """Dumps into a staging folder, proves the dump there, publishes it."""

    def __init__(self, step: PlanStep, execution: BackupExecution) -> None:
        super().__init__(step)
        self._execution, self._database = execution, execution.database
        self._parameters = execution.parameters
        self._held = ExitStack()
        self._tools: Tools
        self._place: Place
        self._staging: Staging
        self._session: Session
        self._note: Note
        self._counted: dict[str, int] = {}
        self._leftovers = 0

    def stage(self, run: RunContext) -> None:
        """Take the database's advisory lock, clear up after killed runs, dump."""
        self._tools = find_tools(self._database.server.major)
        # not target.work: a replica may be dumped
        self._session = self._held.enter_context(self._database.sessions.work(OperationType.BACKUP, run))
        self._held.enter_context(reserved(self._session, self._database.oid, str(self._database.id)))
        self._place = self._execution.place(self._session)
        self._leftovers = self._clear()
        patiently(lambda: self._dump(run), run)
        self._note = Note(
            source=self._place.source,
            format=self._parameters.format,
            made_at=datetime.now(UTC).isoformat(timespec="seconds"),
            server_version=self._database.server.version_text,
            tool_version=self._tools.major,
        )

    def verify(self, run: RunContext) -> Verification | None:
        """Read the dump whole, or restore it. Raises CorruptTableError."""
        dump, caller = self._staging.data, self._caller(run)
        self._listed = self._read(caller, dump)
        files = files_of(dump)
        if self._parameters.verify == "list":
            self._note = self._note.model_copy(update={"files": files, "verified": READ})
            return None
        plain = self._parameters.format == "plain"
        found = restored(
            self._session, self._database, caller, self._tools, dump, plain=plain, jobs=self._parameters.jobs
        )
        self._note = self._note.model_copy(update={"files": files, "verified": RESTORED, "tables": self._counted})
        return Verification(
            method=RESTORED,
            rows_before=sum(self._counted.values()),
            rows_after=sum(found.values()),
            checksum_equal=found == self._counted,
        )

    def commit(self, run: RunContext) -> UnitOutcome:
        """Publish it."""
        try:
            name = self.step.detail["file"]
            self._note = self._place.publish(self._staging, name, self._note)
            self._execution.made = Kept(name, self._note)
        finally:
            self.discard()
        where = f"{self._place.root}/{name}"
        run.progress(self._note.bytes, self._note.bytes, "bytes")
        metrics: dict[str, float] = {
            "backups_made": 1,
            "backup_bytes": self._note.bytes,
            "backup_objects": self._listed,
        }
        if self._leftovers:
            metrics["leftovers_dropped"] = self._leftovers
        return UnitOutcome(metrics=metrics, undo=f"nothing to undo: no row was changed; the backup is {where}")

    def discard(self) -> None:
        """Remove the staging folder, give the lock back."""
        if hasattr(self, "_staging"):
            self._staging.remove()
        self._held.close()

    def _clear(self) -> int:
        ended = len(self._session.tuples(_ORPHANS))
        if ended:
            time.sleep(min(_ORPHANS_END_SECONDS, 0.5))  # until the programs have noticed
        return self._place.clear() + drop_leftovers(self._session, self._database)

    def _dump(self, run: RunContext) -> None:
        if hasattr(self, "_staging"):  # an attempt that did not get a lock
            self._staging.remove()
        self._staging = self._place.staging(self.step.detail["file"])
        command = dump_command(self._tools, self._parameters, self._database.config.lock_timeout)
        command += [f"--file={self._staging.data}", f"--dbname={self._caller(run).database()}"]
        try:
            if self._parameters.verify == "list":
                self._call(run, command)
                return
            # rows are counted in the very snapshot that is dumped
            session = self._session
            session.set(idle_in_transaction_session_timeout="0")
            with session.transaction():
                session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                snapshot = session.value("SELECT pg_export_snapshot()")
                self._counted = count_rows(session)
                self._call(run, [*command, f"--snapshot={snapshot}"])
        except AurumError:
            self._staging.remove()
            raise

    def _call(self, run: RunContext, command: list[str]) -> None:
        whole = float(self.step.detail["database_bytes"])

        def progress() -> None:
            run.progress(min(whole, _bytes(self._staging.data)), whole, "bytes")

        self._caller(run).call(command, progress=progress, keep=[self._staging.lock])

    def _caller(self, run: RunContext) -> Caller:
        config = self._database.config
        return Caller(config.conninfo(), run, config.work_timeout)

    def _read(self, caller: Caller, dump: Path) -> int:
        """Objects in the dump, after reading all of it."""
        if self._parameters.format == "plain":
            with dump.open("rb") as stream:
                stream.seek(max(0, dump.stat().st_size - 4096))
                if _COMPLETE not in stream.read():
                    raise CorruptTableError(f"{dump.name} ends before it is complete", hint="Run again.")
            return 0
        try:
            listed = caller.call([self._tools["pg_restore"], "--list", str(dump)])
            caller.call([self._tools["pg_restore"], "--file=/dev/null", str(dump)])
        except EngineError as error:
            raise CorruptTableError(f"the dump cannot be read: {error.detail}", hint="Run again.") from error
        return sum(not line.startswith(";") and bool(line.strip()) for line in listed.splitlines())


class PruneUnit(DirectUnit):
    """Deletes older backups, once the new one is there as it was written."""

    def __init__(self, step: PlanStep, execution: BackupExecution) -> None:
        super().__init__(step)
        self._execution = execution

    def commit(self, run: RunContext) -> UnitOutcome:
        """Delete those of the plan that are still there."""
        made = self._execution.made
        if made is None:
            raise StateDriftedError("there is no newer backup")
        with self._execution.database.look("backup", run) as session:
            place = self._execution.place(session)
        place.check(made)
        there = {one.name for one in place.kept()} & set(self.step.detail["remove"])
        metrics: dict[str, Any] = {"backups_removed": len(there)}
        metrics["bytes_deleted"] = sum(place.remove(name) for name in sorted(there))
        return UnitOutcome(metrics=metrics, undo="deleted backups cannot be had back; newer ones are there")


def _bytes(path: Path) -> float:
    try:
        if path.is_dir():
            return float(sum(one.stat().st_size for one in path.iterdir()))
        return float(path.stat().st_size)
    except OSError:  # not there yet
        return 0.0
