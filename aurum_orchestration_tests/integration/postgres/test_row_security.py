"""Policies that hide rows from the role: what cannot be seen is not taken for what is not there."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from aurum_orchestration.errors import AccessDeniedError
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration_tests.integration.postgres.support import Pg

TABLES = """
CREATE TABLE events (id int, at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE events_2024 PARTITION OF events FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE events_rest PARTITION OF events DEFAULT;
INSERT INTO events VALUES (1, '2024-05-01');
CREATE TABLE log (id int PRIMARY KEY, at date); INSERT INTO log SELECT g, '2024-05-01' FROM generate_series(1, 10) g;
CREATE TABLE note (log int REFERENCES log ON DELETE CASCADE); CREATE INDEX ON note (log); INSERT INTO note VALUES (3);
GRANT CREATE ON SCHEMA public TO {role};
ALTER TABLE events OWNER TO {role}; ALTER TABLE events_2024 OWNER TO {role}; ALTER TABLE events_rest OWNER TO {role};
ALTER TABLE log OWNER TO {role}; ALTER TABLE note OWNER TO {role}
"""
HIDDEN = (
    "ALTER TABLE {0} ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE {0} FORCE ROW LEVEL SECURITY",
    "CREATE POLICY half ON {0} USING ({1})",
)
LOG = "    logs:\n      - {title: Log, table: public.log, time_column: at}\n"
RETENTION = {"time_column": "at", "row_days": 100.0, "drop_after_hours": 0.0}


@pytest.fixture
def owner(empty: Pg) -> Iterator[Pg]:
    """The database as the owner of its tables sees it, who is no superuser."""
    role = f"owner_{empty.name}"
    empty.sql(f"CREATE ROLE {role} LOGIN")
    try:
        empty.script(TABLES.format(role=role))
        yield Pg(psycopg.conninfo.make_conninfo(empty.dsn, user=role), empty.name, empty.home)
    finally:
        empty.sql(f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def refused(result: MaintenanceResult) -> str:
    assert str(result.status) == "failed", result.reason
    assert result.problem is not None
    assert result.problem.type == AccessDeniedError.type
    assert "BYPASSRLS" in (result.problem.hint or "")
    return result.reason


def test_a_former_partition_is_not_dropped_while_a_policy_may_hide_its_young_rows(empty: Pg, owner: Pg) -> None:
    assert owner.run("retention", "pg.public.events", **RETENTION).metrics["partitions_detached"] == 1
    for statement in HIDDEN:
        empty.sql(statement.format("events_2024", "at < '2025-01-01'"))
    empty.sql("INSERT INTO events_2024 VALUES (2, now())")
    assert "hide rows of public.events_2024" in refused(owner.run("retention", "pg.public.events", **RETENTION))
    assert empty.sql("SELECT count(*) FROM events_2024") == [(2,)]


def test_a_log_of_which_rows_may_be_hidden_is_not_told_as_clean(empty: Pg, owner: Pg) -> None:
    for statement in HIDDEN:
        empty.sql(statement.format("log", "id > 5"))
    assert "hide rows of public.log" in refused(owner.run("logs", "pg.public.log", extra=LOG))
    assert empty.sql("SELECT count(*) FROM log") == [(10,)]
    empty.sql("ALTER TABLE log NO FORCE ROW LEVEL SECURITY", "DELETE FROM note")
    assert owner.run("logs", "pg.public.log", extra=LOG).metrics["rows_deleted"] == 10


def test_hidden_rows_that_would_go_along_are_not_taken_for_none(empty: Pg, owner: Pg) -> None:
    for statement in HIDDEN:
        empty.sql(statement.format("note", "false"))
    result = owner.run("logs", "pg.public.log", extra=LOG)
    assert "nobody could count the rows that would be deleted with them" in result.reason
    assert empty.sql("SELECT (SELECT count(*) FROM log), (SELECT count(*) FROM note)") == [(10, 1)]
