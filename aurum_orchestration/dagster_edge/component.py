"""The fleet as a component: a few lines of ``defs.yaml`` in any Dagster project bring everything of one fleet."""

from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import Field

from aurum_orchestration.settings import AurumSettings

START = """\
# Backends, tables and policies of the fleet. `aurum init` writes one from a live catalog.
version: 1
backends:
  lake:
    type: iceberg
    catalog: {type: sql, uri: "sqlite:///${AURUM_HOME:-.aurum}/catalog.db", warehouse: "file://${AURUM_HOME:-.aurum}"}
policy:
  compaction: {min_input_files: 5}
"""
"""The fleet file that scaffolding writes where there is none."""


class FleetParams(dg.Model):
    """What ``dg scaffold defs aurum_orchestration.AurumFleetComponent`` may be told."""

    fleet: str = Field(default="fleet.yaml", description="The fleet file, relative to the component's folder.")


class FleetScaffolder(dg.Scaffolder[FleetParams]):
    """Writes ``defs.yaml``, and beside it a fleet file to start from unless there is one."""

    @classmethod
    def get_scaffold_params(cls) -> type[FleetParams]:
        """The model of what it may be told."""
        return FleetParams

    def scaffold(self, request: dg.ScaffoldRequest[FleetParams]) -> None:
        """Write the files."""
        dg.scaffold_component(request, {"fleet": request.params.fleet})
        fleet = request.target_path / request.params.fleet
        if not fleet.exists():
            fleet.parent.mkdir(parents=True, exist_ok=True)
            fleet.write_text(START, encoding="utf-8")


@dg.scaffold_with(FleetScaffolder)
class AurumFleetComponent(dg.Component, dg.Model, dg.Resolvable):
    """Keeps the tables of a fleet healthy: its assets, checks, jobs, schedules, sensors and resources."""

    fleet: str = Field(
        default="fleet.yaml",
        description="The fleet file, relative to the component's folder.",
        examples=["fleet.yaml", "../../fleet.yaml"],
    )
    home: str | None = Field(
        default=None,
        description="Folder of everything the project remembers, relative to the component's folder. "
        "Left out: AURUM_HOME, else ~/.aurum.",
    )
    history_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the history store. It may hold a password: write '{{ env.NAME }}'. "
        "Left out: AURUM_HISTORY_URL, else a SQLite file in the home.",
    )

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """The definitions of the fleet. Connects nothing. Raises ConfigurationError for a fleet file that is wrong."""
        from aurum_orchestration.dagster_edge.build import build_definitions

        return build_definitions(settings=self.settings(Path(context.path)))

    def settings(self, folder: Path) -> AurumSettings:
        """The settings that the attributes mean in a folder; what is left out comes from the environment."""
        given: dict[str, Any] = {"fleet": folder / self.fleet}
        if self.home is not None:
            given["home"] = folder / Path(self.home).expanduser()
        if self.history_url is not None:
            given["history_url"] = self.history_url
        return AurumSettings(**given)
