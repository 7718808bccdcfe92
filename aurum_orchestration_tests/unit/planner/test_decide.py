from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aurum_orchestration.errors import BackendUnavailableError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.calendar import CALENDAR, CalendarPolicy
from aurum_orchestration.maintenance.interfaces import (
    Cost,
    Decision,
    Gain,
    MaintenanceStatus,
    PolicyLookup,
    TableHealth,
)
from aurum_orchestration.maintenance.metrics import HEALTH_METRICS
from aurum_orchestration.maintenance.planner.debt import debt_score
from aurum_orchestration.maintenance.planner.decide import (
    LONGEST_IDLE,
    LONGEST_PAUSE,
    WAITING,
    closest,
    decide,
    healthy,
    idle_interval,
    pause_after,
)
from aurum_orchestration.maintenance.planner.facts import GIB, NO_FACTS, RunFacts
from aurum_orchestration.maintenance.planner.rank import rank
from aurum_orchestration.maintenance.planner.triggers import TRIGGERS
from aurum_orchestration_tests.unit.planner.builders import (
    KEY,
    NOW,
    TABLE,
    health,
    numbers,
    odd_numbers,
    policy,
    rule,
    sick,
)


def compaction(table: TableHealth, facts: RunFacts = NO_FACTS, now: datetime = NOW, **rules: object) -> Decision:
    (decision,) = decide(table, policy(**rules), {KEY: facts}, now, ["compaction"])
    return decision


def with_excess(excess: int) -> TableHealth:
    return health(data_files=1000, small_files=excess + 1, excess_files=excess)


def ran(minutes_ago: float, **facts: object) -> RunFacts:
    finished = NOW - timedelta(minutes=minutes_ago)
    return replace(RunFacts(finished, MaintenanceStatus.COMPLETED, finished), **facts)  # type: ignore[arg-type]


# trigger and hysteresis


@rule
@given(excess=st.integers(0, 60), trigger=st.integers(1, 40), clear=st.integers(0, 60), engaged=st.booleans())
def test_acts_from_the_trigger_on_and_an_unfinished_run_down_to_clear(
    excess: int, trigger: int, clear: int, engaged: bool
) -> None:
    decision = compaction(
        with_excess(excess), RunFacts(engaged=engaged), trigger_excess_files=trigger, clear_excess_files=clear
    )
    lower = max(1, min(clear, trigger))
    assert decision.act == (excess >= (lower if engaged else trigger))
    assert decision.code == ("recommended" if decision.act else "healthy")


def test_nothing_to_win_is_never_acted_upon() -> None:
    assert not compaction(with_excess(0), RunFacts(engaged=True), clear_excess_files=0).act


@rule
@given(st.integers(0, 100), st.integers(0, 100), st.booleans(), st.integers(0, 4), st.integers(0, 1000))
def test_more_excess_never_stops_what_less_would_start(
    excess: int, more: int, engaged: bool, failures: int, minutes: int
) -> None:
    facts = ran(minutes, engaged=engaged, consecutive_failures=failures)
    if compaction(with_excess(excess), facts).act:
        assert compaction(with_excess(excess + more), facts).act


# reasons, gain and cost


def test_the_reason_to_act_has_the_numbers() -> None:
    decision = compaction(health(data_files=2940, small_files=2931, excess_files=2928, data_bytes=4e7, exact=1))
    assert decision.reason == "2,931 of 2,940 files are smaller than 48 MiB; compaction would leave 12"


def test_the_reason_says_when_numbers_are_estimates() -> None:
    decision = compaction(health(data_files=2940, small_files=2931, excess_files=2928, exact=0))
    assert decision.reason == "up to 2,931 of 2,940 files are smaller than 48 MiB; compaction would leave about 12"


def test_the_reason_says_that_an_unfinished_run_is_carried_on() -> None:
    decision = compaction(with_excess(8), RunFacts(engaged=True))
    assert decision.reason.startswith("carrying on with an unfinished run: 9 of 1,000 files")


@pytest.mark.parametrize(
    ("excess", "reason"),
    [
        (0, "healthy: no files could be saved, acts at 20"),
        (1, "healthy: 1 file could be saved, acts at 20"),
        (3, "healthy: 3 files could be saved, acts at 20"),
    ],
)
def test_doing_nothing_has_a_reason_and_its_gain_too(excess: int, reason: str) -> None:
    decision = compaction(with_excess(excess))
    assert (decision.reason, decision.gain.files) == (reason, excess)


@rule
@given(st.integers(1, 10**6), st.integers(0, 10**6), numbers(1e15), st.integers(1, 4096))
def test_gain_and_cost_follow_from_the_numbers(excess: int, kept: int, size: float, target: int) -> None:
    table = health(data_files=excess + kept + 1, small_files=excess + 1, excess_files=excess, data_bytes=size)
    decision = compaction(table, target_file_size_mb=target)
    assert decision.gain.files == excess
    assert decision.gain.debt_score == debt_score(table)  # nothing else is wrong with it
    assert 0 <= decision.cost.bytes <= 2 * size
    assert 0 <= decision.gain.bytes <= decision.cost.bytes / 4
    assert decision.cost.seconds > 0


def test_the_bytes_to_rewrite_are_taken_as_measured() -> None:
    table = health(data_files=100, small_files=50, excess_files=45, data_bytes=9e9, small_bytes=1e9)
    assert compaction(table).cost.bytes == 2e9


def test_a_few_small_files_in_a_huge_table_do_not_cost_the_whole_table() -> None:
    huge = health(data_files=8040, small_files=40, excess_files=39, data_bytes=1e12)
    assert compaction(huge).cost.bytes < 1e9


def test_seconds_follow_the_measured_rate_of_the_table() -> None:
    table = health(data_files=100, small_files=100, excess_files=90, small_bytes=float(GIB))
    assert compaction(table, RunFacts(seconds_per_gib=7.0)).cost.seconds == pytest.approx(14)
    assert compaction(table).cost.seconds == pytest.approx(0.5 + 0.3 + 20)


# what stops the planner


def test_a_refusal_is_passed_on_with_what_waits_behind_it() -> None:
    refused = replace(sick(), refusals={"compaction": "has equality deletes"})
    decision = compaction(refused)
    assert (decision.act, decision.code) == (False, "refused")
    assert decision.reason.startswith("has equality deletes (2,932 of 2,940 files")
    assert decision.gain.files == 2931
    fine = compaction(replace(with_excess(3), refusals={"compaction": "has equality deletes"}))
    assert (fine.code, fine.reason, fine.gain) == ("refused", "has equality deletes", Gain())
    assert healthy([fine])
    assert not healthy([decision])


def test_a_refusal_of_another_operation_does_not_matter() -> None:
    assert compaction(replace(sick(), refusals={"vacuum": "no"})).act


def test_a_table_that_could_not_be_measured_is_not_touched_nor_called_healthy() -> None:
    problem = BackendUnavailableError("the catalog does not answer").problem()
    broken = TableHealth(TABLE, "lake", "", NOW, problem=problem)
    decision = compaction(broken)
    assert (decision.act, decision.code) == (False, "unmeasured")
    assert decision.reason == "could not be measured: the catalog does not answer"
    assert not healthy([decision])
    assert compaction(replace(sick(), problem=problem)).code == "unmeasured"


def test_a_metric_that_is_missing_is_not_taken_for_zero() -> None:
    assert compaction(health(data_files=10)).code == "unmeasured"


def test_a_policy_switches_an_operation_off() -> None:
    decision = compaction(sick(), enabled=False)
    assert (decision.act, decision.code, decision.gain) == (False, "disabled", Gain())
    assert healthy([decision])


def test_an_operation_without_a_trigger_is_never_started() -> None:
    decisions = decide(sick(), policy(), {}, NOW, ["my_own", "compaction"])
    assert [(decision.operation, decision.code) for decision in decisions] == [
        ("compaction", "recommended"),
        ("my_own", "disabled"),
    ]


# time


@rule
@given(st.integers(0, 2000), st.integers(0, 2000))
def test_cooldown(minutes_ago: int, cooldown: int) -> None:
    decision = compaction(sick(), ran(minutes_ago), cooldown_minutes=cooldown)
    assert decision.act == (minutes_ago >= cooldown)
    assert decision.code == ("recommended" if decision.act else "cooldown")
    assert not healthy([decision])


@rule
@given(st.integers(0, 20), st.integers(0, 8), st.integers(0, 20_000), st.integers(0, 3000))
def test_an_unfinished_run_is_carried_on_without_a_cooldown(
    failures: int, idle: int, minutes_ago: int, cooldown: int
) -> None:
    facts = ran(minutes_ago, engaged=True, consecutive_failures=failures, consecutive_no_gain=idle)
    decision = compaction(sick(), facts, cooldown_minutes=cooldown)
    throttle = idle_interval(timedelta(minutes=cooldown), idle) if idle >= 5 else timedelta()
    assert decision.act == (timedelta(minutes=minutes_ago) >= max(pause_after(failures), throttle))
    assert decision.act or decision.code in {"back-off", "gains-nothing"}


def test_the_cooldown_says_until_when() -> None:
    assert compaction(sick(), ran(25)).reason.endswith(
        "; cools down until 2026-01-31 12:35 UTC (60 minutes after a run)"
    )


def test_a_table_without_need_is_healthy_in_cooldown_too() -> None:
    decision = compaction(with_excess(3), ran(1))
    assert decision.code == "healthy"
    assert healthy([decision])


@pytest.mark.parametrize(("failures", "hours"), [(0, 0), (1, 2 / 3), (2, 2), (3, 6), (4, 18), (5, 24), (10**9, 24)])
def test_pause_after_failures(failures: int, hours: float) -> None:
    assert pause_after(failures) == timedelta(hours=hours)


@rule
@given(st.integers(0, 50), st.integers(0, 3000), st.integers(0, 3000))
def test_back_off(failures: int, minutes_ago: int, cooldown: int) -> None:
    decision = compaction(sick(), ran(minutes_ago, consecutive_failures=failures), cooldown_minutes=cooldown)
    pause = max(timedelta(minutes=cooldown), pause_after(failures))
    assert decision.act == (timedelta(minutes=minutes_ago) >= pause)
    assert pause_after(failures) <= pause_after(failures + 1) <= LONGEST_PAUSE
    if not decision.act:
        assert decision.code == ("back-off" if failures else "cooldown")


def test_the_back_off_says_until_when_and_why() -> None:
    assert compaction(sick(), ran(60, consecutive_failures=3)).reason.endswith(
        "; waits until 2026-01-31 17:00 UTC after 3 failures in a row"
    )


@pytest.mark.parametrize(
    ("runs", "minutes"), [(0, 60), (4, 60), (5, 90), (6, 135), (7, 202.5), (10**9, LONGEST_IDLE.total_seconds() / 60)]
)
def test_runs_that_gain_nothing_lengthen_the_interval(runs: int, minutes: float) -> None:
    assert idle_interval(timedelta(minutes=60), runs) == timedelta(minutes=minutes)


@rule
@given(st.integers(0, 60), st.integers(0, 20_000), st.integers(0, 20_000))
def test_runs_that_gain_nothing_are_throttled(runs: int, minutes_ago: int, cooldown: int) -> None:
    decision = compaction(sick(), ran(minutes_ago, consecutive_no_gain=runs), cooldown_minutes=cooldown)
    base, ago = timedelta(minutes=cooldown), timedelta(minutes=minutes_ago)
    assert decision.act == (ago >= idle_interval(base, runs))
    assert base <= idle_interval(base, runs) <= idle_interval(base, runs + 1) <= max(base, LONGEST_IDLE)
    if not decision.act:
        assert decision.code == ("cooldown" if ago < base else "gains-nothing")
        assert decision.code in WAITING


def test_without_a_cooldown_runs_that_gain_nothing_are_throttled_too() -> None:
    assert idle_interval(timedelta(), 4) == timedelta()
    assert idle_interval(timedelta(), 5) == timedelta(minutes=22.5)


def test_a_failure_among_runs_that_gained_nothing_waits_for_the_longer_of_both() -> None:
    both = ran(50, consecutive_failures=1, consecutive_no_gain=8)
    assert compaction(sick(), both, cooldown_minutes=45).code == "gains-nothing"
    assert (
        compaction(sick(), ran(20, consecutive_failures=1, consecutive_no_gain=4), cooldown_minutes=5).code
        == "back-off"
    )


def test_the_throttle_says_until_when_and_why() -> None:
    assert compaction(sick(), ran(80, consecutive_no_gain=5)).reason.endswith(
        "; waits until 2026-01-31 12:10 UTC: 5 runs in a row gained nothing"
    )


@rule
@given(st.integers(0, 8), st.integers(0, 8), st.integers(0, 5000), st.integers(0, 5000))
def test_waiting_longer_never_takes_a_decision_back(failures: int, idle: int, minutes: int, more: int) -> None:
    facts = ran(minutes, consecutive_failures=failures, consecutive_no_gain=idle)
    if compaction(sick(), facts).act:
        assert compaction(sick(), facts, NOW + timedelta(minutes=more)).act


def test_a_slightly_fast_clock_waits_and_a_wrong_one_blocks_nothing() -> None:
    assert compaction(sick(), ran(-1)).code == "cooldown"
    assert compaction(sick(), ran(-(10**6))).act


def test_times_without_a_zone_are_utc() -> None:
    naive = RunFacts(last_finished=(NOW - timedelta(minutes=30)).replace(tzinfo=None))
    assert compaction(sick(), naive).code == "cooldown"
    assert compaction(sick(), naive, NOW.replace(tzinfo=None)) == compaction(sick(), naive)


# any input


@rule
@given(
    st.dictionaries(st.sampled_from(sorted(HEALTH_METRICS)), odd_numbers),
    st.builds(
        RunFacts,
        last_finished=st.none() | st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(9000, 1, 1)),  # noqa: DTZ001
        consecutive_failures=st.integers(-5, 10**30),
        consecutive_no_gain=st.integers(-5, 10**30),
        seconds_per_gib=st.none() | st.floats(),
        engaged=st.booleans(),
    ),
)
def test_odd_input_never_raises(metrics: dict[str, float], facts: RunFacts) -> None:
    decision = compaction(health(**metrics), facts)
    assert decision.reason
    assert decision == compaction(health(**metrics), facts)
    for value in (decision.gain.debt_score, decision.gain.files, decision.cost.seconds, decision.cost.bytes):
        assert 0 <= value < float("inf")


# several operations and tables


def some(code: str, points: float, name: str = "compaction") -> Decision:
    return Decision(TABLE, name, code == "recommended", code, "", Gain(points, points), Cost())


def test_the_most_important_decision_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "aurum_orchestration.maintenance.planner.decide.TRIGGERS",
        {"retention": lambda *_: None, "compaction": TRIGGERS["compaction"]},
    )
    assert [decision.operation for decision in decide(sick(), policy(), {}, NOW)] == ["compaction", "retention"]


def test_closest_is_what_waits_then_what_has_most_to_win() -> None:
    idle, waits, near = some("healthy", 1), some("cooldown", 5), some("healthy", 9)
    assert closest([idle, some("recommended", 50), near, some("refused", 70), some("disabled", 0)]) == near
    assert closest([idle, near, waits]) == waits
    assert closest([some("recommended", 50), some("unmeasured", 0)]) is None


@rule
@given(st.lists(st.sampled_from(["recommended", "healthy", "cooldown", "back-off", "budget", "unmeasured"])))
def test_a_table_is_healthy_when_no_trigger_is_crossed(codes: list[str]) -> None:
    assume(codes)
    assert healthy([some(code, 1) for code in codes]) == (set(codes) == {"healthy"})


def with_calendar(rules: PolicyLookup, **calendar: object) -> PolicyLookup:
    made = CalendarPolicy.model_validate(calendar)
    return lambda table, section: made if section == CALENDAR else rules(table, section)


def test_what_is_needed_waits_for_its_window_and_says_when_it_opens() -> None:
    # NOW is a Saturday noon in UTC
    rules = with_calendar(policy(), windows=["Sat 22:00-24:00"])
    (decision,) = decide(sick(), rules, {}, NOW, ["compaction"])
    assert (decision.act, decision.code) == (False, "window")
    assert "outside its maintenance windows until Sat 2026-01-31 22:00 UTC" in decision.reason
    assert not healthy([decision])
    (later,) = decide(sick(), rules, {}, NOW.replace(hour=22), ["compaction"])
    assert later.act


def test_a_blackout_closes_a_window() -> None:
    rules = with_calendar(policy(), windows=["00:00-24:00"], blackouts=["2026-01-31/2026-02-02"])
    (decision,) = decide(sick(), rules, {}, NOW, ["compaction"])
    assert (decision.act, decision.code) == (False, "blackout")
    assert "until Mon 2026-02-02 00:00 UTC" in decision.reason


def test_windows_are_meant_in_the_zone_of_now() -> None:
    rules = with_calendar(policy(), windows=["13:00-13:30"])
    assert decide(sick(), rules, {}, NOW.astimezone(ZoneInfo("Europe/Berlin")), ["compaction"])[0].act
    assert not decide(sick(), rules, {}, NOW, ["compaction"])[0].act


def test_a_table_of_higher_priority_comes_first_though_it_gains_less() -> None:
    rules = with_calendar(policy(), priority=5)
    small = decide(sick(100), rules, {}, NOW, ["compaction"])
    large = decide(replace(sick(9000), table=TableId("lake", ("flights", "other"))), policy(), {}, NOW, ["compaction"])
    taken, _ = rank([*large, *small])
    assert [decision.table for decision in taken] == [small[0].table, large[0].table]


def test_an_infinite_rate_of_the_past_predicts_by_the_defaults() -> None:
    facts = RunFacts(seconds_per_gib=float("inf"))
    assert (
        compaction(health(data_files=9, excess_files=9, data_bytes=0), facts).cost
        == compaction(health(data_files=9, excess_files=9, data_bytes=0)).cost
    )
