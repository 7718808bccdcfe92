"""The operation log gives back what was recorded, exactly, newest first, filtered."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from aurum_orchestration.errors import HistoryUnusableError, LeaseHeldError, RequestError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.history import History
from aurum_orchestration.history.codec import from_text, metrics_from_text, metrics_to_text, to_text
from aurum_orchestration.history.schema import operations
from aurum_orchestration.maintenance.interfaces import (
    MaintenanceConfig,
    MaintenanceResult,
    MaintenanceStatus,
    OperationType,
    PlanStep,
    Verification,
)
from aurum_orchestration_tests.integration.history.samples import FLIGHTS, NOON, ended, wait_until

FULL = MaintenanceResult(
    operation_id="op-1",
    config=MaintenanceConfig(
        operation_type=OperationType.COMPACTION,
        target_table='lake."my.ns"."t""x"',
        backend_type="iceberg",
        parameters={"target_file_size_mb": 128, "partition_filter": "day = 'ü'", "nested": {"a": [1, 2.5, None, True]}},
    ),
    backend="lake",
    status=MaintenanceStatus.FAILED,
    reason="rewrote 100 files into 3: Zürich, 東京, 🛫\nsecond line",
    metrics={"files_rewritten": 100.0, "huge": 1e300, "tiny": -0.0, "inf": math.inf, "-inf": -math.inf},
    plan_id="0123456789abcdef",
    steps=[
        PlanStep(
            number=1,
            action="rewrite",
            summary="rewrite",
            risk="none",
            detail={"files": ["a", "b"], "ratio": math.inf, "odd": {"$float": "NaN"}, "odder": {"$$": {"$x": 1}}},
        )
    ],
    verification=Verification(method="row-count", rows_before=2**53 + 1, rows_after=7, checksum_equal=False),
    problem=LeaseHeldError("held by somebody", table="lake.a.b", hint="wait").problem(instance="op-1"),
    warnings=["one", "", "three\ttabs"],
    undo="aurum rollback op-1",
    started_at=datetime(2026, 1, 31, 12, 0, 0, 123456, tzinfo=UTC),
    finished_at=datetime(2026, 1, 31, 12, 0, 1, 654321, tzinfo=UTC),
)


def test_a_full_result_comes_back_equal(history: History) -> None:
    history.record(FULL, who="maria@host")
    assert history.operations() == [FULL]


def test_an_empty_result_comes_back_equal(history: History) -> None:
    bare = MaintenanceResult(
        config=MaintenanceConfig(operation_type="my own", target_table="lake.a.b"), status=MaintenanceStatus.RUNNING
    )
    no_steps = ended(steps=[], operation_id="no steps")
    history.record(bare, who="maria")
    history.record(no_steps, who="maria")
    assert sorted(history.operations(), key=lambda result: result.started_at) == [no_steps, bare]


def test_types_come_back_too(history: History) -> None:
    history.record(FULL, who="maria")
    history.record(ended(operation="my own", minute=-1), who="maria")
    first, second = history.operations()
    assert isinstance(first.config.operation_type, OperationType)
    assert second.config.operation_type == "my own"
    assert isinstance(first.status, MaintenanceStatus)
    assert math.copysign(1, first.metrics["tiny"]) == -1


def test_nan_comes_back(history: History) -> None:
    step = PlanStep(number=1, action="a", summary="s", risk="r", detail={"ratio": math.nan})
    history.record(ended(metrics={"ratio": math.nan}, steps=[step]), who="maria")
    (result,) = history.operations()
    assert math.isnan(result.metrics["ratio"])
    assert result.steps is not None
    assert math.isnan(result.steps[0].detail["ratio"])


def test_a_text_no_database_holds_does_not_lose_the_record(history: History) -> None:
    history.record(ended(reason="file \0 and \udcff", warnings=["a\0b\udcff"], undo="\0"), who="m\0")
    (result,) = history.operations()
    assert result.reason.startswith("file ")
    assert result.warnings == ["a\0b\udcff"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.just("$float"), inner, max_size=3),
    max_leaves=10,
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(JSON)
def test_any_json_value_survives_the_codec(value: Any) -> None:
    text = to_text(value)
    assert text.isascii()
    assert from_text(text) == value


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(), st.floats()))
def test_any_metrics_survive_the_codec(metrics: dict[str, float]) -> None:
    back = metrics_from_text(metrics_to_text(metrics))
    assert {name: repr(value) for name, value in back.items()} == {name: repr(value) for name, value in metrics.items()}


def test_times_are_utc_whatever_zone_they_were_given_in(history: History) -> None:
    tokyo = datetime(2026, 1, 31, 21, 0, tzinfo=timezone(timedelta(hours=9)))
    history.record(ended().model_copy(update={"started_at": tokyo, "finished_at": tokyo}), who="maria")
    (result,) = history.operations()
    assert result.started_at == NOON
    assert result.started_at.utcoffset() == timedelta(0)
    assert result.finished_at is not None
    assert result.finished_at.utcoffset() == timedelta(0)


def test_recording_again_replaces(history: History) -> None:
    running = ended(operation_id="op-1").model_copy(update={"status": MaintenanceStatus.RUNNING, "finished_at": None})
    done = ended(operation_id="op-1", metrics={"files_rewritten": 9.0})
    history.record(running, who="maria")
    history.record(done, who="maria")
    assert history.operations() == [done]


def test_newest_first_and_limited(history: History) -> None:
    results = [ended(operation_id=f"op-{minute}", minute=minute) for minute in (3, 1, 2, 2)][:3]
    for result in results:
        history.record(result, who="maria")
    assert [result.operation_id for result in history.operations()] == ["op-3", "op-2", "op-1"]
    assert [result.operation_id for result in history.operations(limit=2)] == ["op-3", "op-2"]
    assert len(history.operations(limit=None)) == 3


def test_of_two_started_at_once_the_later_recorded_is_newer(history: History) -> None:
    history.record(ended(operation_id="z"), who="maria")
    history.record(ended(operation_id="a"), who="maria")
    history.record(ended(operation_id="m"), who="maria")
    assert [result.operation_id for result in history.operations(limit=2)] == ["m", "a"]
    assert [result.operation_id for result in history.operations(limit=None)] == ["m", "a", "z"]


@pytest.fixture
def filled(history: History) -> History:
    for minute, (table, operation, status) in enumerate(
        [
            ("lake.flights.flights", "compaction", "completed"),
            ("lake.flights.weather", "compaction", "failed"),
            ("lake.flights.weather", "vacuum", "skipped"),
            ('lake."my.ns"."100%_"', "vacuum", "completed"),
            ("pg.public.flights", "vacuum", "completed"),
            ("not an id", "vacuum", "failed"),
            ('lake."a\\b"."%c"', "stats", "completed"),
        ]
    ):
        history.record(
            ended(status, table=table, operation=operation, minute=minute, operation_id=str(minute)), who="maria"
        )
    return history


FILTERS: list[tuple[dict[str, Any], str]] = [
    ({}, "6543210"),
    ({"tables": ["lake.flights.weather"]}, "21"),
    ({"tables": ["lake.flights.*"]}, "210"),
    ({"tables": ["lake.*"]}, ""),
    ({"tables": ["lake.**"]}, "63210"),
    ({"tables": ["**.flights"]}, "40"),
    ({"tables": ["*.public.*", "lake.flights.f*"]}, "40"),
    ({"tables": ['lake."my.ns"."100%_"']}, "3"),
    ({"tables": ['lake."my.ns".*']}, "3"),
    ({"tables": ['lake."a\\b".*']}, "6"),
    ({"tables": ['lake."a\\b"."%c"']}, "6"),
    ({"tables": ["lake.flights.*"], "limit": 2}, "21"),
    ({"operations": ["vacuum"]}, "5432"),
    ({"operations": [OperationType.COMPACTION]}, "10"),
    ({"statuses": ["failed", "skipped"]}, "521"),
    ({"statuses": [MaintenanceStatus.SKIPPED]}, "2"),
    ({"since": NOON + timedelta(minutes=4)}, "654"),
    ({"tables": ["lake.**"], "operations": ["vacuum"], "since": NOON + timedelta(minutes=3)}, "3"),
]


def test_filters(filled: History) -> None:
    answers = [
        (asked, "".join(result.operation_id for result in filled.operations(**asked))) for asked, _found in FILTERS
    ]
    assert answers == FILTERS


def test_hundreds_of_globs_are_one_question(filled: History) -> None:
    globs = [f"lake.flights.nothing{number}" for number in range(2000)] + ["pg.public.flights"]
    assert [result.operation_id for result in filled.operations(tables=globs)] == ["4"]


def test_a_moment_without_zone_is_refused(history: History) -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - the point
    with pytest.raises(RequestError, match="has no time zone"):
        history.operations(since=naive)
    with pytest.raises(RequestError, match="has no time zone"):
        history.health_series(FLIGHTS, since=naive)
    with pytest.raises(RequestError, match="has no time zone"):
        history.prune(naive)


def test_without_the_lease_only_what_nobody_can_be_running_is_closed(history: History) -> None:
    running = ended(operation_id="killed").model_copy(update={"status": MaintenanceStatus.RUNNING, "finished_at": None})
    history.record(running, who="maria@host")
    lease = history.acquire(FLIGHTS, holder="maria@host", operation_id="killed", ttl=timedelta(minutes=1))
    assert history.end_abandoned(FLIGHTS, besides="mine", holding=False) == 0
    assert [str(result.status) for result in history.operations()] == ["running"]
    history.release(lease)
    assert history.end_abandoned(FLIGHTS, besides="mine", holding=False) == 1
    assert [str(result.status) for result in history.operations()] == ["failed"]


def test_what_a_killed_run_left_running_is_closed_by_the_next_holder(history: History) -> None:
    def running(operation_id: str, **more: Any) -> MaintenanceResult:
        result = ended(operation_id=operation_id, **more)
        return result.model_copy(update={"status": MaintenanceStatus.RUNNING, "finished_at": None})

    other = TableId("lake", ("a", "b"))
    for result in (running("killed"), running("mine", minute=1), running("elsewhere", table=other, minute=2)):
        history.record(result, who="maria@host")
    history.record(ended(operation_id="done", minute=3), who="maria@host")
    assert history.end_abandoned(FLIGHTS, besides="mine") == 1
    assert history.end_abandoned(FLIGHTS, besides="mine") == 0
    found = {result.operation_id: result for result in history.operations()}
    assert {name: str(result.status) for name, result in found.items()} == {
        "killed": "failed",
        "mine": "running",
        "elsewhere": "running",
        "done": "completed",
    }
    killed = found["killed"]
    assert killed.problem is not None
    assert (killed.problem.type, killed.problem.instance) == ("lease-lost", "killed")
    assert "maria@host ended without recording how" in killed.reason
    assert killed.finished_at is not None
    facts = history.facts()[str(FLIGHTS), "compaction"]
    assert facts.last_finished == killed.finished_at
    assert facts.consecutive_failures == 1


def running(operation_id: str) -> MaintenanceResult:
    return ended("running", operation_id=operation_id).model_copy(update={"finished_at": None})


def test_a_run_begins_with_its_lease_and_ends_without(history: History) -> None:
    history.record(running("killed"), who="maria@host")
    lease, ended_here = history.begin(running("mine"), who="john@host", ttl=timedelta(minutes=1))
    assert (lease.table, lease.holder, lease.operation_id, ended_here) == (FLIGHTS, "john@host", "mine", 1)
    assert history.holder(FLIGHTS) is not None
    stand = {one.operation_id: one.status for one in history.operations()}
    assert stand == {"mine": MaintenanceStatus.RUNNING, "killed": MaintenanceStatus.FAILED}

    history.end(ended(operation_id="mine"), lease, who="john@host")
    assert history.holder(FLIGHTS) is None
    recorded = history.operation("mine")
    assert recorded is not None
    assert recorded.status is MaintenanceStatus.COMPLETED


def test_a_run_that_does_not_get_the_lease_leaves_no_trace(history: History) -> None:
    first, _ = history.begin(running("first"), who="maria@host", ttl=timedelta(minutes=1))
    with pytest.raises(LeaseHeldError, match="maria@host"):
        history.begin(running("second"), who="john@host", ttl=timedelta(minutes=1))
    assert [(one.operation_id, one.status) for one in history.operations()] == [("first", MaintenanceStatus.RUNNING)]
    history.check(first)


def test_an_end_without_the_lease_is_recorded_and_takes_nothing_from_others(history: History) -> None:
    lost, _ = history.begin(running("slow"), who="maria@host", ttl=timedelta(milliseconds=1))
    wait_until(lambda: history.holder(FLIGHTS) is None, "the lease has expired")
    taken = history.acquire(FLIGHTS, holder="john@host", operation_id="other", ttl=timedelta(minutes=1))
    history.end(ended(operation_id="slow"), lost, who="maria@host")
    history.check(taken)
    assert history.operations()[0].status is MaintenanceStatus.COMPLETED


def test_who_is_kept(history: History) -> None:
    history.record(ended(), who="maria@host (aurum run)")
    with history._store.reading() as connection:
        assert connection is not None
        assert connection.execute(select(operations.c.who)).scalar() == "maria@host (aurum run)"


def test_a_row_somebody_broke_is_named(history: History) -> None:
    history.record(ended(operation_id="op-1"), who="maria")
    with history._store.writing() as connection:
        connection.execute(update(operations).values(metrics="{broken"))
    with pytest.raises(HistoryUnusableError, match="operation op-1 cannot be read"):
        history.operations()


def test_many_threads_record_and_read_at_once(history: History) -> None:
    def work(thread: int) -> None:
        for number in range(5):
            table = TableId("lake", ("n", f"t{thread}"))
            history.record(ended(operation_id=f"{thread}-{number}", table=table, minute=number), who=str(thread))
            assert len(history.operations(limit=None, tables=[str(table)])) == number + 1

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(work, range(12)))
    assert len(history.operations(limit=None)) == 60
    assert len(history.facts()) == 12
