"""The code location at work without a daemon: what `dagster dev` would do with it, step by step."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from aurum_orchestration.errors import InternalError

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Run config that keeps a run's events off the terminal; they are in Dagster's storage."""


@dataclass(frozen=True, slots=True)
class Tick:
    """What a sensor's tick requests, and its words about that."""

    run_requests: Sequence[dg.RunRequest]
    words: str


class CodeLocation:
    """Sensors and jobs of ``definitions``, evaluated and executed here, recorded in ``instance``."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self._repository = definitions.get_repository_def()
        self._instance = instance

    def tick(self, sensor: str) -> Tick:
        """One evaluation of a sensor."""
        definition = self._repository.get_sensor_def(sensor)
        resources = self._repository.get_top_level_resources()
        with dg.build_sensor_context(
            instance=self._instance,
            repository_def=self._repository,
            sensor_name=sensor,
            resources={name: resources[name] for name in definition.required_resource_keys},
        ) as context:
            said = _Said()
            context.log.handlers = [said]
            outcome = definition.evaluate_tick(context)
        return Tick(outcome.run_requests or (), outcome.skip_message or " ".join(said.lines))

    def launch(self, job: str, config: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None) -> str:
        """Run a job to its end; gives the run's id. Raises InternalError with what the run says when it fails."""
        result = self._repository.get_job(job).execute_in_process(
            run_config={**QUIET, **(config or {})}, tags=dict(tags or {}), instance=self._instance, raise_on_error=False
        )
        if not result.success:
            raise InternalError(f"the run {result.run_id} of the job {job} failed: {_causes(result)}", operation=job)
        return result.run_id

    def newest_observation(self, asset_key: Sequence[str]) -> Mapping[str, Any]:
        """Metadata of the newest observation of a table's asset. Raises InternalError when there is none."""
        found = self._instance.fetch_observations(dg.AssetKey(list(asset_key)), limit=1).records
        if not found or found[0].asset_observation is None:
            raise InternalError(f"Dagster has no observation of the asset {'/'.join(asset_key)}")
        return {name: value.value for name, value in found[0].asset_observation.metadata.items()}


class _Said(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a record."""
        self.lines.append(record.getMessage())


def _causes(result: dg.ExecuteInProcessResult) -> str:
    failures = [event.step_failure_data for event in result.get_step_failure_events()]
    said = [failure.user_failure_data.description for failure in failures if failure.user_failure_data]
    thrown = [failure.error_display_string for failure in failures if not failure.user_failure_data]
    return "; ".join(text for text in [*said, *thrown] if text) or "no step says why"
