"""Vacuum of a hypertable: of the chunks that need it, judged in one look and vacuumed one by one, the worst first."""

from __future__ import annotations

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.horizon import long_transactions
from aurum_orchestration.maintenance.backends.postgres.table import Database
from aurum_orchestration.maintenance.backends.postgres.vacuum.execute import VacuumExecution
from aurum_orchestration.maintenance.backends.postgres.vacuum.plan import (
    freezes,
    reason_for,
    refuse_useless,
    require_maintainable,
    vacuum_step,
)
from aurum_orchestration.maintenance.backends.postgres.vacuum.state import VacuumState, vacuum_states
from aurum_orchestration.maintenance.backends.timescale.by_chunk import ByChunk
from aurum_orchestration.maintenance.backends.timescale.hypertable import as_table, chunks_of, hypertable_of
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters
from aurum_orchestration.maintenance.planner.words import count


def plan(target: Database, table_id: TableId, parameters: VacuumParameters) -> MaintenancePlan:  # noqa: ARG001 - the handlers' protocol
    """One VACUUM for each chunk that has a reason. Raises UnsupportedError when every one of them would be useless."""
    table = hypertable_of(target, OperationType.VACUUM)
    table.server.refuse_writes(OperationType.VACUUM)
    require_maintainable(table, OperationType.VACUUM)
    refused: list[UnsupportedError] = []
    warnings: list[str] = []
    steps: list[PlanStep] = []
    with table.look() as session:
        found = chunks_of(session, table)
        chunks = {part.oid: part for chunk in found for part in chunk.parts}
        states = vacuum_states(session, list(chunks))
        for oid, state in sorted(states.items(), key=lambda one: _urgency(one[1]), reverse=True):
            freeze = freezes(state, parameters)
            reason = reason_for(state, freeze=freeze, analyze=parameters.analyze)
            if reason is None:
                continue
            chunk = as_table(table, chunks[oid])
            try:
                warnings += refuse_useless(session, chunk, state, freeze=freeze)
            except UnsupportedError as error:
                refused.append(error)
                continue
            step = vacuum_step(chunk, state, parameters, reason, freeze=freeze, number=len(steps) + 1)
            steps.append(step.model_copy(update={"detail": {**step.detail, "oid": oid, "chunk": str(chunks[oid])}}))
        if steps:
            warnings += long_transactions(session)
    if refused and not steps:
        raise refused[0]
    warnings += [f"a chunk is left out: {error.detail}" for error in refused]
    touched = {step.detail["oid"] for step in steps}
    worn = [chunk for chunk in found if touched & {part.oid for part in chunk.parts}]
    reason = (
        f"{count(len(worn), 'chunk')} of {len(found):,} with dead rows, stale statistics or old transaction ids"
        if steps
        else f"no row is dead in {count(len(found), 'chunk')}, and nothing is stale"
    )
    return table.plan(OperationType.VACUUM, parameters.model_dump(), reason, steps, list(dict.fromkeys(warnings)))


def _urgency(state: VacuumState) -> tuple[bool, float]:
    return state.freeze_share >= 1, state.dead


def execution(plan: MaintenancePlan, target: Database) -> ByChunk:
    """The chunks, one after the other."""
    table = hypertable_of(target, OperationType.VACUUM)
    return ByChunk(
        plan,
        table,
        lambda step, chunk: VacuumExecution(plan.model_copy(update={"steps": [step]}), as_table(table, chunk)).units(),
    )
