"""A code location over a small real lake."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import dagster as dg
import pytest
from pyiceberg.catalog.sql import SqlCatalog

from aurum_orchestration.definitions import build_definitions
from aurum_orchestration.fleet import load_fleet
from aurum_orchestration.history import History
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.lake import FIRST, append_small_files, build_lake, lake_catalog


class Ticked(NamedTuple):
    """What a tick of a sensor came to."""

    run_requests: list[dg.RunRequest]
    skip_message: str
    cursor: str | None


@dataclass
class Location:
    """A lake, its settings, and runs of its code location recorded in a Dagster instance of its own."""

    home: Path
    settings: AurumSettings
    instance: dg.DagsterInstance

    def definitions(self) -> dg.Definitions:
        return build_definitions(load_fleet(self.settings.fleet, self.settings), self.settings)

    def run(self, job: str, **config: Any) -> dg.ExecuteInProcessResult:
        repository = self.definitions().get_repository_def()
        return repository.get_job(job).execute_in_process(
            run_config={"ops": {job: {"config": config}}}, instance=self.instance, raise_on_error=False
        )

    def tick(self, cursor: str | None = None, sensor: str = "compaction_lake") -> Ticked:
        repository = self.definitions().get_repository_def()
        resources = repository.get_top_level_resources()
        with dg.build_sensor_context(
            instance=self.instance, cursor=cursor, repository_def=repository, resources=resources
        ) as context:
            data = repository.get_sensor_def(sensor).evaluate_tick(context)
        return Ticked(list(data.run_requests or []), data.skip_message or "", data.cursor)

    @property
    def history(self) -> History:
        return History(self.settings.history_url)

    def catalog(self) -> SqlCatalog:
        return lake_catalog(self.home)

    def make_sick(self, table: str, files: int = 30) -> None:
        with closing(self.catalog()) as catalog:
            append_small_files(catalog.load_table(table), [FIRST], files)

    def snapshots(self) -> dict[str, int | None]:
        """The current snapshot of each table."""
        with closing(self.catalog()) as catalog:
            names = catalog.list_tables("market")
            return {
                name[-1]: getattr(catalog.load_table(name).current_snapshot(), "snapshot_id", None) for name in names
            }


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def location(tmp_path: Path, instance: dg.DagsterInstance) -> Location:
    home = tmp_path / "home"
    return Location(home, AurumSettings(home=home, fleet=build_lake(home)), instance)


@pytest.fixture
def healthy_location(tmp_path: Path, instance: dg.DagsterInstance) -> Location:
    home = tmp_path / "home"
    return Location(home, AurumSettings(home=home, fleet=build_lake(home, sick=False)), instance)
