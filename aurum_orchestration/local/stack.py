"""Where the demo lives: a folder ``.aurum`` in the project with the lake, the history and Dagster's storage."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aurum_orchestration.errors import ConfigurationError

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog

    from aurum_orchestration.fleet import Fleet

BACKEND = "lake"


@dataclass(frozen=True, slots=True)
class Stack:
    """The demo's places below the project's folder ``root``; with ``through_trino`` its lake is a local Trino's."""

    root: Path
    through_trino: bool = False

    @property
    def home(self) -> Path:
        """AURUM_HOME: catalog, warehouse, history and discoveries."""
        return self.root / ".aurum"

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME: Dagster's own storage."""
        return self.home / "dagster"

    @property
    def fleet(self) -> Path:
        """The fleet's file: the project's, or with Trino one beside the lake."""
        return (self.home if self.through_trino else self.root) / "fleet.yaml"

    @property
    def fleet_embedded(self) -> Path:
        """With Trino: the same fleet on the embedded engine."""
        return self.home / "fleet-embedded.yaml"

    def prepare(self, tell: Callable[[str], None] = print) -> None:
        """Empty the stack's folder and turn this process to it; with Trino, start that too and ``tell`` of it.

        Raises ConfigurationError outside of a project, ProvisioningError where Trino cannot be had.
        """
        from aurum_orchestration.local.engines import lake

        for needed in ("fleet.yaml", "dagster.yaml"):
            if not (self.root / needed).is_file():
                raise ConfigurationError(
                    f"there is no {needed} in {self.root}", hint="Run it from the project's folder: make demo"
                )
        if self.through_trino:
            lake.ready(tell)  # before anything is removed
        if self.home.exists():
            lake.down(self.home / "local")
            shutil.rmtree(self.home)
        self.dagster_home.mkdir(parents=True)
        shutil.copy(self.root / "dagster.yaml", self.dagster_home)
        for name in [name for name in os.environ if name.startswith("AURUM_")]:
            del os.environ[name]
        os.environ.update(AURUM_HOME=str(self.home), AURUM_FLEET=str(self.fleet), DAGSTER_HOME=str(self.dagster_home))
        if self.through_trino:
            self._write_fleets(lake.up(self.home / "local", tell).fleet)

    def _write_fleets(self, lake: str) -> None:
        """The project's fleet with the local Trino's lake for its backend, for both engines."""
        import yaml

        fleet = yaml.safe_load((self.root / "fleet.yaml").read_text())
        backend = {**yaml.safe_load(lake)["backends"][BACKEND], "discover": fleet["backends"][BACKEND]["discover"]}
        for path, engine in ((self.fleet, "trino"), (self.fleet_embedded, "pyiceberg")):
            path.write_text(yaml.safe_dump({**fleet, "backends": {BACKEND: {**backend, "engine": engine}}}))


def create_catalog(fleet: Fleet) -> Catalog:
    """The catalog that the fleet's backend ``lake`` describes, created when it is not there yet."""
    from aurum_orchestration.maintenance.backends.iceberg.catalog import open_catalog

    return open_catalog(BACKEND, fleet.backends[BACKEND].connection["catalog"], create=True)
