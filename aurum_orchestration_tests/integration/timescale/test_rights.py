"""What a role needs on the TSL edition: to be a member of the owner. Less is refused, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from aurum_orchestration.maintenance.interfaces import MaintenanceStatus
from aurum_orchestration_tests.integration.postgres.support import opened
from aurum_orchestration_tests.integration.timescale.support import COLUMNSTORE, READINGS, Timescale, aggregate

OPERATIONS: list[tuple[str, dict[str, Any]]] = [
    ("compaction", {"chunks": "reorder", "reorder_index": "readings_meter"}),
    ("compaction", {"chunks": "merge"}),
    ("compaction", {}),
    ("views", {}),
    ("retention", {"row_days": 7, "time_column": "at"}),
]


@pytest.fixture
def owned(tsl: Timescale) -> Iterator[Timescale]:
    """The readings and an aggregate of them belong to a role that cannot log in."""
    owner, member, reader = (f"{role}_{tsl.name}" for role in ("owner", "member", "reader"))
    tsl.sql(
        *(f"CREATE ROLE {role} LOGIN" for role in (owner, member, reader)),
        f"GRANT {owner} TO {member}",
        f"GRANT pg_monitor, pg_maintain, pg_read_all_data TO {reader}",
        f"GRANT CREATE ON SCHEMA public TO {owner}",
        COLUMNSTORE,
        f"ALTER TABLE readings OWNER TO {owner}",
    )
    try:
        as_role(tsl, "owner").sql(aggregate("daily", "1 day"))
        yield tsl
    finally:
        for role in (reader, member, owner):
            tsl.sql(f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def as_role(ts: Timescale, role: str) -> Timescale:
    return Timescale(psycopg.conninfo.make_conninfo(ts.dsn, user=f"{role}_{ts.name}"), ts.name, ts.home)


def test_a_member_of_the_owner_can_do_all_of_it(owned: Timescale) -> None:
    member = as_role(owned, "member")
    for operation, given in OPERATIONS:
        planned = member.run(operation, READINGS, dry_run=True, **given)
        assert planned.status is MaintenanceStatus.PLANNED, (operation, given, planned.reason, planned.problem)
        result = member.run(operation, READINGS, **given)
        assert result.status is MaintenanceStatus.COMPLETED, (operation, given, result.reason, result.problem)
        assert result.metrics.get("groups_left", 0) == 0, result.warnings
    (health,) = member.health(READINGS)
    assert health.problem is None
    with opened(member.backend()) as backend:
        assert {one.check for one in backend.checkup([])} >= {"timescaledb", "native jobs"}


def test_who_may_only_maintain_changes_no_chunk(owned: Timescale) -> None:
    reader, before = as_role(owned, "reader"), (owned.relations(), owned.checksum("readings"), owned.checksum("daily"))
    for operation, given in OPERATIONS:
        result = reader.run(operation, READINGS, **given)
        assert result.status is not MaintenanceStatus.COMPLETED, (operation, given)
        assert result.problem is not None, (operation, given, result.reason)
        assert result.problem.type == "access-denied", (operation, given, result.problem)
        assert (owned.relations(), owned.checksum("readings"), owned.checksum("daily")) == before
    assert reader.run("stats", READINGS).status is MaintenanceStatus.COMPLETED
