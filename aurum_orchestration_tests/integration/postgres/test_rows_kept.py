"""Rows that are not old stay, whatever a deletion would take along: each batch is counted by the server itself."""

from __future__ import annotations

import threading

import pytest

from aurum_orchestration.errors import VerificationError
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration_tests.integration.postgres.support import Pg

EVENTS = "pg.public.events"
GIVEN = {"time_column": "at", "row_days": 30}
OLD, YOUNG = 300, 50
TABLE = f"""
CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz NOT NULL, parent bigint);
INSERT INTO events SELECT g, now() - interval '90 days' FROM generate_series(1, {OLD}) g;
INSERT INTO events SELECT g, now() FROM generate_series(1001, {1000 + YOUNG}) g
"""
TAKES_A_YOUNG_ONE = (
    "CREATE FUNCTION takes() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN IF OLD.id = 7 THEN DELETE FROM events WHERE id = 1001; END IF; RETURN OLD; END'"
)
KEEPS_ONE = (
    "CREATE FUNCTION keeps() RETURNS trigger LANGUAGE plpgsql AS "
    "'BEGIN IF OLD.id = 7 THEN RETURN NULL; END IF; RETURN OLD; END'"
)
CHILD = "CREATE TABLE notes (event bigint REFERENCES events ON DELETE CASCADE); CREATE INDEX ON notes (event)"


@pytest.fixture
def events(empty: Pg) -> Pg:
    """300 old rows and 50 young ones."""
    empty.script(TABLE)
    return empty


def left(pg: Pg) -> tuple[int, int]:
    """Old and young rows that are there."""
    return pg.sql(f"SELECT count(*) FILTER (WHERE id <= {OLD}), count(*) FILTER (WHERE id > {OLD}) FROM events")[0]


def failed_by_its_proof(result: MaintenanceResult) -> str:
    assert str(result.status) == "failed"
    assert result.problem is not None
    assert result.problem.type == VerificationError.type
    return result.reason


def test_the_proof_is_in_the_result(events: Pg) -> None:
    result = events.run("retention", EVENTS, **GIVEN)
    assert str(result.status) == "completed"
    assert result.verification is not None
    assert result.verification.ok
    assert result.verification.method == "rows-counted-by-database"
    assert (result.verification.rows_before, result.verification.rows_after) == (OLD, OLD)
    assert left(events) == (0, YOUNG)


@pytest.mark.parametrize(
    "trigger",
    ["TRIGGER takes AFTER DELETE", "TRIGGER takes BEFORE DELETE", "CONSTRAINT TRIGGER takes AFTER DELETE"],
)
def test_a_trigger_that_takes_a_young_row_along_is_found_before_the_commit(events: Pg, trigger: str) -> None:
    deferred = "DEFERRABLE INITIALLY DEFERRED" if trigger.startswith("CONSTRAINT") else ""
    events.sql(TAKES_A_YOUNG_ONE, f"CREATE {trigger} ON events {deferred} FOR EACH ROW EXECUTE FUNCTION takes()")
    result = events.run("retention", EVENTS, **GIVEN)
    assert "301 rows left public.events where 300 old ones were to go" in failed_by_its_proof(result)
    assert left(events) == (OLD, YOUNG)


def test_a_rule_that_takes_young_rows_along_is_found(events: Pg) -> None:
    """PostgreSQL itself refuses most rules in such a statement; whatever it does, no young row goes."""
    events.sql("CREATE RULE takes AS ON DELETE TO events DO ALSO DELETE FROM events WHERE id = 1001")
    assert str(events.run("retention", EVENTS, **GIVEN).status) == "failed"
    assert left(events) == (OLD, YOUNG)


def test_a_row_that_a_trigger_keeps_is_no_failure(events: Pg) -> None:
    events.sql(KEEPS_ONE, "CREATE TRIGGER keeps BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION keeps()")
    events.run("retention", EVENTS, **GIVEN)
    assert left(events) == (1, YOUNG)


def test_rows_that_come_to_refer_to_old_ones_after_the_look_do_not_go_along(events: Pg) -> None:
    events.script(CHILD)
    events.sql(
        "CREATE FUNCTION refers() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN INSERT INTO notes VALUES (OLD.id); RETURN OLD; END'",
        "CREATE TRIGGER refers BEFORE DELETE ON events FOR EACH ROW EXECUTE FUNCTION refers()",
    )
    result = events.run("retention", EVENTS, **GIVEN)
    assert "rows that refer to public.events went" in failed_by_its_proof(result)
    assert left(events) == (OLD, YOUNG)
    assert str(events.run("retention", EVENTS, **GIVEN, cascade=True).status) == "completed"
    assert left(events) == (0, YOUNG)


def test_other_sessions_rows_are_not_in_the_count(events: Pg) -> None:
    """Somebody deletes young rows, and adds some, between our batches and within them."""
    events.sql(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.002); RETURN OLD; END'",
        "CREATE TRIGGER slow BEFORE DELETE ON events FOR EACH ROW WHEN (OLD.id <= 300) EXECUTE FUNCTION slow()",
    )
    ended = threading.Event()
    writer = threading.Thread(target=_delete_and_add, args=(events, ended))
    writer.start()
    try:
        result = events.run("retention", EVENTS, **GIVEN, batch_size=50)
    finally:
        ended.set()
        writer.join()
    assert str(result.status) == "completed", result.reason
    assert result.verification is not None
    assert (result.verification.rows_before, result.verification.ok) == (OLD, True)
    assert left(events) == (0, YOUNG)


def _delete_and_add(pg: Pg, ended: threading.Event) -> None:
    with pg.connect() as writer:
        while not ended.wait(0.001):
            writer.execute("DELETE FROM events WHERE id = 1001")
            writer.execute("INSERT INTO events VALUES (1001, now())")


def test_a_server_that_counts_nothing_proves_nothing_and_says_so(events: Pg) -> None:
    events.sql(f"ALTER DATABASE {events.name} SET track_counts = off")
    result = events.run("retention", EVENTS, **GIVEN)
    assert str(result.status) == "completed"
    assert result.verification is None
    assert any("track_counts is off" in text for text in result.warnings)


def test_a_table_that_refers_to_itself_says_what_is_not_proved(events: Pg) -> None:
    events.sql(
        "ALTER TABLE events ADD FOREIGN KEY (parent) REFERENCES events ON DELETE CASCADE",
        "CREATE INDEX ON events (parent)",
        f"UPDATE events SET parent = 1 WHERE id BETWEEN 2 AND {OLD}",
    )
    result = events.run("retention", EVENTS, **GIVEN)
    assert str(result.status) == "completed", result.reason
    assert any("refers to itself" in text for text in result.warnings)
    assert left(events) == (0, YOUNG)
