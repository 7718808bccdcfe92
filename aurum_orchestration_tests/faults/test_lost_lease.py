"""A lease between real processes: who is second says who is first; who stood still too long commits nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import pytest

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History
from aurum_orchestration_tests.faults.killing import GONE_NOW, Case, Scene, expire_lease
from aurum_orchestration_tests.faults.steps import Victim, victim
from aurum_orchestration_tests.faults.test_kill_compaction import CASES, FEW
from aurum_orchestration_tests.forking import SERVER
from aurum_orchestration_tests.integration.cleanup.judges import NOW, age_all
from aurum_orchestration_tests.integration.history.samples import wait_until
from aurum_orchestration_tests.integration.iceberg.support import left_behind
from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside

TABLE = TableId("lake", ("ns", "t"))
ONE_BY_ONE = {**FEW, "max_concurrent_groups": 1}
BIN_PACK = replace(CASES["bin-pack"], parameters=ONE_BY_ONE, own_ref=lambda name: name.startswith("aurum_backup_"))
"""One thread works: no other one stops in the middle of a transaction, whose lock all would wait for."""
EXPIRY = replace(BIN_PACK, operation="retention", parameters={**NOW, "retain_last": 1}, may_expire=True)


@dataclass
class Still:
    """A process that stands still in the middle of its operation."""

    process: Any
    answer: Connection

    def go_on(self) -> tuple[str, str, list[str], str | None]:
        """Continue it (SIGCONT); how it ended."""
        os.kill(self.process.pid, signal.SIGCONT)
        assert self.answer.poll(60)
        told: tuple[str, str, list[str], str | None] = self.answer.recv()
        self.process.join(60)
        return told


@contextmanager
def standing_still(scene: Scene, at: int, ttl: float | None) -> Iterator[Still]:
    """Stopped (SIGSTOP) before the step of that number, in a lake put back as it was."""
    scene.restore()
    mine, theirs = SERVER.Pipe(duplex=False)
    given = Victim(scene.home, scene.case.operation, scene.parameters, None, at, signal.SIGSTOP, ttl)
    process = SERVER.Process(target=victim, args=(given, theirs))
    process.start()
    theirs.close()
    try:
        wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED, "it stands still")
        yield Still(process, mine)
    finally:
        process.kill()
        process.join()


def lose_and_go_on(scene: Scene, at: int, other: str, *, ttl: float | None = None, **parameters: Any) -> None:
    """The first stands still past its lease, another run does its work, the first goes on.

    With ``ttl`` the lease lives so many seconds and expires by itself, without it is as if its minute had passed.
    """
    with standing_still(scene, at, ttl) as first, Lakeside.at(scene.home) as lake:
        with History(lake.settings.history_url) as history:
            held = history.holder(TABLE)
            assert held is not None
            if ttl is None:
                expire_lease(lake)
            wait_until(lambda: history.holder(TABLE) is None, "the lease expired")
        may_be_done = other == scene.case.operation and scene.steps[at - 1].endswith(".metadata.json")
        second = lake.run(other, **parameters)
        assert second.status == "completed", second.reason
        then = lake.catalog.load_table("ns.t")
        status, reason, _, problem = first.go_on()
        # refused by the catalog itself while it was asked, it plans anew and may find everything done
        assert (status, problem) == ("failed", "lease-lost") or (status != "failed" and may_be_done), reason
        table = lake.catalog.load_table("ns.t")
        assert table.metadata_location == then.metadata_location
        scene.before.unharmed(table, scene.case)
        with History(lake.settings.history_url) as history:
            recorded = history.operation(held.operation_id)
            assert recorded is not None
            assert str(recorded.status) == status
        again = scene.operate(lake)
        assert again.status in {"completed", "skipped"}, again.reason
        age_all(table)
        lake.run("vacuum", **GONE_NOW)
        table = lake.catalog.load_table("ns.t")
        scene.before.unharmed(table, scene.case)
        assert left_behind(table) == set()


def stops(scene: Scene) -> list[int]:
    """Steps on files up to the last commit; a process that stops in a database's transaction blocks it for all."""
    files = [number for number, step in enumerate(scene.steps, 1) if not step.startswith("commit")]
    commits = [number for number, step in enumerate(scene.steps, 1) if step.startswith("commit catalog")]
    return [number for number in files if number < commits[-1]]


def test_the_second_says_who_is_first(tmp_path: Path) -> None:
    scene = Scene(tmp_path, BIN_PACK)
    with standing_still(scene, stops(scene)[0], None) as first, Lakeside.at(scene.home) as lake:
        refused = scene.operate(lake)
        assert (str(refused.status), refused.problem and refused.problem.type) == ("failed", "lease-held")
        assert f":{first.process.pid} for operation" in refused.reason
        scene.before.unharmed(lake.catalog.load_table("ns.t"), scene.case)
        status, reason, _, _ = first.go_on()
        assert status == "completed", reason
        table = lake.catalog.load_table("ns.t")
        scene.before.unharmed(table, scene.case)
        assert scene.case.done(table) == scene.done


def test_nothing_is_committed_after_the_lease_was_lost(tmp_path: Path) -> None:
    """While it stages, while it writes the commit's manifests, while it writes the metadata."""
    scene = Scene(tmp_path, BIN_PACK)
    numbers = stops(scene)
    manifest = next(one for one in numbers if scene.steps[one - 1].endswith("-m0.avro"))
    metadata = next(one for one in numbers if scene.steps[one - 1].endswith(".metadata.json"))
    lose_and_go_on(scene, numbers[1], "compaction", ttl=4, **scene.parameters)
    lose_and_go_on(scene, manifest, "manifests")
    lose_and_go_on(scene, metadata, "backup")


@pytest.mark.thorough
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("other", ["compaction", "manifests", "backup"])
@pytest.mark.parametrize("case", [BIN_PACK, EXPIRY], ids=["compaction", "retention"])
def test_wherever_it_stands_still(case: Case, other: str, tmp_path: Path, subtests: pytest.Subtests) -> None:
    scene = Scene(tmp_path, case)
    for number in stops(scene):
        with subtests.test(step=f"{number}/{len(scene.steps)}: {scene.steps[number - 1]}"):
            lose_and_go_on(scene, number, other, **(FEW if other == "compaction" else {}))


@pytest.mark.thorough
def test_nobody_else_worked_meanwhile(tmp_path: Path) -> None:
    """An expired lease that nobody took is lost all the same: whoever looks sees a table that is free."""
    scene = Scene(tmp_path, BIN_PACK)
    with standing_still(scene, stops(scene)[0], 4) as first, Lakeside.at(scene.home) as lake:
        before = lake.catalog.load_table("ns.t").metadata.current_snapshot_id
        with History(lake.settings.history_url) as history:
            wait_until(lambda: history.holder(TABLE) is None, "the lease expired")
        status, reason, _, problem = first.go_on()
        assert (status, problem) == ("failed", "lease-lost"), reason
        assert lake.catalog.load_table("ns.t").metadata.current_snapshot_id == before
