"""What the checks say of a table, by its numbers and its policy."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from pydantic import ValidationError

from aurum_orchestration.errors import BackendUnavailableError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.checks import (
    LARGE_FLEET,
    NAMES,
    CheckName,
    ChecksPolicy,
    Verdict,
    family_of,
    last_completed,
    names_of,
    verdicts_of,
)
from aurum_orchestration.maintenance.interfaces import Decision, Gain, TableHealth
from aurum_orchestration.maintenance.operations.compaction import MIB
from aurum_orchestration.maintenance.planner.facts import RunFacts

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
TABLE = TableId("lake", ("n", "t"))
IN_NEED = Decision(TABLE, "compaction", True, "recommended", "30 of 40 files are small", Gain(1.0))
WELL = Decision(TABLE, "compaction", False, "healthy", "healthy: 2 files could be saved", Gain(0.1))


def said(
    name: str,
    policy: ChecksPolicy | None = None,
    *,
    debt: float = 0.0,
    decision: Decision = WELL,
    completed: dict[TableId, datetime] | None = {},  # noqa: B006
    metrics: dict[str, float] | None = None,
) -> Verdict:
    health = TableHealth(TABLE, "lake", "s1", NOW, metrics or {})
    names = get_args(CheckName)
    found = verdicts_of((health, debt, [decision]), policy or ChecksPolicy(), completed, NOW, names)
    return next(verdict for verdict in found if verdict.name == name)


@pytest.mark.parametrize(
    ("name", "metric", "warn", "error"),
    [
        ("file_count", "excess_files", 100, 2000),
        ("delete_files", "delete_files", 200, 2000),
        ("snapshots", "snapshots", 2000, 20000),
    ],
)
def test_a_number_passes_warns_and_fails_at_its_thresholds(name: str, metric: str, warn: int, error: int) -> None:
    for value, passed, bad in ((0, True, False), (warn - 1, True, False), (warn, False, False), (error, False, True)):
        verdict = said(name, metrics={metric: value})
        assert (verdict.passed, verdict.error) == (passed, bad), value
        assert verdict.numbers[metric] == value
        assert (f"the limit is {error if bad else warn:,}" in verdict.text) is not passed


@pytest.mark.parametrize(
    ("name", "metric", "passes", "warns", "fails", "words"),
    [
        ("bloat", "table_bloat_bytes", 399 * MIB, 400 * MIB, 750 * MIB, "40 % of the table and its indexes are unused"),
        ("xid_age", "xid_age_share", 0.99, 1.0, 2.0, "100 % of autovacuum_freeze_max_age"),
        ("autovacuum_debt", "autovacuum_debt", 2.9, 3, 20, "3 times the dead rows at which autovacuum comes"),
        ("invalid_indexes", "invalid_indexes", 0, 2, None, "2 invalid indexes, written to and never read"),
        (
            "unused_indexes",
            "unused_index_bytes",
            255 * MIB,
            256 * MIB,
            None,
            "256 MiB of indexes that no query has used",
        ),
        ("long_transactions", "longest_transaction_seconds", 1799, 1800, 14400, "1,800 seconds since the oldest"),
    ],
)
def test_numbers_of_databases_have_their_thresholds(
    name: str, metric: str, passes: float, warns: float, fails: float | None, words: str
) -> None:
    def judged(value: float) -> Verdict:
        return said(name, metrics={"table_bytes": 900.0 * MIB, "index_bytes": 100.0 * MIB, metric: value})

    assert judged(passes).passed
    warned = judged(warns)
    assert (warned.passed, warned.error) == (False, False)
    assert words in warned.text
    if fails is None:
        assert not judged(1e15).error
    else:
        assert judged(fails).error


def test_little_unused_space_is_no_bloat_however_large_its_share() -> None:
    small = {"table_bytes": 70.0 * MIB, "table_bloat_bytes": 63.0 * MIB}
    assert said("bloat", metrics=small).passed
    assert said("bloat", ChecksPolicy(min_bloat_mb=10), metrics=small).error
    assert said("bloat", metrics={}).text == "the engine does not tell bloat_percent of this table"


def test_each_kind_of_table_has_its_own_checks() -> None:
    table, database = TableId("pg", ("public", "t")), TableId("pg", ("market",))
    assert family_of("iceberg", TABLE) == "files"
    assert (family_of("postgres", table), family_of("timescale", database)) == ("table", "database")
    asked = ChecksPolicy(names=("debt", "file_count", "bloat"))
    assert [names_of(asked, 10, family) for family in ("files", "table", "database")] == [
        ("file_count", "debt"),
        ("bloat", "debt"),
        ("debt",),
    ]
    assert {names_of(ChecksPolicy(), LARGE_FLEET + 1, family) for family in ("files", "table", "database")} == {
        ("debt",)
    }


def test_debt_is_judged_by_the_score() -> None:
    assert said("debt", debt=39.9).passed
    assert (said("debt", debt=40).passed, said("debt", debt=40).error) == (False, False)
    assert said("debt", debt=75).error
    assert said("debt", debt=75).numbers == {"debt_score": 75, "warn_debt": 40, "error_debt": 75}


def test_a_threshold_of_null_never_complains() -> None:
    off = ChecksPolicy(warn_debt=None, error_debt=None)
    assert said("debt", off, debt=100).passed
    only_error = ChecksPolicy(warn_debt=None)
    assert said("debt", only_error, debt=74).passed
    assert said("debt", only_error, debt=75).error


def test_a_number_that_the_engine_does_not_tell_passes_and_says_so() -> None:
    verdict = said("delete_files")
    assert verdict.passed
    assert verdict.text == "the engine does not tell delete_files of this table"
    assert not verdict.numbers


def test_recency_of_a_table_that_needs_nothing_passes() -> None:
    verdict = said("maintenance_recency", completed={TABLE: NOW - timedelta(days=900)})
    assert verdict.passed
    assert verdict.text == "nothing is due"


@pytest.mark.parametrize(("hours", "passed", "bad"), [(47, True, False), (48, False, False), (168, False, True)])
def test_recency_of_a_table_in_need_goes_by_the_last_completed_maintenance(
    hours: float, passed: bool, bad: bool
) -> None:
    verdict = said("maintenance_recency", decision=IN_NEED, completed={TABLE: NOW - timedelta(hours=hours)})
    assert (verdict.passed, verdict.error) == (passed, bad)
    assert verdict.numbers["hours_since_maintenance"] == hours
    assert ("compaction: 30 of 40 files are small" in verdict.text) is not passed


def test_a_table_in_need_that_was_never_maintained_is_warned_of() -> None:
    verdict = said("maintenance_recency", decision=IN_NEED)
    assert (verdict.passed, verdict.error) == (False, False)
    assert verdict.text.startswith("no maintenance of it has completed yet. compaction: ")


def test_recency_without_a_history_is_a_warning_not_a_guess() -> None:
    verdict = said("maintenance_recency", decision=IN_NEED, completed=None)
    assert (verdict.passed, verdict.error) == (False, False)
    assert "history store does not answer" in verdict.text


def test_a_table_that_could_not_be_measured_passes_no_check() -> None:
    problem = BackendUnavailableError("no route", hint="Look at it.").problem()
    health = TableHealth(TABLE, "lake", "", NOW, problem=problem)
    verdicts = list(verdicts_of((health, 0.0, []), ChecksPolicy(), {}, NOW))
    assert [verdict.name for verdict in verdicts] == list(NAMES)
    assert {(verdict.passed, verdict.error, verdict.text) for verdict in verdicts} == {
        (False, False, "not measured: no route Look at it.")
    }


def test_the_newest_completed_operation_of_any_kind_counts() -> None:
    def fact(hours: float | None) -> RunFacts:
        return RunFacts(last_completed=None if hours is None else NOW - timedelta(hours=hours))

    facts = {(str(TABLE), "vacuum"): fact(9), (str(TABLE), "compaction"): fact(3), (str(TABLE), "stats"): fact(None)}
    assert last_completed(facts) == {TABLE: NOW - timedelta(hours=3)}


def test_a_large_fleet_has_the_debt_check_alone_unless_its_policy_names_others() -> None:
    assert names_of(ChecksPolicy(), LARGE_FLEET) == NAMES
    assert names_of(ChecksPolicy(), LARGE_FLEET + 1) == ("debt",)
    assert names_of(ChecksPolicy(names=("debt", "snapshots")), LARGE_FLEET + 1) == ("snapshots", "debt")
    assert names_of(ChecksPolicy(names=()), 1) == ()


def test_a_failure_below_its_warning_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"error_debt \(30\) is below warn_debt \(40\)"):
        ChecksPolicy(error_debt=30)
