"""The keys of a SQLite backend in fleet.yaml."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import ConfigDict, Field

from aurum_orchestration.fleet.config import BackendConfig
from aurum_orchestration.fleet.rule_groups import RuleGroups


class SqliteBackendConfig(BackendConfig, RuleGroups):
    """One SQLite database: a file of this machine."""

    model_config = ConfigDict(extra="forbid")
    home: ClassVar[str] = "main"

    type: Literal["sqlite"] = Field(description="Kind of backend.")
    path: str = Field(min_length=1, description="The database's file; ~ is the home folder.")
    lock_timeout: float = Field(
        default=5, gt=0, le=60, description="Seconds that a statement waits for others who write; then it gives up."
    )
