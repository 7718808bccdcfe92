"""The PostgreSQL server is restarted while an operation is at work: a typed error, nothing lost, nothing left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from aurum_orchestration.errors import AurumError, BackendUnavailableError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.operations.backup import BackupParameters
from aurum_orchestration.maintenance.operations.base import OperationParameters
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters
from aurum_orchestration.maintenance.operations.reindex import ReindexParameters
from aurum_orchestration.maintenance.operations.retention import RetentionParameters
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters
from aurum_orchestration_tests.faults.restarting import Restartable, restartable, restartable_with_pg_repack
from aurum_orchestration_tests.integration.postgres.support import CHURN, TRADES, Pg, a_run, carry_out, opened
from aurum_orchestration_tests.servers.timescale import repack_program

YOUNG, OLD = "id > 19000", "id <= 19000"
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
OURS = "SELECT pid, application_name FROM pg_stat_activity WHERE application_name ~ '^(aurum:|pg_repack)'"
SCRATCH = "SELECT datname FROM pg_database WHERE datname LIKE 'aurum_scratch_%'"
LOCKS = "SELECT * FROM pg_locks WHERE locktype = 'advisory'"
DATABASE = "database"
LATE = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.002); RETURN OLD; END'
"""


@dataclass(frozen=True)
class Case:
    """An operation; ``hold`` keeps it busy, from when ``busy`` finds rows on."""

    operation: str
    model: type[OperationParameters]
    parameters: Mapping[str, Any]
    busy: str
    prepare: tuple[str, ...] = ("DELETE FROM trades WHERE id % 2 = 0",)
    hold: tuple[str, ...] = ()
    target: str = TRADES
    deletes: bool = False


VACUUM = Case("vacuum", VacuumParameters, {"cost_delay_ms": 100}, "SELECT 1 FROM pg_stat_progress_vacuum")
REINDEX = Case("reindex", ReindexParameters, {"scope": "table"}, INVALID, hold=("SELECT count(*) FROM trades",))
RETENTION = Case(
    "retention",
    RetentionParameters,
    {"time_column": "at", "row_days": 1, "batch_size": 500, "pause_ms": 0},
    "SELECT 1 FROM trades WHERE id = 1 HAVING count(*) = 0",
    prepare=(
        "UPDATE trades SET at = now() WHERE id > 19000",
        LATE,
        "CREATE TRIGGER slow BEFORE DELETE ON trades FOR EACH ROW WHEN (OLD.id % 20 = 0) EXECUTE FUNCTION slow()",
    ),
    deletes=True,
)
BACKUP = Case(
    "backup",
    BackupParameters,
    {},
    "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'aurum:pg_dump:%' AND wait_event_type = 'Lock'",
    hold=("LOCK TABLE trades",),
    target=DATABASE,
)
COMPACTION = Case(
    "compaction",
    CompactionParameters,
    {"min_bloat_mb": 0.1, "min_bloat_ratio": 0.3, "online_rewrite": True, "unknown_space_limit_mb": None},
    "SELECT 1 FROM pg_trigger WHERE tgrelid = 'trades'::regclass",
    prepare=("CREATE EXTENSION pg_repack", "DELETE FROM trades WHERE id % 8 <> 0", "VACUUM ANALYZE trades"),
    hold=("SELECT 1 FROM pg_class",),
)


@pytest.fixture(scope="module")
def server() -> Iterator[Restartable]:
    with restartable() as found:
        yield found


@pytest.fixture(scope="module")
def repacking() -> Iterator[Restartable]:
    with restartable_with_pg_repack() as found:
        yield found


def test_a_vacuum_that_the_end_of_the_server_cuts_short(server: Restartable, tmp_path: Path) -> None:
    cut_and_run_again(VACUUM, server, "fast", tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["fast", "immediate"])
@pytest.mark.parametrize("case", [VACUUM, REINDEX, RETENTION, BACKUP], ids=lambda case: case.operation)
def test_a_restart_in_the_middle(case: Case, mode: str, server: Restartable, tmp_path: Path) -> None:
    cut_and_run_again(case, server, mode, tmp_path)


@pytest.mark.thorough
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_in_the_middle_of_pg_repack(
    mode: str, repacking: Restartable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (program := repack_program(tmp_path)) is not None:
        monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    cut_and_run_again(COMPACTION, repacking, mode, tmp_path)


def cut_and_run_again(case: Case, server: Restartable, mode: str, tmp_path: Path) -> None:
    """Restart within the operation, look at what is there, and let the next run complete."""
    pg = fresh(server, case, tmp_path)
    folder = tmp_path / "backups"
    given = {**case.parameters, **({"path": str(folder)} if case.operation == "backup" else {})}
    before = kept(pg, case)
    error = cut(case, given, pg, lambda: server.restart(mode))
    assert isinstance(error, BackendUnavailableError), repr(error)
    assert error.transient
    assert kept(pg, case) == before
    if case.deletes:
        assert 0 < pg.sql(f"SELECT count(*) FROM trades WHERE {OLD}")[0][0] < 19_000, "in the middle of it"
    if mode == "immediate":
        pg.sql("ANALYZE trades")  # with the server died what it had counted of its tables
    done = pg.run(case.operation, target(case, pg), **given)
    assert (done.status, done.problem) == ("completed", None)
    assert kept(pg, case) == before
    if case.deletes:
        assert pg.sql(f"SELECT count(*) FROM trades WHERE {OLD}") == [(0,)]
    nothing_is_left(pg, folder)


def fresh(server: Restartable, case: Case, tmp_path: Path) -> Pg:
    """A database with the trades as the case needs them."""
    name = f"cut_{time.monotonic_ns()}"
    admin = server.url.replace("+psycopg", "")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    pg = Pg(psycopg.conninfo.make_conninfo(admin, dbname=name), name, tmp_path / "home")
    pg.script(CHURN)
    pg.sql(*case.prepare)
    pg.sql("ANALYZE trades")
    return pg


def target(case: Case, pg: Pg) -> str:
    return f"pg.{pg.name}" if case.target == DATABASE else case.target


def kept(pg: Pg, case: Case) -> tuple[Any, ...]:
    """Count and content of the rows that have to stay."""
    return pg.checksum(f"(SELECT * FROM trades WHERE {YOUNG if case.deletes else 'true'})")


def cut(case: Case, given: Mapping[str, Any], pg: Pg, restart: Callable[[], None]) -> AurumError | None:
    """Restart while the operation is at work; what it ended with. The same backend goes on measuring after that."""
    problems: list[AurumError] = []
    with opened(pg.backend(lock_timeout=60)) as backend:
        plan = backend.plan(TableId.parse(target(case, pg)), case.operation, case.model(**given))

        def go() -> None:
            try:
                carry_out(backend.open(plan, a_run()), a_run())
            except AurumError as error:
                problems.append(error)

        working = threading.Thread(target=go)
        with held(pg, case.hold):
            working.start()
            until(lambda: pg.sql(case.busy), case.operation, working)
            restart()
        working.join(60)
        assert not working.is_alive()
        (health,) = backend.measure([TableId.parse(TRADES)], lambda *_: None)  # type: ignore[arg-type]
        assert health.problem is None
    return problems[0] if problems else None


@contextmanager
def held(pg: Pg, statements: tuple[str, ...]) -> Iterator[None]:
    """A transaction of somebody else that is open until the server ends it."""
    with closing(pg.connect()) as other:
        for statement in ("BEGIN ISOLATION LEVEL REPEATABLE READ", *statements) if statements else ():
            other.execute(statement)
        yield


def until(true: Callable[[], object], what: str, working: threading.Thread) -> None:
    deadline = time.monotonic() + 100
    while not true():
        assert working.is_alive(), f"{what} ended by itself"
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.01)


def nothing_is_left(pg: Pg, folder: Path) -> None:
    """No index, table, file, session or lock of what was cut short."""
    deadline = time.monotonic() + 30
    while pg.sql(OURS) and time.monotonic() < deadline:
        time.sleep(0.05)  # the server sees a closed connection a moment later
    for query in (INVALID, OURS, SCRATCH, LOCKS, "SELECT 1 FROM pg_trigger WHERE tgname LIKE 'repack%'"):
        assert pg.sql(query) == [], query
    assert pg.sql("SELECT relname FROM pg_class WHERE relname ~ '^(log_|table_)[0-9]+$|_ccnew|_ccold'") == []
    if folder.exists():
        assert [one.name.startswith("backup_") for one in folder.iterdir()] == [True, True]
