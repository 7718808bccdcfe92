"""The jobs: one per operation, ``maintenance`` for several, ``health``, ``purge``.

Each is one op that works on many tables at once in threads.

One op rather than one per table, and in the run's own process: with steps or mapped ops a table costs
nine events and a process start; this way it costs its observation.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import TypeVar

import dagster as dg
from pydantic import ValidationError

from aurum_orchestration.dagster_edge.checks import evaluations, recovered
from aurum_orchestration.dagster_edge.config import HealthConfig, PurgeConfig, operation_config, round_config
from aurum_orchestration.dagster_edge.naming import MAINTENANCE, OPERATION_TAG, definition_name
from aurum_orchestration.dagster_edge.observe import observation
from aurum_orchestration.dagster_edge.purge import PURGE, purge
from aurum_orchestration.dagster_edge.report import BAD, failure_text, health_report, operations_log, run_metadata, told
from aurum_orchestration.dagster_edge.resources import SERVICE
from aurum_orchestration.dagster_edge.streaming import stream
from aurum_orchestration.dagster_edge.work import Ended, Measured, Note, OperationRequest, maintain, measure
from aurum_orchestration.errors import AurumError
from aurum_orchestration.fleet.problems import from_detail
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration.maintenance.operations.base import BaseMaintenanceOperation
from aurum_orchestration.maintenance.planner.rank import Budget
from aurum_orchestration.maintenance.rounds import Respect
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.maintenance.survey import Examined

HEALTH = "health"

F = TypeVar("F", bound=dg.Config)

Events = Iterator[dg.AssetObservation | dg.AssetCheckEvaluation | dg.Output[None]]


def operation_jobs() -> list[dg.JobDefinition]:
    """A job for each known operation, users' own too."""
    return [operation_job(name, operation) for name, operation in MaintenanceFactory.operations().items()]


def operation_job(name: str, operation: type[BaseMaintenanceOperation]) -> dg.JobDefinition:
    """The job of an operation; job and op have its name, the op's pool is ``aurum_<name>`` (docs/adr/0004)."""
    form = operation_config(definition_name(name), operation.Parameters)
    description = f"{operation.title or name}: every table that needs it, of those that `tables` names."

    def carry_out(context: dg.OpExecutionContext) -> Events:
        config = _config(context, form)
        given = config.given()
        request = OperationRequest(
            config.tables, [name], config.dry_run, {name: given} if given else {}, Respect(config.respect.value)
        )
        return _carry_out(context, request)

    return _job(definition_name(name), description, form, carry_out, pool=f"aurum_{definition_name(name)}")


def maintenance_job() -> dg.JobDefinition:
    """The job that does several operations, or what the planner decides."""
    names = {definition_name(name): name for name in MaintenanceFactory.operations()}
    form = round_config(tuple((key, MaintenanceFactory.operations()[name].Parameters) for key, name in names.items()))

    def carry_out(context: dg.OpExecutionContext) -> Events:
        config = _config(context, form)
        request = OperationRequest(
            config.tables,
            config.operations,
            config.dry_run,
            {names[key]: given for key, given in config.given().items()},
            Respect(config.respect.value) if config.respect else None,
            Budget.of(tables=config.max_tables, minutes=config.max_minutes, gib=config.max_gib),
        )
        return _carry_out(context, request)

    description = "Several operations, one after the other; none named: what each table needs, as the planner decides."
    return _job(MAINTENANCE, description, form, carry_out, pool=f"aurum_{MAINTENANCE}")


def health_job() -> dg.JobDefinition:
    """The job that measures tables: what changed becomes observations and points of the health series."""

    def carry_out(context: dg.OpExecutionContext) -> Events:
        return _measure(context, _config(context, HealthConfig))

    return _job(HEALTH, "Measure tables; changes nothing but their plots and checks.", HealthConfig, carry_out)


def purge_job() -> dg.JobDefinition:
    """The job that deletes Dagster's own old runs; without config it only says which."""
    ours = [*map(definition_name, MaintenanceFactory.operations()), MAINTENANCE, HEALTH, PURGE]

    def carry_out(context: dg.OpExecutionContext) -> Events:
        config = _config(context, PurgeConfig)
        yield from purge(context, config, _service(context).history, ours)

    return _job(
        PURGE, "Delete Dagster's own runs and events that are old; a dry run by default.", PurgeConfig, carry_out
    )


def _job(
    name: str,
    description: str,
    form: type[dg.Config],
    carry_out: Callable[[dg.OpExecutionContext], Events],
    pool: str | None = None,
) -> dg.JobDefinition:
    op = dg.op(
        name=name,
        description=description,
        out=dg.Out(dg.Nothing),
        config_schema=_schema(form),
        required_resource_keys={SERVICE},
        pool=pool,
    )(carry_out)
    graph = dg.GraphDefinition(name=f"{name}_graph", node_defs=[op])  # Dagster wants other names for graph and op
    return graph.to_job(
        name=name, description=description, executor_def=dg.in_process_executor, tags={OPERATION_TAG: name}
    )


@cache
def _schema(form: type[dg.Config]) -> dg.Field:
    """What Dagster makes of a form: most of what it takes to make a job, and the same for every fleet."""
    return form.to_config_schema().as_field()


def _carry_out(context: dg.OpExecutionContext, request: OperationRequest) -> Events:
    service = _service(context)
    results: list[MaintenanceResult] = []
    notes: list[str] = []
    now: dict[TableId, Examined] = {}
    request = replace(request, origin=f"Dagster run {context.run_id} of the job {context.job_name}")
    for item in _told(stream(partial(maintain, service, request))):
        if isinstance(item, Note):
            _say(context, item, notes)
        elif isinstance(item, Ended):
            results.append(item.result)
            if item.result.status in BAD:
                context.log.error(failure_text([item.result]))
            if item.now is not None:
                health, debt, decisions = item.now
                now[health.table] = item.now
                yield observation(service.fleet, health, debt, decisions, item.result)
    yield from recovered(service, context.instance, list(now.values()))
    context.log.info(operations_log(results))
    metadata = run_metadata(results, notes)
    if any(result.status in BAD for result in results):
        raise dg.Failure(failure_text(results), metadata=metadata, allow_retries=False)
    yield dg.Output(None, metadata=metadata)


def _measure(context: dg.OpExecutionContext, config: HealthConfig) -> Events:
    service = _service(context)
    seen: list[Measured] = []
    notes: list[str] = []
    for item in _told(stream(partial(measure, service, config.tables, config.discover))):
        if isinstance(item, Note):
            _say(context, item, notes)
        elif isinstance(item, Measured):
            seen.append(item)
            health, debt, decisions = item.examined
            if health.problem is None and (item.news or config.observe == "all"):
                yield observation(service.fleet, health, debt, decisions)
    measured = [item.examined for item in seen]
    if config.checks != "none":
        yield from evaluations(service, context.instance, seen, every=config.checks == "all")
    bad = [health for health, _, _ in measured if health.problem is not None]
    metadata = {
        "report": dg.MetadataValue.md(health_report(measured, notes)),
        "tables_measured": dg.MetadataValue.int(len(measured) - len(bad)),
        "tables_failed": dg.MetadataValue.int(len(bad)),
    }
    if bad:
        named = "; ".join(f"{health.table}: {told(health.problem)}" for health in bad[:20] if health.problem)
        text = f"{len(bad)} of {len(measured)} tables could not be measured, the others are done. {named}"
        raise dg.Failure(text, metadata=metadata, allow_retries=False)
    yield dg.Output(None, metadata=metadata)


def _config(context: dg.OpExecutionContext, form: type[F]) -> F:
    """What the run was told. Dagster looks at names and types; a value out of its bounds ends the run here."""
    try:
        return form.model_validate(context.op_config)
    except ValidationError as error:
        problems = [from_detail(detail, ()) for detail in error.errors(include_url=False)]
    told = "; ".join(f"{'.'.join(map(str, one.path))} {one.message}" for one in problems)
    raise dg.Failure(f"The run config is wrong: {told}", allow_retries=False)


def _service(context: dg.OpExecutionContext) -> MaintenanceService:
    service: MaintenanceService = getattr(context.resources, SERVICE).get()
    return service


def _told(items: Iterator[Note | Ended | Measured]) -> Iterator[Note | Ended | Measured]:
    """The items; an error of ours ends the run with its problem and hint instead of a stack trace."""
    try:
        yield from items
    except AurumError as error:
        metadata = {"problem": dg.MetadataValue.json(error.problem().model_dump(mode="json"))}
        raise dg.Failure(told(error), metadata=metadata, allow_retries=False) from error


def _say(context: dg.OpExecutionContext, note: Note, notes: list[str]) -> None:
    if note.warning:
        notes.append(note.text)
        context.log.warning(note.text)
    else:
        context.log.info(note.text)
