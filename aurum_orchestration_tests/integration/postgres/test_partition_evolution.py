"""Range partitions made ahead of time and out of the default partition, on a real server."""

from __future__ import annotations

import threading
import time
from datetime import date

import psycopg
import pytest

from aurum_orchestration.errors import LockTimeoutError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.partitions import partitions
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionParameters
from aurum_orchestration_tests.integration.postgres.support import Pg, a_run, carry_out, opened, steps_of

EVENTS = "pg.public.events"
MONTHLY = """
CREATE TABLE events (id bigint, at timestamptz NOT NULL, twice bigint GENERATED ALWAYS AS (id * 2) STORED,
                     state text DEFAULT 'new' CHECK (state <> '')) PARTITION BY RANGE (at);
CREATE INDEX events_at ON events (at);
CREATE TABLE events_2025_09 PARTITION OF events FOR VALUES FROM ('2025-08-31 22:00+00') TO ('2025-09-30 22:00+00');
CREATE TABLE events_2025_10 PARTITION OF events FOR VALUES FROM ('2025-09-30 22:00+00') TO ('2025-10-31 23:00+00')
"""
DEFAULT = "CREATE TABLE events_rest PARTITION OF events DEFAULT"


def done(result: MaintenanceResult) -> MaintenanceResult:
    assert str(result.status) == "completed", (result.reason, result.warnings)
    return result


def months_ahead(pg: Pg) -> int:
    """Months from the end of October 2025 to the end of the present one, both in Berlin."""
    year, month = pg.sql(
        "SELECT extract(year FROM n)::int, extract(month FROM n)::int "
        "FROM (SELECT now() AT TIME ZONE 'Europe/Berlin') one(n)"
    )[0]
    return int((year - 2025) * 12 + month - 10)


def test_ranges_are_read_whatever_the_style_of_the_databases_dates(empty: Pg) -> None:
    empty.script(
        "CREATE TABLE days (day date) PARTITION BY RANGE (day);"
        "CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-02') TO ('2026-02-03');"
        f"ALTER DATABASE {empty.name} SET datestyle = 'German, DMY'"
    )
    with opened(empty.backend()) as backend, backend.sessions.look() as session:
        (one,) = partitions(session, session.value("SELECT 'days'::regclass::oid::bigint"), "date")
    assert (one.lower, one.upper) == (date(2026, 1, 2), date(2026, 2, 3))


def test_months_of_a_zone_are_made_ahead(empty: Pg) -> None:
    empty.script(MONTHLY)
    expected = months_ahead(empty) + 3
    planned = empty.run("partition_evolution", EVENTS, premake=3, time_zone="Europe/Berlin")
    done(planned)
    assert planned.metrics["partitions_created"] == expected
    bounds = dict(
        empty.sql(
            "SELECT c.relname::text, pg_get_expr(relpartbound, c.oid) "
            "FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'events'::regclass"
        )
    )
    assert "2025-11-01 08:00:00+09" in bounds["events_2025_11"]  # the server's own zone is Tokyo
    assert "2026-04-01 07:00:00+09" in bounds["events_2026_04"]  # summer time has begun
    assert empty.sql("SELECT count(*) FROM pg_indexes WHERE tablename LIKE 'events_20%'") == [(expected + 2,)]
    again = empty.run("partition_evolution", EVENTS, premake=3, time_zone="Europe/Berlin")
    assert str(again.status) == "skipped"


def test_rows_of_the_default_partition_get_one_of_their_own(empty: Pg) -> None:
    empty.script(MONTHLY)
    empty.sql(DEFAULT)
    empty.sql(
        "INSERT INTO events (id, at) SELECT g, timestamptz '2025-06-15 12:00+00' + g * interval '1 month' "
        "FROM generate_series(0, 6) g"
    )
    before = empty.checksum("events")
    dry = empty.run("partition_evolution", EVENTS, dry_run=True, premake=0, time_zone="Europe/Berlin")
    assert [step.detail["rows"] for step in steps_of(dry)] == [1, 1, 1, 1, 1]
    assert empty.checksum("events") == before
    assert empty.sql("SELECT count(*) FROM pg_inherits WHERE inhparent = 'events'::regclass") == [(3,)]
    result = done(empty.run("partition_evolution", EVENTS, premake=0, time_zone="Europe/Berlin"))
    # June, July, August before the first partition; November and December after the last one
    assert result.metrics["partitions_created"] == 5
    assert result.metrics["rows_moved"] == 5
    assert empty.checksum("events") == before
    assert empty.sql("SELECT count(*) FROM ONLY events_rest") == [(0,)]
    assert empty.sql("SELECT id, twice, state FROM events_2025_12") == [(6, 12, "new")]


def test_a_writer_of_the_default_partition_waits_and_loses_nothing(empty: Pg) -> None:
    """A row that comes while its partition is made ends up there, and its writer gets no error."""
    empty.script(MONTHLY)
    empty.sql(DEFAULT)
    empty.sql("INSERT INTO events (id, at) SELECT g, '2025-12-05' FROM generate_series(1, 2000) g")
    written, ended = [2000], threading.Event()

    def write() -> None:
        with empty.connect() as writer:
            while not ended.is_set():
                writer.execute("INSERT INTO events (id, at) VALUES (0, '2025-12-06')")
                written[0] += 1

    thread = threading.Thread(target=write)
    thread.start()
    time.sleep(0.05)
    result = empty.run("partition_evolution", EVENTS, premake=0, time_zone="Europe/Berlin")
    ended.set()
    thread.join()
    done(result)
    assert empty.sql("SELECT count(*) FROM events") == [(written[0],)]
    assert empty.sql("SELECT (SELECT count(*) FROM ONLY events_rest), (SELECT count(*) FROM events_2025_12)") == [
        (0, written[0])
    ]


@pytest.mark.thorough
def test_a_lock_that_is_not_had_leaves_nothing(empty: Pg) -> None:
    empty.script(MONTHLY)
    empty.sql(DEFAULT)
    empty.sql("INSERT INTO events (id, at) VALUES (1, '2025-12-05')")
    table = TableId.parse(EVENTS)
    with opened(empty.backend(lock_timeout=0.05)) as backend:
        plan = backend.plan(table, "partition_evolution", PartitionEvolutionParameters(premake=0))
        assert len(plan.steps) == 1
        with empty.transaction("UPDATE events SET state = 'old'"), pytest.raises(LockTimeoutError):
            carry_out(backend.open(plan, a_run()), a_run())
    assert empty.sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'events_2025_1_' AND relkind = 'r'") == [(1,)]


def test_a_large_table_gets_a_proposal_and_nothing_is_done(empty: Pg) -> None:
    empty.script("CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz NOT NULL, due date)")
    small = empty.run("partition_evolution", EVENTS)
    assert str(small.status) == "skipped"
    assert "need not be" in small.reason
    told = done(empty.run("partition_evolution", EVENTS, propose_from_gb=0))
    assert 'PARTITION BY RANGE ("at")' in steps_of(told)[0].detail["sql"]
    assert any("primary or unique keys have to contain at" in text for text in told.warnings)
    assert empty.sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'events%' AND relkind IN ('r', 'p')") == [(1,)]


STRAYS = """
CREATE TABLE days (id bigint, day date NOT NULL, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE days_20260101 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-01-02');
CREATE TABLE days_rest PARTITION OF days DEFAULT;
CREATE TABLE note (id bigint, day date, FOREIGN KEY (id, day) REFERENCES days ON DELETE {action});
INSERT INTO days SELECT g, '2026-01-03' FROM generate_series(1, 10) g;
INSERT INTO days SELECT g, '2026-01-05' FROM generate_series(1, 10) g;
INSERT INTO note SELECT 7, '2026-01-03'
"""


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "NO ACTION"])
def test_rows_that_others_refer_to_stay_in_the_default_partition(empty: Pg, action: str) -> None:
    """To the server the move is a deletion: a key would take along, or change, what refers to the rows."""
    empty.script(STRAYS.format(action=action))
    before, notes = empty.checksum("days"), empty.checksum("note")
    result = done(empty.run("partition_evolution", "pg.public.days", premake=0))
    assert result.metrics["rows_moved"] == 10
    assert any("days_20260103 is not made: " in told and "1 rows of public.note" in told for told in result.warnings)
    assert (empty.checksum("days"), empty.checksum("note")) == (before, notes)
    assert empty.sql("SELECT count(*) FROM days_20260105") == [(10,)]
    again = empty.run("partition_evolution", "pg.public.days", premake=0)
    assert (str(again.status), "10 rows of the default one stay there" in again.reason) == ("skipped", True)


def test_rows_that_come_to_refer_to_the_moved_ones_do_not_go_along(empty: Pg) -> None:
    empty.script(STRAYS.format(action="CASCADE"))
    empty.sql(
        "DELETE FROM note",
        "CREATE FUNCTION refers() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO note VALUES (OLD.id, OLD.day); RETURN OLD; END'",
        "CREATE TRIGGER refers BEFORE DELETE ON days FOR EACH ROW EXECUTE FUNCTION refers()",
    )
    before = empty.checksum("days")
    result = empty.run("partition_evolution", "pg.public.days", premake=0)
    assert "rows that refer to public.days went" in result.reason
    assert (str(result.status), empty.checksum("days")) == ("failed", before)
    assert any("trigger refers fires" in told for told in result.warnings)


@pytest.mark.parametrize("rest", ["", DEFAULT])
def test_a_new_partition_is_the_owners_of_the_table(empty: Pg, rest: str) -> None:
    """Whoever made it would own it, and the owner could neither dump nor vacuum nor drop it."""
    owner, role = f"owner_{empty.name}", f"runs_{empty.name}"
    empty.script(f"{MONTHLY}; {rest}; CREATE ROLE {owner}; CREATE ROLE {role} LOGIN; GRANT {owner} TO {role}")
    try:
        empty.script(f"GRANT CREATE ON SCHEMA public TO {owner}, {role}")
        for (name,) in empty.sql("SELECT relname FROM pg_class WHERE relname LIKE 'events%' AND relkind IN ('r', 'p')"):
            empty.sql(f"ALTER TABLE {name} OWNER TO {owner}")
        empty.sql("INSERT INTO events (id, at) VALUES (1, '2025-10-02')")
        runs = Pg(psycopg.conninfo.make_conninfo(empty.dsn, user=role), empty.name, empty.home)
        result = done(runs.run("partition_evolution", EVENTS, premake=1, time_zone="Europe/Berlin"))
        assert f'OWNER TO "{owner}"' in steps_of(result)[0].detail["sql"]
        owners = "SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname LIKE 'events%'"
        assert empty.sql(owners) == [(owner,)]
        empty.sql(f"REVOKE CREATE ON SCHEMA public FROM {owner}")  # without it nobody may give the owner a table
        done(runs.run("partition_evolution", EVENTS, premake=2, time_zone="Europe/Berlin"))
    finally:
        empty.sql(f"DROP OWNED BY {owner}, {role} CASCADE", f"DROP ROLE {owner}, {role}")
