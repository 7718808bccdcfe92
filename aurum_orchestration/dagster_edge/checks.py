"""Checks of the tables' assets, run from an asset's page or by the job ``health``; both measure in bulk.

A check is an entry in the snapshot of the code location: which ones a table has, and how many an op
holds, is what loading 10,000 tables costs (docs/adr/0006).
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import dagster as dg

from aurum_orchestration.dagster_edge.naming import BACKEND_TAG, definition_name, digest, tag_value
from aurum_orchestration.dagster_edge.observe import numbers, observation
from aurum_orchestration.dagster_edge.report import told
from aurum_orchestration.dagster_edge.resources import SERVICE
from aurum_orchestration.dagster_edge.streaming import stream
from aurum_orchestration.dagster_edge.work import Ended, Measured, Note, measure
from aurum_orchestration.errors import AurumError
from aurum_orchestration.fleet import Fleet
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.checks import CHECKS, CheckName, Verdict, family_of, names_of
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.maintenance.survey import Examined
from aurum_orchestration.maintenance.threads import run_sync

CHECKS_PER_OP = 500
"""Dagster's snapshot of an op grows faster than its checks: 10,000 in one op take 7 s, in 20 ops 3 s."""

DESCRIPTIONS: Mapping[CheckName, str] = {
    "file_count": "How many files a compaction would save.",
    "delete_files": "How many delete files weigh on reads.",
    "snapshots": "How many snapshots the table's metadata lists.",
    "bloat": "How much of the table and its indexes nothing uses.",
    "xid_age": "How old its oldest transaction id is.",
    "autovacuum_debt": "How many times the dead rows at which autovacuum comes.",
    "invalid_indexes": "Indexes that are written to and never read.",
    "unused_indexes": "How large the indexes are that no query has used.",
    "long_transactions": "How long the oldest transaction has been open.",
    "maintenance_recency": "Whether a table in need had completed maintenance lately.",
    "debt": "The debt score: 0 (nothing to win) to 100.",
}

_NAME = re.compile(r"[A-Za-z0-9_]+")
_log = logging.getLogger(__name__)
_SEVERITY = {True: dg.AssetCheckSeverity.ERROR, False: dg.AssetCheckSeverity.WARN}
_AT_ONCE = 400
"""Checks looked up in Dagster's storage by one query."""

CheckEvents = Iterator[dg.AssetCheckResult | dg.AssetObservation]


def table_checks(fleet: Fleet) -> list[dg.AssetChecksDefinition]:
    """The checks that the policies give the known tables, some hundred in each op, no op for two backends."""
    tables = [found.table for found in fleet.tables()]
    by_backend: dict[str, dict[dg.AssetKey, TableId]] = {}
    keys: set[dg.AssetKey] = set()
    names: set[tuple[str, str]] = set()
    for table in tables:
        key = asset_key(fleet, table)
        if key in keys:  # of two tables with one key the first has the asset
            continue
        keys.add(key)
        # Dagster names a check's output by its asset, in fewer characters than a key may have
        name = key.to_python_identifier().replace(".", "_")
        if _NAME.fullmatch(name) and (table.backend, name) not in names:
            names.add((table.backend, name))
            by_backend.setdefault(table.backend, {})[key] = table
        else:
            _log.warning("%s has no checks in Dagster: its asset's key does not make a name of its own", table)
    made: list[dg.AssetChecksDefinition] = []
    for backend, known in by_backend.items():
        pairs = [(key, name) for key, table in known.items() for name in defined(fleet, table, len(tables))]
        for start in range(0, len(pairs), CHECKS_PER_OP):
            shard = pairs[start : start + CHECKS_PER_OP]
            name = definition_name(f"checks_{backend}_{start // CHECKS_PER_OP + 1}")
            if any(one.node_def.name == name for one in made):  # backends whose names differ in odd characters
                name = f"{name}_{digest(backend, 6)}"
            made.append(_checks(name, backend, shard, {key: known[key] for key, _ in shard}))
    return made


def defined(fleet: Fleet, table: TableId, tables: int) -> tuple[CheckName, ...]:
    """Names of the checks that a table has in a fleet of so many tables."""
    backend = fleet.backends.get(table.backend)
    return names_of(fleet.policy(table, CHECKS), tables, family_of(backend.type if backend else "", table))


def asset_key(fleet: Fleet, table: TableId) -> dg.AssetKey:
    """Key of the table's asset."""
    return dg.AssetKey(list(fleet.asset_key(table)))


def _checks(
    name: str, backend: str, pairs: Sequence[tuple[dg.AssetKey, CheckName]], tables: Mapping[dg.AssetKey, TableId]
) -> dg.AssetChecksDefinition:
    specs = [dg.AssetCheckSpec(check, asset=key, description=DESCRIPTIONS[check]) for key, check in pairs]

    @dg.multi_asset_check(
        name=name,
        specs=specs,
        can_subset=True,
        description=f"Measures tables of {backend} at once and holds their numbers against the policies.",
        required_resource_keys={SERVICE},
        op_tags={BACKEND_TAG: tag_value(backend)},
    )
    def evaluate(context: dg.AssetCheckExecutionContext) -> CheckEvents:
        service: MaintenanceService = getattr(context.resources, SERVICE).get()
        wanted: dict[TableId, list[CheckName]] = {}
        for selected in sorted(context.selected_asset_check_keys):
            check = next(known for known in DESCRIPTIONS if known == selected.name)
            wanted.setdefault(tables[selected.asset_key], []).append(check)
        yield from _evaluate(service, wanted, context.log.warning)

    return evaluate


def _evaluate(
    service: MaintenanceService, wanted: Mapping[TableId, Sequence[CheckName]], warn: Callable[[str], None]
) -> CheckEvents:
    fleet = service.fleet
    examined: list[Examined] = []
    try:
        for item in stream(partial(measure, service, [str(table) for table in wanted], False)):
            _collect(item, examined, warn)
    except AurumError as error:
        metadata = {"problem": dg.MetadataValue.json(error.problem().model_dump(mode="json"))}
        raise dg.Failure(told(error), metadata=metadata, allow_retries=False) from error
    for health, debt, decisions in examined:
        if health.problem is None:
            yield observation(fleet, health, debt, decisions)
    for verdict in run_sync(service.check(examined, wanted)):
        yield _result(fleet, verdict)
    for table in set(wanted) - {health.table for health, _, _ in examined}:
        text = "the backend does not list the table any more; run the job health, then reload the code location"
        for name in wanted[table]:
            yield _result(fleet, Verdict(table, name, passed=False, error=False, text=text))


def _collect(item: Note | Ended | Measured, examined: list[Examined], warn: Callable[[str], None]) -> None:
    if isinstance(item, Measured):
        examined.append(item.examined)
    elif isinstance(item, Note) and item.warning:
        warn(item.text)


def _result(fleet: Fleet, verdict: Verdict) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=verdict.passed,
        asset_key=asset_key(fleet, verdict.table),
        check_name=verdict.name,
        severity=_SEVERITY[verdict.error],
        description=verdict.text,
        metadata=numbers(verdict.numbers),
    )


def evaluations(
    service: MaintenanceService, instance: dg.DagsterInstance, measured: Sequence[Measured], *, every: bool
) -> Iterator[dg.AssetCheckEvaluation]:
    """What the job ``health`` tells of the tables it measured: the checks they have, judged with the same numbers.

    Only those whose table or outcome changed, unless ``every``. Tables that could not be measured are left
    out: the run fails and names them, and a backend that is down does not write an event per table.
    """
    fleet = service.fleet
    examined = [one.examined for one in measured if one.examined[0].problem is None]
    count = len(fleet.tables())
    wanted = {health.table: defined(fleet, health.table, count) for health, _, _ in examined}
    news = {one.examined[0].table for one in measured if one.news}
    verdicts = run_sync(service.check(examined, wanted))
    told_before = {} if every else _outcomes(instance, [_key(fleet, verdict) for verdict in verdicts])
    for verdict in verdicts:
        key = _key(fleet, verdict)
        if every or verdict.table in news or told_before.get(key) != (verdict.passed, _severity(verdict)):
            yield _evaluation(key, verdict)


def recovered(
    service: MaintenanceService, instance: dg.DagsterInstance, examined: Sequence[Examined]
) -> Iterator[dg.AssetCheckEvaluation]:
    """The checks that did not pass when they were told last and do now, after maintenance of their tables.

    Without it the catalogue would show a table as failed until somebody measures it. Others are left to the
    job ``health``: what maintenance tells of a table stays one event, unless there was something to take back.
    """
    fleet = service.fleet
    count = len(fleet.tables())
    wanted = {health.table: defined(fleet, health.table, count) for health, _, _ in examined}
    keys = {dg.AssetCheckKey(asset_key(fleet, table), name) for table, names in wanted.items() for name in names}
    failed = {key for key, (passed, _) in _outcomes(instance, sorted(keys)).items() if not passed}
    if not failed:
        return
    for verdict in run_sync(service.check(examined, wanted)):
        key = _key(fleet, verdict)
        if verdict.passed and key in failed:
            yield _evaluation(key, verdict)


def _evaluation(key: dg.AssetCheckKey, verdict: Verdict) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=key.asset_key,
        check_name=key.name,
        passed=verdict.passed,
        severity=_SEVERITY[verdict.error],
        description=verdict.text,
        metadata=numbers(verdict.numbers),
    )


def _key(fleet: Fleet, verdict: Verdict) -> dg.AssetCheckKey:
    return dg.AssetCheckKey(asset_key(fleet, verdict.table), verdict.name)


def _severity(verdict: Verdict) -> dg.AssetCheckSeverity | None:
    return None if verdict.passed else _SEVERITY[verdict.error]


def _outcomes(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey]
) -> dict[dg.AssetCheckKey, tuple[bool, dg.AssetCheckSeverity | None]]:
    """Whether each check passed when it was evaluated last, and how bad it was when it did not."""
    found = {}
    storage = instance.event_log_storage
    for start in range(0, len(keys), _AT_ONCE):
        for key, record in storage.get_latest_asset_check_execution_by_key(keys[start : start + _AT_ONCE]).items():
            evaluation = record.evaluation
            if isinstance(evaluation, dg.AssetCheckEvaluation):  # not the plan of one that never came
                found[key] = (evaluation.passed, None if evaluation.passed else evaluation.severity)
    return found
