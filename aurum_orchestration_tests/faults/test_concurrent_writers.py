"""Four processes write while two engines compact, expire and vacuum: nothing is lost, nothing comes back."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import Table
from sqlalchemy import create_engine, make_url, text

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration_tests.faults.killing import GONE_NOW, Rows
from aurum_orchestration_tests.faults.writers import Account, Ground, Run, lake_on, maintain, write
from aurum_orchestration_tests.forking import SERVER
from aurum_orchestration_tests.integration.cleanup.judges import NOW, age_all, on_disk, reachable
from aurum_orchestration_tests.integration.history.samples import wait_until
from aurum_orchestration_tests.integration.iceberg.merged import live_rows
from aurum_orchestration_tests.integration.iceberg.support import left_behind
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, Lakeside, append, contents

MIXED = ("tag", "copy_on_write", "merge_on_read", "update")
STREAMING = ("stream", "stream", "append", "merge_on_read")
ENGINES = 2
LEAST = 3
"""So many commits of each writer and compactions of the engines there have to be on any machine, and an expiry."""
BOTH = [pytest.param(MIXED, contents, id="mixed"), pytest.param(STREAMING, live_rows, id="streaming")]
"""Writers, and who can read what they write: PyIceberg reads no equality deletes."""
LIVED_THROUGH = {"commit-conflict", "lease-held", "state-drifted"}
"""What may end a run while others write; everything else is a fault."""


class Upheaval:
    """Processes that write to and maintain one new table."""

    def __init__(self, lake: Lakeside, uri: str, kinds: Sequence[str], ahead: int | None = None) -> None:
        self.lake, self.kinds = lake, kinds
        lake.catalog.create_namespace("ns")
        # PyIceberg's own repetition does not look whether positions still mean the same file
        never = {"commit.retry.num-retries": "0"}
        lake.table(spec=UNPARTITIONED_PARTITION_SPEC if "stream" in kinds else BY_REGION, properties=never)
        self.counters = SERVER.Array("l", len(kinds) + ENGINES, lock=False)
        self.expiries = SERVER.Array("l", ENGINES, lock=False)
        self.ground = Ground(lake.home, uri, SERVER.Event(), self.counters, self.expiries, len(kinds), ahead)
        self.writers = [self._start(write, number, kind) for number, kind in enumerate(kinds)]
        self.engines = [self._engine(number) for number in range(ENGINES)]

    def _start(self, target: Callable[..., None], *arguments: Any) -> tuple[Any, Any]:
        mine, theirs = SERVER.Pipe(duplex=False)
        process = SERVER.Process(target=target, args=(self.ground, *arguments, theirs), daemon=True)
        process.start()
        theirs.close()
        return process, mine

    def _engine(self, number: int, ttl: float | None = None) -> tuple[Any, Any]:
        return self._start(maintain, len(self.kinds) + number, number, ttl)

    def rage(self, seconds: float, *, killing: bool) -> None:
        """Let them work so long, engines dying all the time if ``killing``, then until everybody did something."""
        chance, started = random.Random(1), time.monotonic()
        lives = [0.0] * ENGINES
        while time.monotonic() < started + seconds or not self._enough():
            assert time.monotonic() < started + seconds + 120, f"only {list(self.counters)} done"
            time.sleep(0.1)
            assert all(process.is_alive() for process, _ in self.writers), "a writer ended"
            for number, (process, _) in enumerate(self.engines):
                if killing and lives[number] < time.monotonic() < started + seconds:
                    process.kill()
                    process.join()
                    self.engines[number] = self._engine(number, ttl=1)
                    lives[number] = time.monotonic() + chance.uniform(0.2, 4)

    def _enough(self) -> bool:
        own, engines = self.counters[: len(self.kinds)], self.counters[len(self.kinds) :]
        return bool(min(own) >= LEAST and sum(engines) >= LEAST and sum(self.expiries))

    def end(self) -> tuple[list[Account], list[Run]]:
        """Stop everybody: the writers' accounts, what the engines that live said of their runs."""
        self.ground.stop.set()
        told = [answer.recv() for _, answer in [*self.writers, *self.engines]]
        for process, _ in [*self.writers, *self.engines]:
            process.join(60)
        accounts, runs = told[: len(self.kinds)], [run for engine in told[len(self.kinds) :] for run in engine]
        print({"commits": [one.commits for one in accounts], "refused": [one.refused for one in accounts]})
        print(Counter(run[:3] for run in runs))
        return accounts, runs

    def kill(self) -> None:
        """End those that still run."""
        for process, _ in [*self.writers, *self.engines]:
            process.kill()
            process.join()


def upheaval(
    home: Path,
    uri: str,
    kinds: Sequence[str],
    seconds: float,
    rows_of: Callable[[Table], Rows] = contents,
    *,
    killing: bool = False,
    ahead: int | None = None,
) -> None:
    """Let them all loose on one table, and compare it with the writers' accounts."""
    with lake_on(home, uri) as lake:
        all_of_them = Upheaval(lake, uri, kinds, ahead)
        try:
            all_of_them.rage(seconds, killing=killing)
            accounts, runs = all_of_them.end()
        finally:
            all_of_them.kill()
        judge(lake.catalog.load_table("ns.t"), accounts, rows_of)
        assert not [run for run in runs if run[1] not in {"completed", "skipped"} and run[2] not in LIVED_THROUGH]
        assert killing or any(run[:2] == ("retention", "completed") for run in runs)
        # calm again: everything can be finished, and nothing is left behind
        with History(lake.settings.history_url) as history:
            wait_until(lambda: history.holder(TableId("lake", ("ns", "t"))) is None, "the last lease expired")
        for operation, parameters in (("compaction", {"min_input_files": 2}), ("vacuum", GONE_NOW)):
            age_all(lake.catalog.load_table("ns.t"))
            result = lake.run(operation, **parameters)
            assert str(result.status) in {"completed", "skipped"}, result.reason
        table = lake.catalog.load_table("ns.t")
        judge(table, accounts, rows_of)
        assert left_behind(table) == set()
        assert not [one for one in lake.recorded() if str(one.status) == "running"]


def judge(table: Table, accounts: Sequence[Account], rows_of: Callable[[Table], Rows]) -> None:
    """The rows of all accounts and no others, every tag with its rows, every file there."""
    assert rows_of(table) == Counter(repr(row) for account in accounts for row in account.rows.values())
    for account in accounts:
        for name, rows in account.tags.items():
            assert name in table.metadata.refs
            assert contents(table, table.metadata.refs[name].snapshot_id) == rows
    assert reachable(table) <= on_disk(table)


def test_files_that_expire_while_a_plan_is_made_are_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan is made without the lease, so somebody else may expire what it is reading."""
    load, loaded = IcebergMaintenanceBackend._load, list[Table]()

    def load_and_be_overtaken(self: IcebergMaintenanceBackend, table: TableId) -> Table:
        found = load(self, table)
        if not loaded:
            loaded.append(found)
            assert lake.run("retention", **NOW, retain_last=1).status == "completed"
        return found

    with lake_on(tmp_path, f"sqlite:///{tmp_path}/catalog.db") as lake:
        lake.catalog.create_namespace("ns")
        append(lake.table(), 4)
        monkeypatch.setattr(IcebergMaintenanceBackend, "_load", load_and_be_overtaken)
        result = lake.run("vacuum")
    assert result.status == "skipped", result.reason
    assert ["attempt 1 ended with state-drifted" in warning for warning in result.warnings] == [True]


def test_all_kinds_of_writers(tmp_path: Path) -> None:
    upheaval(tmp_path, f"sqlite:///{tmp_path}/catalog.db", MIXED, 1, ahead=LEAST)


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kinds", "rows_of"), BOTH)
def test_a_minute_on_sqlite(kinds: tuple[str, ...], rows_of: Callable[[Table], Rows], tmp_path: Path) -> None:
    upheaval(tmp_path, f"sqlite:///{tmp_path}/catalog.db", kinds, 60, rows_of)


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kinds", "rows_of"), BOTH)
def test_a_minute_on_postgres(
    kinds: tuple[str, ...], rows_of: Callable[[Table], Rows], tmp_path: Path, own_database: str
) -> None:
    upheaval(tmp_path, own_database, kinds, 60, rows_of)


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("kinds", "rows_of"), BOTH)
def test_engines_that_are_killed_all_the_time(
    kinds: tuple[str, ...], rows_of: Callable[[Table], Rows], tmp_path: Path
) -> None:
    """As above, but no engine lives longer than four seconds; its lease does, by one."""
    upheaval(tmp_path, f"sqlite:///{tmp_path}/catalog.db", kinds, 60, rows_of, killing=True)


@pytest.fixture
def own_database(postgres_url: str, request: pytest.FixtureRequest) -> str:
    """A new database for this test's catalog."""
    name = f"upheaval_{abs(hash(request.node.name)):x}"
    engine = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'drop database if exists "{name}"'))
        connection.execute(text(f'create database "{name}"'))
    engine.dispose()
    return make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
