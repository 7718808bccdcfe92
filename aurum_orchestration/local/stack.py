"""Where the demo lives: a folder ``.aurum`` in the project with the lake, the history and Dagster's storage."""

from __future__ import annotations

import os
import shutil
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
    """The demo's places below the project's folder ``root``."""

    root: Path

    @property
    def home(self) -> Path:
        """AURUM_HOME: catalog, warehouse, history and discoveries."""
        return self.root / ".aurum"

    @property
    def dagster_home(self) -> Path:
        """DAGSTER_HOME: Dagster's own storage."""
        return self.home / "dagster"

    def prepare(self) -> None:
        """Empty the stack's folder and turn this process to it. Raises ConfigurationError outside of a project."""
        for needed in ("fleet.yaml", "dagster.yaml"):
            if not (self.root / needed).is_file():
                raise ConfigurationError(
                    f"there is no {needed} in {self.root}", hint="Run it from the project's folder: make demo"
                )
        if self.home.exists():
            shutil.rmtree(self.home)
        self.dagster_home.mkdir(parents=True)
        shutil.copy(self.root / "dagster.yaml", self.dagster_home)
        for name in [name for name in os.environ if name.startswith("AURUM_")]:
            del os.environ[name]
        os.environ.update(
            AURUM_HOME=str(self.home), AURUM_FLEET=str(self.root / "fleet.yaml"), DAGSTER_HOME=str(self.dagster_home)
        )


def create_catalog(fleet: Fleet) -> Catalog:
    """The catalog that the fleet's backend ``lake`` describes, created when it is not there yet."""
    from aurum_orchestration.maintenance.backends.iceberg.catalog import open_catalog

    return open_catalog(BACKEND, fleet.backends[BACKEND].connection["catalog"], create=True)
