"""Four processes write while two engines compact, expire and vacuum: nothing is lost, nothing comes back."""

from __future__ import annotations

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
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration_tests.faults.killing import GONE_NOW, SERVER, Rows
from aurum_orchestration_tests.faults.writers import Account, Ground, lake_on, maintain, write
from aurum_orchestration_tests.integration.cleanup.judges import NOW, age_all, on_disk, reachable
from aurum_orchestration_tests.integration.iceberg.merged import live_rows
from aurum_orchestration_tests.integration.iceberg.support import left_behind
from aurum_orchestration_tests.integration.upkeep.lakeside import BY_REGION, append, contents

MIXED = ("tag", "copy_on_write", "merge_on_read", "update")
STREAMING = ("stream", "stream", "append", "merge_on_read")
ENGINES = 2
LEAST = 3
"""So many commits of each writer, and compactions of the engines, have to happen whatever the machine."""
LIVED_THROUGH = {"commit-conflict", "lease-held", "state-drifted"}
"""What may end a run while others write; everything else is a fault."""


def scan(table: Table) -> Rows:
    return contents(table)


def upheaval(home: Path, uri: str, kinds: Sequence[str], seconds: float, rows_of: Callable[[Table], Rows]) -> None:
    """Let them all loose on one table, and compare with the writers' accounts."""
    with lake_on(home, uri) as lake:
        lake.catalog.create_namespace("ns")
        # PyIceberg's own repetition does not look whether positions still mean the same file
        never = {"commit.retry.num-retries": "0"}
        lake.table(spec=UNPARTITIONED_PARTITION_SPEC if "stream" in kinds else BY_REGION, properties=never)
        counters = SERVER.Array("l", len(kinds) + ENGINES, lock=False)
        ground = Ground(home, uri, SERVER.Event(), counters)
        targets: list[tuple[Callable[..., None], int, Any]] = [
            (write, number, kind) for number, kind in enumerate(kinds)
        ]
        targets += [(maintain, len(kinds) + number, 2 + 3 * number) for number in range(ENGINES)]
        answers, processes = [], []
        for target, number, how in targets:
            mine, theirs = SERVER.Pipe(duplex=False)
            processes.append(SERVER.Process(target=target, args=(ground, number, how, theirs), daemon=True))
            processes[-1].start()
            theirs.close()
            answers.append(mine)
        end, at_most = time.monotonic() + seconds, time.monotonic() + seconds + 120
        while time.monotonic() < at_most and (
            time.monotonic() < end or min(counters[: len(kinds)]) < LEAST or sum(counters[len(kinds) :]) < LEAST
        ):
            time.sleep(0.1)
            assert all(process.is_alive() for process in processes), "a process ended"
        ground.stop.set()
        told: list[Any] = [answer.recv() for answer in answers]
        for process in processes:
            process.join(60)
        accounts: list[Account] = told[: len(kinds)]
        runs: list[tuple[str, str, str, str]] = [one for engine in told[len(kinds) :] for one in engine]
        print({"commits": [one.commits for one in accounts], "refused": [one.refused for one in accounts]})
        print(Counter((one[0], one[1], one[2]) for one in runs))
        judge(lake.catalog.load_table("ns.t"), accounts, rows_of)
        bad = [one for one in runs if one[1] not in {"completed", "skipped"} and one[2] not in LIVED_THROUGH]
        assert not bad
        assert any(one[:2] == ("retention", "completed") for one in runs)
        # calm again: everything can be finished, and nothing is left behind
        for operation, parameters in (("compaction", {"min_input_files": 2}), ("vacuum", GONE_NOW)):
            age_all(lake.catalog.load_table("ns.t"))
            result = lake.run(operation, **parameters)
            assert str(result.status) in {"completed", "skipped"}, result.reason
        table = lake.catalog.load_table("ns.t")
        judge(table, accounts, rows_of)
        assert left_behind(table) == set()


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
    upheaval(tmp_path, f"sqlite:///{tmp_path}/catalog.db", MIXED, 6, scan)


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kinds", [MIXED, STREAMING], ids=["mixed", "streaming"])
def test_a_minute_on_sqlite(kinds: tuple[str, ...], tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/catalog.db"
    upheaval(tmp_path, uri, kinds, 60, live_rows if "stream" in kinds else scan)


@pytest.mark.thorough
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kinds", [MIXED, STREAMING], ids=["mixed", "streaming"])
def test_a_minute_on_postgres(kinds: tuple[str, ...], tmp_path: Path, own_database: str) -> None:
    upheaval(tmp_path, own_database, kinds, 60, live_rows if "stream" in kinds else scan)


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
