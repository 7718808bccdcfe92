"""The job ``purge``: Dagster's own runs with their events and logs, and the project's history, past their time.

Runs go through the instance's public API, one by one, the oldest first: a purge that is stopped has
deleted what it said, and the next one carries on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg

from aurum_orchestration.dagster_edge.config import PurgeConfig
from aurum_orchestration.dagster_edge.naming import OPERATION_TAG
from aurum_orchestration.dagster_edge.runs import FINISHED
from aurum_orchestration.errors import AurumError
from aurum_orchestration.history import History

PURGE = "purge"

STAYS = (
    "Events of no run (observations and check results that somebody reported from outside) stay: Dagster has no way to "
    "delete them by age, only all of an asset at once."
)


@dataclass(frozen=True, slots=True)
class Old:
    """A run past its time."""

    run_id: str
    job: str
    ended: datetime


def old_runs(
    instance: dg.DagsterInstance, before: datetime, *, ours: Sequence[str] | None, keep_last: int, batch: int
) -> list[Old]:
    """The runs that ended before an aware moment, the oldest first; never one that has not ended.

    ``ours``: only runs with one of these values of the tag aurum/operation; None: of every job. Of each job
    the newest ``keep_last`` that ended are left out. Lists ``batch`` at a time.
    """
    tags = {} if ours is None else {OPERATION_TAG: list(ours)}
    found: list[Old] = []
    kept: dict[str, frozenset[str]] = {}
    cursor: str | None = None
    while True:
        records = instance.get_run_records(
            dg.RunsFilter(statuses=FINISHED, tags=tags, created_before=before),
            limit=batch,
            cursor=cursor,
            ascending=True,
        )
        for record in records:
            run = record.dagster_run
            ended = _ended(record)
            if run.job_name not in kept:
                kept[run.job_name] = _newest(instance, run.job_name, tags, keep_last)
            if ended < before and run.run_id not in kept[run.job_name]:
                found.append(Old(run.run_id, run.job_name, ended))
        if len(records) < batch:
            return found
        cursor = records[-1].dagster_run.run_id


def _ended(record: dg.RunRecord) -> datetime:
    """When the run ended; a run that never started has only the time it was made at."""
    if record.end_time is not None:
        return datetime.fromtimestamp(record.end_time, UTC)
    created = record.create_timestamp
    return created if created.tzinfo else created.replace(tzinfo=UTC)


def _newest(instance: dg.DagsterInstance, job: str, tags: dict[str, list[str]], count: int) -> frozenset[str]:
    if not count:
        return frozenset()
    wanted = dg.RunsFilter(job_name=job, statuses=FINISHED, tags=tags)
    return frozenset(run.run_id for run in instance.get_runs(wanted, limit=count))


def delete_runs(instance: dg.DagsterInstance, runs: Sequence[Old], batch: int) -> Iterator[int]:
    """Delete them with their events and captured logs; after each batch how many are gone."""
    for number, run in enumerate(runs, 1):
        instance.delete_run(run.run_id)
        instance.compute_log_manager.delete_logs(prefix=[run.run_id])
        if number % batch == 0 or number == len(runs):
            yield number


def purge(
    context: dg.OpExecutionContext, config: PurgeConfig, history: History, jobs: Sequence[str]
) -> Iterator[dg.Output[None]]:
    """What the op does. ``jobs``: names of this code location's jobs, which are the tag of their runs."""
    now = datetime.now(UTC)
    before = now - timedelta(days=config.older_than_days)
    ours = jobs if config.runs == "ours" else None
    runs = old_runs(context.instance, before, ours=ours, keep_last=config.keep_last, batch=config.batch_size)
    context.log.info(f"{len(runs):,} runs ended before {before:%Y-%m-%d %H:%M} UTC")
    lines = [_summary(runs, before, dry_run=config.dry_run), "", *_by_job(runs), f"- {STAYS}"]
    metadata: dict[str, dg.MetadataValue] = {"runs": dg.MetadataValue.int(len(runs))}
    if not config.dry_run:
        for gone in delete_runs(context.instance, runs, config.batch_size):
            context.log.info(f"{gone:,} of {len(runs):,} runs deleted")
    lines.append(_prune(history, config, now, metadata))
    yield dg.Output(None, metadata={"report": dg.MetadataValue.md("\n".join(lines)), **metadata})


def _prune(history: History, config: PurgeConfig, now: datetime, metadata: dict[str, dg.MetadataValue]) -> str:
    if config.history_older_than_days is None:
        return "- The project's history stays: `history_older_than_days` is not set."
    before = now - timedelta(days=config.history_older_than_days)
    told = f"started or measured before {before:%Y-%m-%d %H:%M} UTC"
    if config.dry_run:
        return f"- Of the project's history would go what was {told}."
    try:
        pruned = history.prune(before)
    except AurumError as error:
        problem = {"problem": dg.MetadataValue.json(error.problem().model_dump(mode="json"))}
        raise dg.Failure(
            f"the history was not pruned: {error.detail}", metadata=problem, allow_retries=False
        ) from error
    metadata["history_operations"] = dg.MetadataValue.int(pruned.operations)
    metadata["history_points"] = dg.MetadataValue.int(pruned.health)
    return (
        f"- Of the project's history {pruned.operations:,} operations and {pruned.health:,} health points went, {told}."
    )


def _summary(runs: Sequence[Old], before: datetime, *, dry_run: bool) -> str:
    ended = f"that ended before {before:%Y-%m-%d %H:%M} UTC"
    if dry_run:
        return (
            f"Dry run: {len(runs):,} runs {ended} would be deleted, with their events and logs. Set `dry_run: false`."
        )
    return f"{len(runs):,} runs {ended} deleted, with their events and logs."


def _by_job(runs: Sequence[Old]) -> list[str]:
    if not runs:
        return []
    jobs: dict[str, list[Old]] = {}
    for run in runs:
        jobs.setdefault(run.job, []).append(run)
    rows = []
    for job, old in sorted(jobs.items()):
        ends = sorted(run.ended for run in old)
        rows.append(f"| {job} | {len(old):,} | {ends[0]:%Y-%m-%d} | {ends[-1]:%Y-%m-%d} |")
    return ["| job | runs | oldest | newest |", "|---|---|---|---|", *rows, ""]
