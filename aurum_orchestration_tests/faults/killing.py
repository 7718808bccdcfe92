"""kill -9 of a real process before every one of its writes, and what has to be true after that.

The victim is forked from a server process that has imported everything, so that one costs no start. Only in the
victim what writes is wrapped: files that are created, written, closed, renamed and deleted below the lake's home,
commits of databases that wrote something (catalog; history and leases). Each is a step; before the k-th one the
process kills itself, in the middle of a write after half of its bytes. What the disk has before step k+1 is what it
has after step k, so a run of N steps can be killed in N ways.

A test makes a :class:`Case` and calls :func:`kill_at_every_step` or, as a short sample, :func:`kill_at_some_steps`.
"""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pyiceberg.manifest import ManifestContent
from pyiceberg.table import Table

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration_tests.faults.steps import Victim, victim
from aurum_orchestration_tests.forking import SERVER
from aurum_orchestration_tests.integration.cleanup.judges import age_all
from aurum_orchestration_tests.integration.iceberg.support import left_behind
from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside, contents

Rows = Counter[str]
SAMPLE = 3
GONE_NOW: dict[str, Any] = {
    "older_than_days": 0,
    "quarantine": False,
    "quarantine_days": 0,
    "override_floor": True,
    "override_reason": "the files' times were moved back",
}
"""Parameters of the vacuum that looks for what a killed run left behind."""


def head_rows(table: Table) -> dict[int | str, Rows]:
    """The rows of every snapshot, and under ``head`` those of the current one, by PyIceberg's scan."""
    found: dict[int | str, Rows] = {one.snapshot_id: contents(table, one.snapshot_id) for one in table.snapshots()}
    head = table.current_snapshot()
    return found if head is None else {**found, "head": found[head.snapshot_id]}


def shape(table: Table) -> Any:
    """How many live data files and delete files, manifests, snapshots and refs a table has."""
    snapshot = table.current_snapshot()
    listed = snapshot.manifests(table.io) if snapshot else []
    files: Counter[str] = Counter()
    for manifest in listed:
        files[manifest.content.name] += len(manifest.fetch_manifest_entry(table.io))
    manifests = sum(manifest.content == ManifestContent.DATA for manifest in listed)
    return (files["DATA"], files["DELETES"], manifests, len(table.metadata.refs))


@dataclass(frozen=True)
class Case:
    """An operation on the table ``lake.ns.t`` of a lake that ``prepare`` makes.

    ``prepare`` may return what goes into the request: ``{"undo": operation_id}`` asks for an undo, anything else
    are parameters. ``done`` tells from a table whether the job is finished: compared with an undisturbed run's.
    ``rows`` are compared before and after, key by key. ``own_ref`` names refs that the operation may make and
    remove; ``may_expire``: snapshots and refs may go.
    """

    operation: str
    prepare: Callable[[Lakeside], Mapping[str, Any] | None]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    done: Callable[[Table], Any] = shape
    rows: Callable[[Table], Mapping[Any, Rows]] = head_rows
    own_ref: Callable[[str], bool] = lambda name: False
    may_expire: bool = False
    again: frozenset[str] = frozenset({"completed", "skipped"})


@dataclass(frozen=True)
class Before:
    """What a table was before the operation."""

    rows: Mapping[Any, Rows]
    refs: Mapping[str, Any]
    snapshots: frozenset[int]

    @classmethod
    def of(cls, table: Table, case: Case) -> Before:
        refs = {name: ref for name, ref in table.metadata.refs.items() if name != "main" and not case.own_ref(name)}
        return cls(case.rows(table), refs, frozenset(one.snapshot_id for one in table.snapshots()))

    def unharmed(self, table: Table, case: Case) -> None:
        """The same rows in the head and in every snapshot, the same refs."""
        now = Before.of(table, case)
        if case.may_expire:
            assert now.refs.items() <= self.refs.items()
        else:
            assert now.refs == self.refs
            assert now.snapshots >= self.snapshots
        for key in now.rows.keys() & self.rows.keys():
            assert now.rows[key] == self.rows[key], f"other rows in {key}"
        if "head" in self.rows:
            assert "head" in now.rows


class Scene:
    """A prepared lake that is put back as it was before every run, in the same folder: locations are absolute."""

    def __init__(self, folder: Path, case: Case) -> None:
        self.case, self.home, self._copy = case, folder / "home", folder / "copy"
        with Lakeside.at(self.home) as lake:
            asked = dict(case.prepare(lake) or {})
            self.before = Before.of(lake.catalog.load_table("ns.t"), case)
        self.undo = asked.pop("undo", None)
        self.parameters = {**case.parameters, **asked}
        shutil.copytree(self.home, self._copy)
        self.steps, self.done = self._undisturbed()

    def _undisturbed(self) -> tuple[Sequence[str], Any]:
        mine, theirs = SERVER.Pipe(duplex=False)
        code = self._victim(0, theirs)
        theirs.close()
        assert code == 0, f"the undisturbed run ended with {code}"
        status, reason, steps, _ = mine.recv()
        mine.close()
        assert status == "completed", reason
        with Lakeside.at(self.home) as lake:
            table = lake.catalog.load_table("ns.t")
            self.before.unharmed(table, self.case)
            return steps, self.case.done(table)

    def restore(self) -> None:
        """Put the lake back as it was before the operation."""
        shutil.rmtree(self.home)
        shutil.copytree(self._copy, self.home)

    def _victim(self, at: int, answer: Any = None) -> int | None:
        given = Victim(self.home, self.case.operation, self.parameters, self.undo, at)
        process = SERVER.Process(target=victim, args=(given, answer))
        process.start()
        process.join(120)
        if process.is_alive():
            process.kill()
            raise AssertionError(f"still running at step {at} of {self.case.operation}")
        return process.exitcode

    def kill(self, at: int) -> None:
        """Let a process do the operation and be killed before the step of that number, counted from 1."""
        self.restore()
        code = self._victim(at)
        assert code == -signal.SIGKILL, f"ended with {code} instead of being killed"

    def operate(self, lake: Lakeside) -> MaintenanceResult:
        """The same operation again, in this process."""
        if self.undo is not None:
            return lake.undo(self.undo)
        return lake.run(self.case.operation, **self.parameters)


def expire_lease(lake: Lakeside) -> bool:
    """Move the end of a lease back, as if its time had passed. True when one was held; it lasted at most a minute."""
    with History(lake.settings.history_url) as history:
        held = history.holder(TableId("lake", ("ns", "t")))
    if held is None:
        return False
    assert held.ttl <= timedelta(seconds=60)
    with closing(sqlite3.connect(lake.home / "history.db")) as database, database:
        database.execute("update aurum_leases set expires_at = '2000-01-01 00:00:00.000000'")
    with History(lake.settings.history_url) as history:
        assert history.holder(TableId("lake", ("ns", "t"))) is None
    return True


def check_after_kill(scene: Scene) -> None:
    """The table is unharmed, the next run finishes the job, the next vacuum leaves nothing behind."""
    case = scene.case
    with Lakeside.at(scene.home) as lake:
        table = lake.catalog.load_table("ns.t")
        scene.before.unharmed(table, case)
        expire_lease(lake)
        again = scene.operate(lake)
        assert str(again.status) in case.again, (again.status, again.reason)
        table = lake.catalog.load_table("ns.t")
        scene.before.unharmed(table, case)
        assert case.done(table) == scene.done
        age_all(table)
        cleaned = lake.run("vacuum", **GONE_NOW)
        assert str(cleaned.status) in {"completed", "skipped"}, (cleaned.status, cleaned.reason)
        table = lake.catalog.load_table("ns.t")
        scene.before.unharmed(table, case)
        assert left_behind(table) == set()
        running = [one.config.operation_type for one in lake.recorded() if str(one.status) == "running"]
        assert not running, f"recorded as still running: {running}"


def kill_at_every_step(folder: Path, case: Case, subtests: Any) -> int:
    """Kill before each step; how many there are."""
    scene = Scene(folder, case)
    _kill(scene, range(1, len(scene.steps) + 1), subtests)
    return len(scene.steps)


def kill_at_some_steps(folder: Path, case: Case, subtests: Any, sample: int = SAMPLE) -> None:
    """Kill before a few steps, the catalog's commit among them."""
    scene = Scene(folder, case)
    _kill(scene, sampled(scene.steps, sample), subtests)


def sampled(steps: Sequence[str], sample: int) -> list[int]:
    """Numbers of some steps: the pointer's commit first, then others evenly spread."""
    found = [number for number, step in enumerate(steps, 1) if step.startswith("commit catalog")][-1:]
    spread = [1 + round(part * (len(steps) - 1) / max(1, sample - 1)) for part in range(sample)]
    return sorted({*found, *spread[: sample - len(found)]} if sample > len(found) else set(found))


def _kill(scene: Scene, numbers: Sequence[int], subtests: Any) -> None:
    for number in numbers:
        with subtests.test(step=f"{number}/{len(scene.steps)}: {scene.steps[number - 1]}"):
            scene.kill(number)
            check_after_kill(scene)
