"""Real daemons with sensors and schedules on: two of them by mistake, and a run that somebody terminates."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest

from aurum_orchestration.dagster_edge.runs import UNFINISHED
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History
from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.lake import FIRST, append_small_files, build_lake, lake_catalog

pytestmark = pytest.mark.thorough

ROOT = Path(__file__).resolve().parents[2]
TRADES = TableId("lake", ("market", "trades"))
PATIENCE = 400.0

LOCATION = """
import os
import time
from dataclasses import replace
from pathlib import Path

from aurum_orchestration.dagster_edge import schedules, sensors
from aurum_orchestration.maintenance.backends.iceberg.compact.execute import CompactionUnit

sensors.EVERY_SECONDS = 2
schedules.TIMETABLES["nightly"] = replace(schedules.TIMETABLES["nightly"], cron="* * * * *")

staging = CompactionUnit.stage


def stage(unit, run):
    staging(unit, run)
    while os.environ.get("GATE") and not Path(os.environ["GATE"]).exists():
        run.cancelled.wait(0.5)
        run.check()
    mark = Path(os.environ["AURUM_HOME"]) / "held"
    if os.environ.get("HOLD") and unit.step.number == 2 and not mark.exists():
        mark.touch()
        run.cancelled.wait(300)
    else:
        time.sleep(1)  # so that two that do the same would meet
    run.check()


CompactionUnit.stage = stage

from aurum_orchestration.definitions import defs
"""

AUTOMATION = """
automation: {sensors: [compaction_lake], schedules: [nightly]}
"""


@dataclass
class Yard:
    """A lake, its code location in a file, and the instance that daemons share."""

    home: Path
    folder: Path
    instance: dg.DagsterInstance

    @property
    def history(self) -> History:
        return History(AurumSettings(home=self.home).history_url)

    def environment(self, **more: str) -> dict[str, str]:
        return {
            **os.environ,
            "AURUM_HOME": str(self.home),
            "AURUM_FLEET": str(self.home / "fleet.yaml"),
            **more,
        }

    def launched_again(self, run: dg.DagsterRun) -> subprocess.CompletedProcess[str]:
        """The run once more, with the same config, in a process of its own, to its end."""
        config = self.folder / "again.yaml"
        config.write_text(json.dumps(run.run_config))
        program = str(Path(sys.executable).parent / "dagster")
        return subprocess.run(
            [program, "job", "execute", "-f", "location.py", "-j", run.job_name, "-c", str(config)],
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )

    @contextmanager
    def daemon(self, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
        """A daemon process. What it started ends with it."""
        log = self.folder / f"daemon-{time.monotonic_ns()}.log"
        command = [str(Path(sys.executable).parent / "dagster-daemon"), "run", "-f", str(self.folder / "location.py")]
        with (
            log.open("wb") as out,
            subprocess.Popen(
                command, env=self.environment(**environment), cwd=self.folder, stdout=out, stderr=out
            ) as process,
        ):
            try:
                yield process
                assert process.poll() is None, log.read_text()[-4000:]
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(60)
                except subprocess.TimeoutExpired:
                    process.kill()

    def until(self, what: Callable[[], object], told: str) -> None:
        """Wait until it is so."""
        deadline = time.monotonic() + PATIENCE
        while not what():
            logs = [log.read_text(errors="replace")[-3000:] for log in self.folder.glob("daemon-*.log")]
            assert time.monotonic() < deadline, "\n".join([f"it never came: {told}", *logs])
            time.sleep(0.5)

    def files(self, table: str) -> int:
        with closing(lake_catalog(self.home)) as catalog:
            return len(list(catalog.load_table(table).scan().plan_files()))

    def ended(self) -> bool:
        return not self.instance.get_runs(dg.RunsFilter(statuses=UNFINISHED), limit=1)


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    home, folder = tmp_path / "home", tmp_path / "dagster"
    fleet = build_lake(home)
    text = fleet.read_text().replace("min_input_files: 5}", "min_input_files: 5, max_concurrent_groups: 1}")
    fleet.write_text(text.replace("max_concurrent_groups: 1}", "max_concurrent_groups: 1, cooldown_minutes: 0}"))
    with fleet.open("a") as more:
        more.write(AUTOMATION)
    folder.mkdir()
    (folder / "location.py").write_text(LOCATION)
    shutil.copy(ROOT / "dagster.yaml", folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    with dg.DagsterInstance.get() as instance:
        instance.get_runs(limit=1)  # makes the files once, before two daemons would
        yield Yard(home, folder, instance)


def test_two_daemons_by_mistake_never_maintain_a_table_twice_at_once(yard: Yard) -> None:
    with closing(lake_catalog(yard.home)) as catalog:
        append_small_files(catalog.load_table("market.curves"), [FIRST], 30)

    def both_tick() -> bool:
        nightly = yard.instance.get_runs(dg.RunsFilter(tags={"dagster/schedule_name": "nightly"}), limit=1)
        return bool(nightly) and yard.files("market.trades") == 2 and yard.files("market.curves") == 1

    gate = yard.home / "gate"
    with ExitStack() as stack:
        for _ in range(2):
            stack.enter_context(yard.daemon(GATE=str(gate)))
        with yard.history as history:
            yard.until(lambda: history.holder(TRADES), "a run works on trades")
        (run, *_) = yard.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        again = yard.launched_again(run)  # as a daemon would that did not know of the other's
        assert "lease" in again.stderr + again.stdout
        assert yard.files("market.trades") > 2
        gate.touch()
        until = time.monotonic() + 60
        yard.until(lambda: both_tick() and time.monotonic() > until, "sensor and schedule have done their work")
        yard.until(yard.ended, "all runs have ended")
    with yard.history as history:
        done = [one for one in history.operations(limit=1000) if one.metrics.get("files_rewritten")]
        assert history.holder(TRADES) is None
    assert Counter(one.config.target_table for one in done) == {"lake.market.trades": 1, "lake.market.curves": 1}
    assert {one.status for one in done} == {MaintenanceStatus.COMPLETED}
    for table in {one.config.target_table for one in done}:
        mine = sorted((one for one in done if one.config.target_table == table), key=lambda one: one.started_at)
        for before, after in pairwise(mine):
            assert before.finished_at is not None
            assert before.finished_at <= after.started_at


def test_a_run_that_somebody_terminates_gives_its_lease_back_and_the_next_one_carries_on(yard: Yard) -> None:
    with yard.daemon(HOLD="1"):
        yard.until((yard.home / "held").exists, "the run works on its second group")
        (run,) = yard.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        assert yard.instance.run_launcher.terminate(run.run_id)
        yard.until(lambda: yard.instance.get_run_by_id(run.run_id).is_finished, "the run has ended")  # type: ignore[union-attr]
        ended = yard.instance.get_run_by_id(run.run_id)
        assert ended is not None
        assert ended.status is dg.DagsterRunStatus.CANCELED
        yard.until(lambda: yard.files("market.trades") == 2, "the sensor asked again, and that run carried on")
        yard.until(yard.ended, "all runs have ended")
    with yard.history as history:
        assert history.holder(TRADES) is None
        newer, older = (one for one in history.operations() if one.metrics.get("files_rewritten"))
    assert (older.status, newer.status) == (MaintenanceStatus.CANCELLED, MaintenanceStatus.COMPLETED)
    assert [one.metrics["files_rewritten"] for one in (older, newer)] == [30, 30]
