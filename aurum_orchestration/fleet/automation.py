"""What fleet.yaml says about schedules and sensors."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AutomationConfig(BaseModel):
    """Which of Dagster's schedules and sensors are on from the start; everything else waits to be switched on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schedules: list[str] = Field(
        default_factory=list, description="Names: daily_light, nightly, weekly_full, monthly_reindex."
    )
    sensors: list[str] = Field(default_factory=list, description="Names: <operation>_<backend>, e.g. compaction_lake.")
