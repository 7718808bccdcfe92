"""Names, run config and reports: what Dagster is handed is valid, whatever the fleet's names and texts are."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from aurum_orchestration.dagster_edge.config import operation_config
from aurum_orchestration.dagster_edge.naming import definition_name, group_name, tag_value
from aurum_orchestration.dagster_edge.observe import numbers
from aurum_orchestration.dagster_edge.report import MOST_ROWS, failure_text, operations_log, operations_report
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, MaintenanceResult, MaintenanceStatus
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters

names = st.text(min_size=1, max_size=80)


# --- names


@given(names)
def test_any_text_makes_a_tag_value_and_a_name(text: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_.-]{1,63}", tag_value(text))
    assert re.fullmatch(r"[A-Za-z0-9_]+", definition_name(text))


@given(names, names)
def test_two_texts_never_share_a_tag_value(one: str, other: str) -> None:
    assert (tag_value(one) == tag_value(other)) == (one == other)


@given(st.lists(names, min_size=2, max_size=5))
def test_any_table_has_a_group_that_dagster_takes(parts: list[str]) -> None:
    group = group_name(TableId(parts[0], tuple(parts[1:])))
    dg.AssetSpec("a", group_name=group)


def test_plain_names_stay_as_they_are() -> None:
    assert tag_value("lake.market.trades") == "lake.market.trades"
    assert group_name(TableId("lake", ("market", "trades"))) == "lake/market"
    assert group_name(TableId("lake", ("trades",))) == "lake"


# --- run config


class Odd(BaseModel):
    """Parameters as a user's own operation may have them."""

    how: Literal["a b", "c"] = Field(default="c", description="How.")
    level: Literal[1, 2] = 1
    ratio: float = Field(default=0.5, gt=0, le=1, description="Share.")
    names: list[str] = Field(default_factory=list, description="Names.")
    limits: dict[str, int] = Field(default_factory=dict, description="Limits.")
    either: int | str = 3
    must: int = Field(description="No default.")
    maybe: str | None = None


def config_of(job_config: dict[str, Any], parameters: type[BaseModel]) -> dict[str, Any]:
    """What an op gets for its parameters out of a run config."""
    form = operation_config("odd", parameters)
    seen: list[dict[str, Any]] = []

    @dg.op(config_schema=form.to_config_schema().as_field())
    def odd(context) -> None:  # type: ignore[no-untyped-def]
        seen.append(form.model_validate(context.op_config).given())

    @dg.job
    def run() -> None:
        odd()

    assert run.execute_in_process(run_config={"ops": {"odd": {"config": job_config}}}).success
    return seen[0]


def test_what_is_left_out_is_left_to_the_policy() -> None:
    assert config_of({}, CompactionParameters) == {}
    assert config_of({"parameters": {}}, CompactionParameters) == {}


def test_what_is_given_arrives_as_given() -> None:
    values = {"how": "a b", "level": 2, "ratio": 0.25, "names": ["x"], "limits": {"a": 1}, "either": "x", "maybe": "y"}
    assert config_of({"parameters": values}, Odd) == values
    false = {"verify": False, "strategy": "binpack"}
    assert config_of({"parameters": false}, CompactionParameters) == false


@pytest.mark.parametrize(
    "wrong", [{"min_input_files": 1}, {"strategy": "shuffle"}, {"target_file_size": 3}, {"verify": "perhaps"}]
)
def test_what_is_wrong_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((dg.DagsterInvalidConfigError, ValueError)):
        config_of({"parameters": wrong}, CompactionParameters)


@pytest.mark.parametrize("name", sorted(MaintenanceFactory.operations()))
def test_every_parameter_of_every_operation_can_be_launched(name: str) -> None:
    parameters = MaintenanceFactory.operations()[name].Parameters
    form = operation_config(name, parameters).model_fields["parameters"].annotation
    assert isinstance(form, type)
    assert issubclass(form, dg.Config)
    assert set(form.model_fields) == set(parameters.model_fields)
    for key, field in form.model_fields.items():
        assert field.description is not None
        assert field.description.startswith(parameters.model_fields[key].description or key)
        assert "Left out: the table's policy" in field.description


def test_limits_and_default_are_told() -> None:
    form = operation_config("compaction", CompactionParameters).model_fields["parameters"].annotation
    told = form.model_fields["min_input_files"].description  # type: ignore[union-attr]
    assert told.endswith("At least 2, at most 10000. Left out: the table's policy (default 5).")


# --- reports


def result(table: str, status: MaintenanceStatus = MaintenanceStatus.COMPLETED, **more: Any) -> MaintenanceResult:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    config = MaintenanceConfig(operation_type="compaction", target_table=table)
    return MaintenanceResult(config=config, status=status, started_at=now, finished_at=now, **more)


@given(st.text(max_size=200))
def test_no_text_breaks_the_table_of_a_report(text: str) -> None:
    lines = operations_report([result("lake.n.t", reason=text)]).splitlines()
    assert len(lines) == 5
    assert lines[4].count("|") == 7


def test_what_went_wrong_comes_first() -> None:
    results = [result("a.n.t"), result("b.n.t", MaintenanceStatus.SKIPPED), result("c.n.t", MaintenanceStatus.FAILED)]
    lines = operations_report(results, notes=["look here"]).splitlines()
    assert lines[0] == "3 tables: 1 failed, 1 completed, 1 skipped"
    assert "- look here" in lines
    assert [line.split("|")[1].strip() for line in lines[-3:]] == ["c.n.t", "a.n.t", "b.n.t"]


def test_a_report_is_bounded_and_says_so() -> None:
    results = [result(f"lake.n.t{number:04}") for number in range(MOST_ROWS + 7)]
    assert "and 7 more tables" in operations_report(results)
    assert len(operations_log(results).splitlines()) == 22
    failed = [result(f"lake.n.t{number}", MaintenanceStatus.FAILED, reason="r") for number in range(30)]
    assert failure_text(failed).endswith("; and 10 more")


def test_numbers_are_whole_where_they_can_be_and_what_is_none_is_left_out() -> None:
    made = numbers({"rows": 3.0, "ratio": 0.5, "odd": float("nan"), "far": float("inf"), "big": 1e15})
    assert {name: value.value for name, value in made.items()} == {"rows": 3, "ratio": 0.5, "big": 10**15}
