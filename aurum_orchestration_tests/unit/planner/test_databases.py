"""When what databases and their tables need starts by itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from aurum_orchestration.fleet.policy import builtin_policy_models
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import Decision, TableHealth
from aurum_orchestration.maintenance.planner.databases import PENALTIES
from aurum_orchestration.maintenance.planner.debt import debt_score
from aurum_orchestration.maintenance.planner.decide import decide, healthy
from aurum_orchestration.maintenance.planner.triggers import TRIGGERS
from aurum_orchestration_tests.unit.planner.builders import NOW, odd_numbers, rule

MIB, GIB = 1024**2, 1024**3
FRESH = {
    "table_bytes": GIB,
    "index_bytes": GIB,
    "indexes": 4,
    "rows": 1e6,
    "dead_tuples": 0,
    "autovacuum_debt": 0,
    "xid_age_share": 0.1,
    "rows_changed_since_analyze": 0,
    "seconds_since_analyze": 60,
}
DATABASE = {"database_bytes": GIB, "connections_share": 0.1, "wraparound_share": 0.01, "longest_transaction_seconds": 1}


def health(metrics: dict[str, float]) -> TableHealth:
    return TableHealth(TableId("pg", ("public", "trades")), "pg", "1", NOW, metrics)


def decided(operation: str, metrics: dict[str, float], **rules: Any) -> Decision:
    models = builtin_policy_models()

    def policy(_table: TableId, name: str) -> BaseModel:
        return models[name].model_validate(rules if name == operation else {})

    (decision,) = decide(health(metrics), policy, {}, NOW, [operation])
    return decision


@pytest.mark.parametrize(
    ("operation", "numbers", "code"),
    [
        ("vacuum", {}, "healthy"),
        ("vacuum", {"dead_tuples": 3, "autovacuum_debt": 0.1}, "not-due"),
        ("vacuum", {"dead_tuples": 299_999, "autovacuum_debt": 1.49}, "not-due"),
        ("vacuum", {"dead_tuples": 300_000, "autovacuum_debt": 1.5}, "recommended"),
        ("vacuum", {"xid_age_share": 0.75}, "recommended"),
        ("reindex", {}, "healthy"),
        ("reindex", {"worst_index_bloat_bytes": 100 * MIB, "worst_index_bloat_ratio": 0.29}, "healthy"),
        ("reindex", {"worst_index_bloat_bytes": 99 * MIB, "worst_index_bloat_ratio": 0.9}, "healthy"),
        ("reindex", {"worst_index_bloat_bytes": 100 * MIB, "worst_index_bloat_ratio": 0.3}, "recommended"),
        ("reindex", {"invalid_indexes": 1}, "recommended"),
        ("compaction", {"table_bloat_bytes": 2 * GIB, "table_bloat_ratio": 0.9}, "not-due"),
        ("retention", {}, "healthy"),
        ("cleanup", {}, "healthy"),
        ("backup", {}, "disabled"),
    ],
)
def test_a_table_is_left_alone_until_a_threshold_is_crossed(
    operation: str, numbers: dict[str, float], code: str
) -> None:
    decision = decided(operation, FRESH | numbers)
    assert decision.code == code, decision.reason
    assert healthy([decision]) == (code != "recommended")
    assert decision.act == (code == "recommended")


@pytest.mark.parametrize(
    ("operation", "numbers", "rules"),
    [
        ("compaction", {"table_bloat_bytes": GIB, "table_bloat_ratio": 0.5}, {"online_rewrite": True}),
        ("retention", {}, {"time_column": "ts", "row_days": 30}),
        ("stats", {"rows_changed_since_analyze": 100_050}, {"enabled": True}),
        ("vacuum", {"dead_tuples": 9, "autovacuum_debt": 0.2}, {"trigger_autovacuum_debt": 0.2}),
        ("reindex", {"worst_index_bloat_bytes": MIB, "worst_index_bloat_ratio": 0.5}, {"min_bloat_mb": 1}),
        ("compaction", {"chunks": 30, "rowstore_chunks": 4}, {"trigger_chunks": 4}),
        ("views", {"chunks": 30, "continuous_aggregates": 1}, {"enabled": True}),
    ],
)  # fmt: skip
def test_a_policy_moves_the_threshold(operation: str, numbers: dict[str, float], rules: dict[str, Any]) -> None:
    assert decided(operation, FRESH | numbers, **rules).act
    assert not decided(operation, FRESH | numbers).act


@pytest.mark.parametrize(
    ("operation", "numbers", "rules", "code"),
    [
        ("compaction", {"rowstore_chunks": 4}, {}, "not-due"),
        ("compaction", {"rowstore_chunks": 4}, {"trigger_chunks": 5}, "not-due"),
        ("compaction", {"rowstore_chunks": 4}, {"trigger_chunks": 4, "chunks": "merge"}, "not-due"),
        ("compaction", {"table_bloat_bytes": GIB, "table_bloat_ratio": 0.9}, {"online_rewrite": True}, "not-due"),
        ("views", {"continuous_aggregates": 1}, {}, "disabled"),
        ("views", {"continuous_aggregates": 0}, {"enabled": True}, "healthy"),
    ],
)
def test_chunks_and_aggregates_wait_for_whoever_asks(
    operation: str, numbers: dict[str, float], rules: dict[str, Any], code: str
) -> None:
    assert decided(operation, FRESH | {"chunks": 30} | numbers, **rules).code == code


@pytest.mark.parametrize("operation", ["cleanup", "logs", "sessions"])
def test_rule_groups_are_due_on_the_database_where_there_are_any(operation: str) -> None:
    assert decided(operation, DATABASE | {f"{operation}_groups": 2}).act
    nothing = decided(operation, DATABASE | {f"{operation}_groups": 0})
    assert (nothing.act, nothing.reason) == (
        False,
        f"healthy: fleet.yaml has no rule group under {operation} of this backend",
    )


@pytest.mark.parametrize("metrics", [FRESH, {"rows": 5.0, "indexes": 1.0}], ids=["postgres", "sqlite"])
@pytest.mark.parametrize("operation", ["cleanup", "logs", "sessions"])
def test_rule_groups_are_never_due_on_a_table_but_may_be_asked_for(operation: str, metrics: dict[str, float]) -> None:
    about = decided(operation, metrics | {f"{operation}_groups": 2})
    assert (about.code, about.reason) == ("not-due", "healthy: 2 rule groups, done with the whole database's")
    none = decided(operation, metrics | {f"{operation}_groups": 0})
    assert (none.code, none.reason) == ("healthy", f"healthy: no rule group of {operation} is about it")


def test_rows_are_never_too_old_before_somebody_says_how_old() -> None:
    decision = decided("retention", FRESH, time_column="ts", retention_days=7)
    assert not decision.act
    assert decision.reason == "healthy: its policy names ts but no row_days, so no row is ever too old"


@pytest.mark.parametrize("operation", ["vacuum", "reindex", "compaction", "retention"])
def test_a_database_is_healthy_where_its_tables_are_judged(operation: str) -> None:
    decision = decided(operation, DATABASE)
    assert decision.reason == "healthy: its tables are judged one by one"


def test_a_table_of_an_unknown_engine_is_not_taken_for_a_healthy_one() -> None:
    assert {decided(name, {"files": 3.0}).code for name in ("vacuum", "reindex", "retention", "compaction")} == {
        "unmeasured"
    }


def test_the_reason_has_the_numbers() -> None:
    decision = decided("vacuum", FRESH | {"dead_tuples": 500_000, "autovacuum_debt": 2.5})
    assert decision.reason == "500,000 of 1,500,000 rows are dead, 2.5 times what autovacuum leaves"
    assert decision.gain.bytes == pytest.approx(GIB / 3)
    assert decision.gain.debt_score == pytest.approx(PENALTIES["autovacuum_debt"].points(2.5), abs=0.01)


def test_debt_is_nothing_for_a_fresh_table_and_at_most_100() -> None:
    assert debt_score(health(FRESH)) == 0
    worst = dict.fromkeys(PENALTIES, 1e18) | {"table_bytes": 1.0, "table_bloat_ratio": 1.0, "index_bloat_ratio": 1.0}
    worst |= {"table_bloat_bytes": 1e18, "index_bloat_bytes": 1e18}
    assert 99 < debt_score(health(worst)) <= 100
    assert 99 < debt_score(health(dict.fromkeys(PENALTIES, 1e18) | {"database_bytes": 1.0})) <= 100


@rule
@given(st.sampled_from(sorted(TRIGGERS)), st.sampled_from([FRESH, DATABASE]), st.data())
def test_odd_numbers_never_raise(operation: str, kind: dict[str, float], data: st.DataObject) -> None:
    metrics = {name: data.draw(odd_numbers) for name in (*kind, *PENALTIES, "worst_index_bloat_bytes")}
    decision = decided(operation, metrics, enabled=True)
    for value in (decision.gain.debt_score, decision.gain.bytes, decision.cost.seconds, decision.cost.bytes):
        assert 0 <= value < float("inf")
    assert 0 <= debt_score(health(metrics)) <= 100
