"""What holds a round back, by who asked for it: a person, a schedule, or a sensor."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from aurum_orchestration.fleet.policy import builtin_policy_models
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.calendar import CalendarPolicy
from aurum_orchestration.maintenance.interfaces import (
    Decision,
    MaintenanceConfig,
    MaintenanceResult,
    MaintenanceStatus,
    TableHealth,
)
from aurum_orchestration.maintenance.planner.rank import Spent
from aurum_orchestration.maintenance.rounds import Respect, choose, judge, spent_on

NOW = datetime(2026, 11, 21, 3, tzinfo=UTC)
TABLE = TableId("lake", ("n", "t"))
SHUT = CalendarPolicy(blackouts=("00:00-06:00",))


def judged(respect: Respect, code: str, operation: str = "compaction", **policy: Any) -> Decision:
    """A decision of that code, as the round takes it; ``policy``: the operation's, and the calendar."""

    def lookup(_table: TableId, name: str) -> Any:
        if name == "calendar":
            return policy.get("calendar", CalendarPolicy())
        return builtin_policy_models()[name](enabled=policy.get("enabled", True))

    decision = Decision(TABLE, operation, code == "recommended", code, "because")
    return judge(respect, lookup, NOW)(decision)


@pytest.mark.parametrize(
    ("code", "person", "schedule", "sensor"),
    [
        ("recommended", True, True, True),
        ("cooldown", True, True, False),
        ("gains-nothing", True, True, False),
        ("not-due", True, True, False),
        ("back-off", True, False, False),
        ("healthy", False, False, False),
        ("refused", False, False, False),
    ],
)
def test_who_passes_over_what(code: str, person: bool, schedule: bool, sensor: bool) -> None:
    asked = [judged(respect, code).act for respect in (Respect.NOTHING, Respect.CALENDAR, Respect.DECISIONS)]
    assert asked == [person, schedule, sensor]


@pytest.mark.parametrize("code", ["recommended", "cooldown", "not-due", "blackout"])
def test_a_schedule_keeps_out_of_blackouts_whatever_the_planner_named_first(code: str) -> None:
    decision = judged(Respect.CALENDAR, code, calendar=SHUT)
    assert (decision.act, decision.code) == (False, "blackout")
    assert decision.reason == "in a blackout until Sat 2026-11-21 06:00 UTC"
    assert judged(Respect.NOTHING, code, calendar=SHUT).act


def test_a_schedule_starts_what_the_planner_never_does_but_not_what_is_switched_off() -> None:
    assert judged(Respect.CALENDAR, "disabled", "partition_evolution").act
    assert not judged(Respect.CALENDAR, "disabled", enabled=False).act
    assert judged(Respect.NOTHING, "disabled", enabled=False).act


def test_a_named_operation_that_is_held_back_is_answered_with_the_reason() -> None:
    health = TableHealth(TABLE, "lake", "1", NOW)
    decision = Decision(TABLE, "compaction", False, "window", "many small files; outside its maintenance windows")

    def answered(*, named: bool) -> list[tuple[str, str]]:
        found = choose(
            [(health, 1.0, [decision])],
            named=named,
            judged=judge(Respect.DECISIONS, lambda _table, _operation: CalendarPolicy(), NOW),
            budget=None,
            request=lambda one: MaintenanceConfig(operation_type=one.operation, target_table=str(one.table)),
        )
        assert not found.to_do
        return [(str(one.status), one.reason) for one in found.answered]

    assert answered(named=True) == [("skipped", "many small files; outside its maintenance windows")]
    assert answered(named=False) == []


@pytest.mark.parametrize(("code", "done"), [("recommended", ["pg.market"]), ("back-off", [])])
def test_rule_groups_of_a_database_that_is_held_back_do_not_run_on_its_tables_instead(
    code: str, done: list[str]
) -> None:
    def one(name: str, code: str) -> tuple[TableHealth, float, list[Decision]]:
        table = TableId.parse(name)
        decision = Decision(table, "logs", code == "recommended", code, "because")
        return TableHealth(table, "pg", "1", NOW), 0.0, [decision]

    found = choose(
        [one("pg.public.audit", "not-due"), one("pg.market", code)],
        named=True,
        judged=judge(Respect.CALENDAR, lambda _table, name: builtin_policy_models()[name](), NOW),
        budget=None,
        request=lambda one: MaintenanceConfig(operation_type=one.operation, target_table=str(one.table)),
    )
    assert [str(one.table) for one in found.to_do] == done


def test_what_rounds_took_from_a_budget() -> None:
    def result(table: str, status: MaintenanceStatus, **config: Any) -> MaintenanceResult:
        return MaintenanceResult(
            config=MaintenanceConfig(operation_type="compaction", target_table=table, **config),
            status=status,
            metrics={"bytes_rewritten": 3.0, "bytes_added": 2.0, "files_rewritten": 9.0},
            started_at=NOW,
            finished_at=NOW + timedelta(seconds=4),
        )

    done = MaintenanceStatus.COMPLETED
    results = [result("a", done), result("b", MaintenanceStatus.FAILED), result("c", MaintenanceStatus.SKIPPED)]
    spent = spent_on([*results, result("d", MaintenanceStatus.PLANNED, dry_run=True)])
    assert spent == Spent(tables=frozenset({"a", "b"}), bytes=10, seconds=8)
