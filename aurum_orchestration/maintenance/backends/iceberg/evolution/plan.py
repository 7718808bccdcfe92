"""The plan of a partition evolution: the spec first, then the groups of files that are rewritten into it."""

from __future__ import annotations

from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import VoidTransform

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.compact.destinations import Destinations
from aurum_orchestration.maintenance.backends.iceberg.compact.plan import plan_compaction
from aurum_orchestration.maintenance.backends.iceberg.compact.state import TableState, read_state
from aurum_orchestration.maintenance.backends.iceberg.entries import EntryReader
from aurum_orchestration.maintenance.backends.iceberg.evolution.change import Evolution, evolution_of
from aurum_orchestration.maintenance.backends.iceberg.lossless import refuse_lossy_commit
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.partition_evolution import PartitionEvolutionParameters
from aurum_orchestration.maintenance.planner.words import count

EVOLVE = "evolve"
FORMER = "former_spec_id"

_RISK = "None for rows: files of older specs stay readable, and `aurum undo` sets the former spec again."


def plan_evolution(table: Table, table_id: TableId, parameters: PartitionEvolutionParameters) -> MaintenancePlan:
    """The plan for the table as it is.

    Raises RequestError for a spec that cannot be, UnsupportedError when there would be too many partitions,
    files that cannot be rewritten, or metadata that the commit would drop.
    """
    evolution = evolution_of(table, parameters)
    if evolution.updates:
        refuse_lossy_commit(table)
    state = read_state(evolution.after, EntryReader(table.io))
    rewriting = plan_compaction(state, table_id, parameters.compaction(), only_old_specs=True)
    old = [item.data_file for item in state.data if item.data_file.spec_id != state.spec.spec_id]
    estimate = Destinations(state.spec, state.table.schema()).count(old)
    if parameters.rewrite and estimate.least > parameters.max_partitions:
        raise UnsupportedError(
            f"the rows of {count(len(old), 'file')} would fall into {estimate} partitions, "
            f"more than max_partitions ({parameters.max_partitions:,})",
            hint="Choose a coarser spec, e.g. month instead of day or fewer buckets, or raise max_partitions.",
            table=str(table_id),
            operation=OperationType.PARTITION_EVOLUTION,
        )
    steps = [_evolve_step(evolution, len(old), str(estimate))] if evolution.updates else []
    steps += [step.model_copy(update={"number": step.number + len(steps)}) for step in rewriting.steps]
    return MaintenancePlan(
        table=str(table_id),
        backend=table_id.backend,
        operation=OperationType.PARTITION_EVOLUTION,
        parameters=parameters.model_dump(),
        reason=_reason(evolution, state, steps, len(old)),
        fingerprint={**state.fingerprint(), FORMER: table.metadata.default_spec_id},
        steps=steps,
        warnings=rewriting.warnings,
    )


def spec_text(spec: PartitionSpec, schema: Schema) -> str:
    """A spec as its terms, e.g. ``day(ts), bucket(16, id)``."""
    terms = []
    for field in spec.fields:
        if isinstance(field.transform, VoidTransform):
            continue
        column = schema.find_column_name(field.source_id) or f"field {field.source_id}"
        name, _, size = str(field.transform).partition("[")
        terms.append(column if name == "identity" else f"{name}({size.rstrip(']') + ', ' if size else ''}{column})")
    return ", ".join(terms) or "no partitions"


def _evolve_step(evolution: Evolution, files: int, partitions: str) -> PlanStep:
    before, after = evolution.before.metadata, evolution.after.metadata
    now, then = spec_text(before.spec(), before.schema()), spec_text(after.spec(), after.schema())
    return PlanStep(
        number=1,
        action=EVOLVE,
        summary=f"Partition by {then} instead of {now}.",
        risk=_RISK,
        detail={
            "spec": then,
            "former_spec": now,
            "spec_id": after.default_spec_id,
            FORMER: before.default_spec_id,
            "fields": [field.model_dump(mode="json", by_alias=True) for field in after.spec().fields],
            "files": [],
            "files_of_older_specs": files,
            "partitions": partitions,
        },
    )


def _reason(evolution: Evolution, state: TableState, steps: list[PlanStep], old: int) -> str:
    then = spec_text(state.spec, state.table.schema())
    groups = sum(step.action != EVOLVE for step in steps)
    if not steps:
        left = f"; {count(old, 'file')} of older specs are left as they are" if old else ""
        return f"nothing to do: the table is partitioned by {then}{left}"
    parts = [f"partition by {then}"] if evolution.updates else []
    if groups:
        parts.append(f"rewrite {count(old, 'file')} of older specs into {then} in {count(groups, 'group')}")
    return ", ".join(parts)
