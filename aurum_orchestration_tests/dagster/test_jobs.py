"""The jobs on a real lake: what they do to tables, and what a person then sees in Dagster."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest

from aurum_orchestration_tests.dagster.conftest import Location


def observations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetObservation]:
    """By the last part of the asset key."""
    seen = [event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()]
    return {one.asset_key.path[-1]: one for one in seen}


def output_metadata(result: dg.ExecuteInProcessResult) -> Mapping[str, Any]:
    (event,) = [event for event in result.all_node_events if event.event_type_value == "STEP_OUTPUT"]
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


class Told(NamedTuple):
    """What a failed run says."""

    description: str
    metadata: Mapping[str, Any]


def failure(result: dg.ExecuteInProcessResult) -> Told:
    (event,) = result.get_step_failure_events()
    found = event.step_failure_data.user_failure_data
    assert found is not None, event.step_failure_data.error_display_string
    return Told(found.description or "", {name: value.value for name, value in found.metadata.items()})


def test_compaction_does_what_is_needed_and_shows_it(location: Location) -> None:
    result = location.run("compaction", tables=["lake.market.*"])
    assert result.success
    seen = observations(result)
    assert list(seen) == ["trades"]  # the others were skipped: nothing to plot
    numbers = {name: value.value for name, value in seen["trades"].metadata.items()}
    with closing(location.catalog()) as catalog:
        files = [task.file for task in catalog.load_table("market.trades").scan().plan_files()]
    assert numbers["data_files"] == len(files) == 2
    assert numbers["data_bytes"] == sum(file.file_size_in_bytes for file in files)
    assert numbers["rows"] == 3000
    assert numbers["debt_score"] == 0
    assert numbers["compaction/files_rewritten"] == 60
    metadata = output_metadata(result)
    assert metadata["tables_completed"] == 1
    assert metadata["tables_skipped"] == 3
    assert metadata["rows_verified"] == 3000
    assert "| lake.market.trades | completed |" in metadata["report"]
    assert "60 → 2" in metadata["report"]
    assert "5 files could be saved, acts at 20" in metadata["report"]


@pytest.mark.parametrize(
    ("job", "config", "told"),
    [
        ("purge", {"older_than_days": 0}, "older_than_days must be greater than or equal to 1 (it is 0.0)"),
        ("maintenance", {"max_tables": 0}, "max_tables must be greater than or equal to 1 (it is 0)"),
        (
            "vacuum",
            {"parameters": {"older_than_days": -1}},
            "parameters.older_than_days must be greater than or equal to 0 (it is -1.0)",
        ),
    ],
)
def test_a_value_out_of_its_bounds_is_told_without_a_stack_trace(
    healthy_location: Location, job: str, config: dict[str, Any], told: str
) -> None:
    result = healthy_location.run(job, **config)
    assert failure(result).description == f"The run config is wrong: {told}"
    (event,) = result.get_step_failure_events()
    assert "pydantic" not in event.step_failure_data.error_display_string


def test_an_observation_never_carries_a_data_version(location: Location) -> None:
    seen = observations(location.run("compaction", tables=["lake.market.trades"]))["trades"]
    assert not [tag for tag in seen.tags if "data_version" in tag]
    assert not location.instance.get_latest_materialization_event(dg.AssetKey(["lake", "market", "trades"]))


def test_the_health_series_has_the_table_after_the_operation(location: Location) -> None:
    location.run("compaction", tables=["lake.market.trades"])
    with location.history as history:
        (entry,) = history.operations()
        from aurum_orchestration.fleet.table_id import TableId

        (point,) = history.health_series(TableId("lake", ("market", "trades")))
    assert entry.metrics["files_added"] == 2
    assert point.metrics["data_files"] == 2
    assert point.state_token == str(location.snapshots()["trades"])


def test_a_dry_run_changes_nothing(location: Location) -> None:
    before = location.snapshots()
    result = location.run("compaction", dry_run=True)
    assert result.success
    assert location.snapshots() == before
    assert not observations(result)
    assert output_metadata(result)["tables_planned"] == 1
    assert "2 steps planned" in output_metadata(result)["report"]
    assert not (location.home / "history.db").exists()


def test_parameters_win_over_the_policy(location: Location) -> None:
    result = location.run("compaction", tables=["lake.market.trades"], parameters={"min_input_files": 31})
    assert output_metadata(result)["tables_skipped"] == 1
    result = location.run("compaction", tables=["lake.market.curves"], parameters={"target_file_size_mb": 1})
    assert output_metadata(result)["tables_skipped"] == 1


def test_one_bad_table_does_not_stop_the_others_and_is_named(location: Location) -> None:
    location.make_sick("market.curves")
    with closing(location.catalog()) as catalog:
        broken = next(iter(catalog.load_table("market.curves").scan().plan_files())).file.file_path
    Path(broken.removeprefix("file://")).unlink()
    result = location.run("compaction")
    assert not result.success
    assert observations(result)["trades"].metadata["data_files"].value == 2
    told = failure(result)
    assert told.description.startswith("1 of 4 tables went wrong, the others are done. lake.market.curves: ")
    assert "| lake.market.curves | **failed** |" in told.metadata["report"]
    assert "| lake.market.trades | completed |" in told.metadata["report"]


def test_a_failed_run_is_not_repeated_by_an_op_retry(location: Location) -> None:
    location.make_sick("market.curves")
    with closing(location.catalog()) as catalog:
        broken = next(iter(catalog.load_table("market.curves").scan().plan_files())).file.file_path
    Path(broken.removeprefix("file://")).unlink()
    repository = location.definitions().get_repository_def()
    retrying = repository.get_job("compaction").graph.to_job(op_retry_policy=dg.RetryPolicy(max_retries=3))
    result = retrying.execute_in_process(
        resources=repository.get_top_level_resources(),
        instance=location.instance,
        raise_on_error=False,
    )
    assert not result.success
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]


def test_a_glob_that_means_nothing_is_a_warning(location: Location) -> None:
    result = location.run("compaction", tables=["lake.market.trades", "lake.market.tradez"])
    assert result.success
    assert output_metadata(result)["tables_completed"] == 1
    assert "'lake.market.tradez' matches no table" in output_metadata(result)["report"]
    assert "Did you mean 'lake.market.trades'?" in output_metadata(result)["report"]


def test_globs_that_all_mean_nothing_do_not_mean_everything(location: Location) -> None:
    before = location.snapshots()
    result = location.run("compaction", tables=["lake.nothing.*"])
    assert result.success
    assert location.snapshots() == before
    assert output_metadata(result)["report"].startswith("No table to work on")


def test_a_wrong_request_fails_with_its_problem_and_no_stack_trace(location: Location) -> None:
    result = location.run("compaction", tables=['lake."market'])
    told = failure(result)
    assert "a quote is not closed" in told.description
    assert told.metadata["problem"]["type"] == "validation-error"


def test_health_observes_what_changed(location: Location) -> None:
    first = location.run("health")
    assert set(observations(first)) == {"trades", "curves", "hubs", "odd.name"}
    assert observations(first)["trades"].metadata["excess_files"].value == 58
    assert "| lake.market.trades |" in output_metadata(first)["report"].splitlines()[4]  # worst first
    assert not observations(location.run("health"))
    location.make_sick("market.hubs", files=2)
    assert set(observations(location.run("health"))) == {"hubs"}
    with location.history as history:
        from aurum_orchestration.fleet.table_id import TableId

        assert len(history.health_series(TableId("lake", ("market", "hubs")))) == 2
        assert len(history.health_series(TableId("lake", ("market", "trades")))) == 1
    assert set(observations(location.run("health", observe="all", tables=["lake.market.c*"]))) == {"curves"}


def test_health_remembers_what_it_discovered(location: Location) -> None:
    assert not location.definitions().assets
    location.run("health")
    keys = {spec.key.path[-1] for spec in location.definitions().assets or [] if isinstance(spec, dg.AssetSpec)}
    assert keys == {"trades", "curves", "hubs", "odd.name"}


def test_health_of_a_backend_that_is_down_fails_and_says_so(location: Location) -> None:
    location.run("health")
    (location.home / "catalog.db").write_bytes(b"this is no database")
    result = location.run("health")
    assert not result.success
    assert "4 of 4 tables could not be measured" in failure(result).description


@pytest.mark.parametrize("job", ["compaction", "health"])
def test_the_launchpad_explains_every_field(location: Location, job: str) -> None:
    op = location.definitions().get_repository_def().get_job(job).graph.node_defs[0]
    assert isinstance(op, dg.OpDefinition)
    assert op.name == job

    def undescribed(fields: Mapping[str, Any], path: str) -> list[str]:
        found = []
        for name, field in fields.items():
            if not field.description:
                found.append(f"{path}.{name}")
            found += undescribed(getattr(field.config_type, "fields", None) or {}, f"{path}.{name}")
        return found

    fields: Mapping[str, Any] = getattr(op.config_schema.as_field().config_type, "fields")  # noqa: B009
    assert {"tables"} <= set(fields)
    assert undescribed(fields, job) == []
