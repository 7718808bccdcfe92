"""The job ``purge`` on a real instance: what goes, what stays, and that nothing goes unasked."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.storage.runs.schema import RunsTable

from aurum_orchestration.dagster_edge.purge import old_runs
from aurum_orchestration_tests.dagster.conftest import Location
from aurum_orchestration_tests.dagster.test_jobs import output_metadata

DAYS_AGO = {"today": 0.0, "last month": 31.0, "last year": 400.0}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster").mkdir()
    with dg.instance_for_test(temp_dir=str(tmp_path / "dagster")) as made:
        yield made


def aged(location: Location, run_id: str, days: float) -> str:
    """Make it a run of so many days ago."""
    moment = datetime.now(UTC) - timedelta(days=days)
    storage: Any = location.instance.run_storage
    with storage.connect() as connection:
        connection.execute(
            sa.update(RunsTable)
            .where(RunsTable.c.run_id == run_id)
            .values(create_timestamp=moment.replace(tzinfo=None), end_time=moment.timestamp())
        )
    return run_id


def ran(location: Location, days: float, **config: Any) -> str:
    return aged(location, location.run("health", discover=False, **config).run_id, days)


def foreign(location: Location, days: float) -> str:
    @dg.op
    def report() -> None: ...

    @dg.job
    def somebody_elses() -> None:
        report()

    return aged(location, somebody_elses.execute_in_process(instance=location.instance).run_id, days)


def there(location: Location) -> set[str]:
    return {run.run_id for run in location.instance.get_runs(dg.RunsFilter())} - _purges(location)


def _purges(location: Location) -> set[str]:
    return {run.run_id for run in location.instance.get_runs(dg.RunsFilter(job_name="purge"))}


def test_without_config_it_only_says_what_would_go(healthy_location: Location) -> None:
    runs = {ran(healthy_location, days) for days in DAYS_AGO.values()}
    result = healthy_location.run("purge")
    assert result.success
    assert there(healthy_location) == runs
    metadata = output_metadata(result)
    assert metadata["runs"] == 2
    assert "would be deleted" in metadata["report"]
    assert "| health | 2 |" in metadata["report"]
    assert "The project's history stays" in metadata["report"]
    assert "Events of no run" in metadata["report"]


def test_what_is_old_goes_with_its_events_and_logs(healthy_location: Location) -> None:
    young, month, year = (ran(healthy_location, days) for days in DAYS_AGO.values())
    assert healthy_location.instance.all_logs(month)
    captured = Path(healthy_location.instance.root_directory) / "storage" / month
    assert captured.exists()
    result = healthy_location.run("purge", dry_run=False, batch_size=1)
    assert result.success
    assert there(healthy_location) == {young}
    assert not healthy_location.instance.all_logs(month)
    assert not captured.exists()
    assert healthy_location.instance.all_logs(young)
    assert output_metadata(result)["runs"] == 2
    assert year not in there(healthy_location)


def test_an_unfinished_run_never_goes(healthy_location: Location) -> None:
    job = healthy_location.definitions().get_repository_def().get_job("health")
    states = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.CANCELING]
    runs = {
        aged(healthy_location, healthy_location.instance.create_run_for_job(job, status=state).run_id, 400)
        for state in states
    }
    healthy_location.run("purge", dry_run=False, runs="all")
    assert there(healthy_location) == runs


def test_other_teams_runs_go_only_when_that_is_said(healthy_location: Location) -> None:
    ours, theirs = ran(healthy_location, 400), foreign(healthy_location, 400)
    healthy_location.run("purge", dry_run=False)
    assert there(healthy_location) == {theirs}
    healthy_location.run("purge", dry_run=False, runs="all")
    assert there(healthy_location) == set()
    assert ours != theirs


def test_the_newest_of_each_job_stay_when_asked(healthy_location: Location) -> None:
    oldest, middle, newest = (ran(healthy_location, days) for days in (400, 300, 200))
    theirs = foreign(healthy_location, 500)
    healthy_location.run("purge", dry_run=False, runs="all", keep_last=1)
    assert there(healthy_location) == {newest, theirs}
    assert oldest != middle


def test_runs_are_listed_in_batches_the_oldest_first(healthy_location: Location) -> None:
    runs = [ran(healthy_location, days) for days in (400, 300, 200, 100)]
    before = datetime.now(UTC) - timedelta(days=150)
    found = old_runs(healthy_location.instance, before, ours=None, keep_last=0, batch=2)
    assert [one.run_id for one in found] == runs[:3]


def test_a_run_that_was_made_long_ago_but_ended_lately_stays(healthy_location: Location) -> None:
    run = ran(healthy_location, 400)
    storage: Any = healthy_location.instance.run_storage
    with storage.connect() as connection:
        connection.execute(sa.update(RunsTable).values(end_time=datetime.now(UTC).timestamp()))
    healthy_location.run("purge", dry_run=False)
    assert there(healthy_location) == {run}


def test_the_history_goes_only_when_its_age_is_named(location: Location) -> None:
    location.run("compaction", tables=["lake.market.trades"])
    with location.history as history:
        (operation,) = history.operations()
        long_ago = datetime.now(UTC) - timedelta(days=400)
        history.record(operation.model_copy(update={"started_at": long_ago, "finished_at": long_ago}), who="tester")
    location.run("purge", dry_run=False)
    location.run("purge", history_older_than_days=365)
    with location.history as history:
        assert len(history.operations()) == 1
    result = location.run("purge", dry_run=False, history_older_than_days=365)
    assert output_metadata(result)["history_operations"] == 1
    with location.history as history:
        assert history.operations() == []


def test_an_age_below_a_day_is_refused(healthy_location: Location) -> None:
    result = healthy_location.run("purge", older_than_days=0.5, dry_run=False)
    assert not result.success
