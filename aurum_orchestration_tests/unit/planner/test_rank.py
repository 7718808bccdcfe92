from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import Cost, Decision, Gain
from aurum_orchestration.maintenance.planner.rank import Budget, rank
from aurum_orchestration_tests.unit.planner.builders import rule

GIB = 1024.0**3


def wish(name: str, points: float, seconds: float = 1, size: float = 0, operation: str = "compaction") -> Decision:
    table = TableId("lake", ("flights", name))
    return Decision(table, operation, True, "recommended", "many files", Gain(points, points), Cost(seconds, size))


@st.composite
def wishes(draw: st.DrawFn) -> list[Decision]:
    keys = st.tuples(st.sampled_from("abcdefgh"), st.sampled_from(["compaction", "vacuum"]))
    names = draw(st.lists(keys, unique=True, max_size=12))
    few = st.integers(0, 8)
    return [wish(name, draw(few), draw(few), draw(few), operation) for name, operation in names]


budgets = st.builds(
    Budget,
    tables=st.none() | st.integers(0, 6),
    bytes=st.none() | st.integers(0, 20),
    seconds=st.none() | st.integers(0, 20),
)


@rule
@given(wishes(), budgets)
def test_no_cap_is_ever_exceeded_and_nothing_is_lost(decisions: list[Decision], budget: Budget) -> None:
    taken, cut = rank(decisions, budget)
    assert budget.tables is None or len({decision.table for decision in taken}) <= budget.tables
    assert budget.bytes is None or sum(decision.cost.bytes for decision in taken) <= budget.bytes
    assert budget.seconds is None or sum(decision.cost.seconds for decision in taken) <= budget.seconds
    key = lambda decision: (decision.table, decision.operation)  # noqa: E731
    assert sorted(map(key, taken + cut)) == sorted(map(key, decisions))
    assert all(decision in decisions for decision in taken)
    assert all((decision.act, decision.code) == (False, "budget") for decision in cut)


@rule
@given(wishes(), budgets)
def test_nothing_is_cut_that_would_still_fit(decisions: list[Decision], budget: Budget) -> None:
    taken, cut = rank(decisions, budget)
    tables = {decision.table for decision in taken}
    for decision in cut:
        assert (
            (budget.tables is not None and len(tables | {decision.table}) > budget.tables)
            or (budget.bytes is not None and sum(d.cost.bytes for d in [*taken, decision]) > budget.bytes)
            or (budget.seconds is not None and sum(d.cost.seconds for d in [*taken, decision]) > budget.seconds)
        )


@rule
@given(wishes(), budgets, st.randoms(use_true_random=False))
def test_the_order_given_makes_no_difference(decisions: list[Decision], budget: Budget, random: Random) -> None:
    shuffled = list(decisions)
    random.shuffle(shuffled)
    assert rank(shuffled, budget) == rank(decisions, budget)


def ahead_of(decision: Decision, decisions: list[Decision]) -> set[tuple[TableId, str]]:
    order = [(other.table, other.operation) for other in rank(decisions)[0]]
    return set(order[: order.index((decision.table, decision.operation))])


@rule
@given(wishes(), st.data())
def test_more_gain_or_less_cost_never_puts_a_decision_behind_another(
    decisions: list[Decision], data: st.DataObject
) -> None:
    if not decisions:
        return
    old = data.draw(st.sampled_from(decisions))
    better = replace(
        old,
        gain=Gain(old.gain.debt_score + data.draw(st.integers(0, 5)), old.gain.files),
        cost=Cost(data.draw(st.integers(0, int(old.cost.seconds))), old.cost.bytes),
    )
    assert ahead_of(better, [better if d is old else d for d in decisions]) <= ahead_of(old, decisions)


@rule
@given(wishes(), st.integers(0, 6))
def test_a_budget_of_more_tables_keeps_all_that_a_smaller_one_took(decisions: list[Decision], tables: int) -> None:
    taken, _ = rank(decisions, Budget(tables=tables))
    more, _ = rank(decisions, Budget(tables=tables + 1))
    assert {id(decision) for decision in taken} <= {id(decision) for decision in more}


def test_gain_weighs_more_than_cost() -> None:
    cheap, good = wish("cheap", 10, seconds=1), wish("good", 50, seconds=100)
    middling = wish("middling", 45, seconds=10)
    taken, cut = rank([cheap, good, middling])
    assert [decision.table.name for decision in taken] == ["middling", "good", "cheap"]
    assert cut == []


def test_what_is_not_to_act_is_left_out() -> None:
    idle = replace(wish("idle", 50), act=False, code="healthy")
    assert rank([idle]) == ([], [])
    assert rank([]) == ([], [])


def test_one_table_counts_once_whatever_is_done_to_it() -> None:
    decisions = [wish("a", 50), wish("a", 40, operation="vacuum"), wish("b", 30)]
    taken, cut = rank(decisions, Budget(tables=1))
    assert taken == decisions[:2]
    assert [decision.table.name for decision in cut] == ["b"]


def test_a_smaller_one_behind_what_does_not_fit_is_taken() -> None:
    big, small = wish("big", 50, size=3 * GIB), wish("small", 10, size=GIB)
    taken, cut = rank([big, small], Budget(bytes=2 * GIB))
    assert taken == [small]
    assert [decision.table.name for decision in cut] == ["big"]


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(tables=1), "many files; not this time: the budget of 1 table is used up"),
        (
            Budget(bytes=4 * GIB),
            "many files; not this time: it moves 3 GiB, the budget of 4 GiB has 2.5 GiB left",
        ),
        (
            Budget(seconds=70),
            "many files; not this time: it takes 60.0 s, the budget of 70.0 s has 10.0 s left",
        ),
    ],
)
def test_the_cut_says_which_cap_and_what_is_left(budget: Budget, reason: str) -> None:
    first, second = wish("a", 50, 60, 1.5 * GIB), wish("b", 10, 60, 3 * GIB)
    taken, cut = rank([first, second], budget)
    assert taken == [first]
    assert [decision.reason for decision in cut] == [reason]
