"""What rule groups come to, and how batches keep pace: without a database."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from aurum_orchestration.errors import ConfigurationError, UnknownNameError, UnsupportedError
from aurum_orchestration.fleet.rule_groups import RuleGroup, RuleGroups
from aurum_orchestration.fleet.sqlite import SqliteBackendConfig
from aurum_orchestration.maintenance.backends.rules.chores import Chore, chores_of, chosen_groups
from aurum_orchestration.maintenance.backends.rules.pace import LONGEST_PAUSE, TARGET_SECONDS, Pace


def group(**keys: object) -> RuleGroup:
    return RuleGroup.model_validate({"title": "G", "table": 'public."Old Rows"', "time_column": "at", **keys})


def test_the_defaults_are_archive_at_365_and_delete_at_730_days() -> None:
    move, delete = chores_of(group(archive_table="public.archive"), "cleanup")
    assert (move.action, move.days, move.batch, move.table) == ("move", 365, 1000, ("public", "Old Rows"))
    assert (delete.action, delete.days, delete.table) == ("delete", 730, ("public", "archive"))
    (logs,) = chores_of(group(), "logs")
    assert (logs.action, logs.days, logs.batch) == ("delete", 90, 10_000)
    (sessions,) = chores_of(RuleGroup(title="S", table="public.s", expiry_column="expires"), "sessions")
    assert (sessions.days, sessions.batch) == (0, 10_000)
    assert Chore.of_json(move.as_json()) == move


def test_rows_of_logs_are_archived_when_they_go() -> None:
    (move,) = chores_of(group(archive_table="public.archive"), "logs")
    assert (move.action, move.days) == ("move", 90)
    (export,) = chores_of(group(archive_path="/archive", archive_after_days=30), "logs", batch=7)
    assert (export.action, export.days, export.batch) == ("export", 30, 7)


@pytest.mark.parametrize(
    "keys",
    [
        {"archive_table": "public.archive", "age_days": 100},
        {"archive_table": 'public."Old Rows"'},
        {"archive_after_days": 3},
    ],
)
def test_groups_that_contradict_themselves_are_refused(keys: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        chores_of(group(**keys), "cleanup")


def test_a_name_that_is_none_is_refused_when_the_fleet_is_read() -> None:
    with pytest.raises(ValidationError, match="is no table name"):
        group(table="public..x")


def test_groups_are_chosen_by_title_and_table() -> None:
    config = RuleGroups(logs=[group(), group(title="H", table="public.h")])
    assert [one.title for one in chosen_groups(config, "logs", None, ["H"])] == ["H"]
    assert [one.title for one in chosen_groups(config, "logs", ("public", "Old Rows"), [])] == ["G"]
    with pytest.raises(UnknownNameError):
        chosen_groups(config, "logs", None, ["X"])
    with pytest.raises(UnsupportedError, match="no rule group of cleanup"):
        chosen_groups(config, "cleanup", None, [])
    with pytest.raises(UnsupportedError, match=r"about public\.other"):
        chosen_groups(config, "logs", ("public", "other"), [])


def test_a_name_without_a_schema_means_the_engine_s_own() -> None:
    config = RuleGroups(logs=[group(table="audit"), group(title="H", table="main.audit")])
    assert [one.title for one in config.groups_about("logs", ("public", "audit"))] == ["G"]
    assert [one.title for one in config.groups_about("logs", ("main", "audit"))] == ["H"]
    assert config.counts() == {("public", "audit"): {"logs_groups": 1}, ("main", "audit"): {"logs_groups": 1}}
    lite = SqliteBackendConfig(type="sqlite", path="x", logs=config.logs)
    assert lite.counts() == {("main", "audit"): {"logs_groups": 2}}


def test_batches_shrink_and_pauses_grow_when_the_server_slows_down() -> None:
    pace = Pace(10_000, pause_ms=50)
    assert pace.after(10_000, 0.01) == 0.05
    assert pace.after(10_000, 0.01) == 0.05
    assert pace.rows == 10_000
    slow = pace.after(10_000, 4 * TARGET_SECONDS)
    assert slow > 2 * 4 * TARGET_SECONDS
    assert pace.rows == 2_500
    assert pace.after(2_500, 1000.0) == LONGEST_PAUSE
    assert pace.after(0, 5.0) == 0
    for _ in range(100):
        pace.after(pace.rows, 0.0001)
    assert pace.rows == 10_000
