"""Which partitions a compaction through Trino optimizes: one step per statement, as many partitions as it can name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aurum_orchestration.errors import EngineError, UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.trino.from_catalog import layout_of, partitions
from aurum_orchestration.maintenance.backends.iceberg.trino.history import fingerprint, read_history
from aurum_orchestration.maintenance.backends.iceberg.trino.layout import Layout, Scope, read_layout, scopes
from aurum_orchestration.maintenance.backends.iceberg.trino.partitions import (
    Partition,
    matching,
    read_partitions,
    small_below,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.refusals import format_refusal
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import literal
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.compaction import MIB, CompactionParameters
from aurum_orchestration.maintenance.planner.binpack import files_out
from aurum_orchestration.maintenance.planner.words import count, size

EVERY_FILE = "1000TB"
"""A threshold that no file reaches."""

_RISK = "None for readers and writers: the old files stay until their snapshot expires; a concurrent delete wins."


def plan_compaction(table: TrinoTable, table_id: TableId, parameters: CompactionParameters) -> MaintenancePlan:
    """The plan for the table as it is. Nothing is written: Trino explains the statements, with the rights they need.

    Raises UnsupportedError with the reason when Trino cannot do what is asked, RequestError for a wrong filter.
    """
    loaded = table.embedded
    history = read_history(table, clock=False, opened=True)
    known = layout_of(loaded) if loaded is not None else None
    layout = known or read_layout(table)
    refuse(table, history.properties.get("format-version", "2"), layout, parameters)
    if loaded is not None and known is not None:
        everything = partitions(loaded, small_below(parameters))
    else:
        everything = read_partitions(table, layout, small_below(parameters)) if history.head is not None else []
    offered = everything
    if parameters.partition_filter is not None:
        offered = matching(everything, layout, table.columns(loaded), parameters.partition_filter)
    deletes = sum(one.deletes for one in everything)
    chosen = [one for one in offered if one.is_wanted(parameters, deletes)]
    mixed = len({one.spec_id for one in everything}) > 1
    if mixed and parameters.old_specs == "leave" and chosen:
        raise UnsupportedError("old_specs: leave: Trino rewrites files of older partition specs with the others")
    if mixed and parameters.old_specs == "all":
        chosen = everything
    threshold = threshold_of(
        parameters, rewrite_all=parameters.rewrite_all or (mixed and parameters.old_specs == "all")
    )
    steps = _steps(table, layout, chosen, offered, everything, parameters, threshold=threshold) if chosen else []
    return MaintenancePlan(
        table=str(table_id),
        backend=table_id.backend,
        operation=OperationType.COMPACTION,
        parameters=parameters.model_dump(),
        reason=_reason(chosen, everything, steps, parameters),
        fingerprint=fingerprint(table, history),
        steps=steps,
    )


def refuse(table: TrinoTable, version: str, layout: Layout, parameters: CompactionParameters) -> None:
    """Raise UnsupportedError for what Trino's optimize cannot do."""
    if told := format_refusal(int(version), table.capabilities):
        raise UnsupportedError(told, hint="Spark with Iceberg 1.10 or later can.")
    if parameters.strategy == "zorder":
        raise UnsupportedError("Trino lays out no z-order", hint="The embedded engine does: engine: pyiceberg.")
    if parameters.strategy == "sort":
        if not layout.sorted_by:
            raise UnsupportedError(
                "strategy sort: Trino sorts by the table's own sort order only, and this table has none",
                hint=f"ALTER TABLE {table.name} SET PROPERTIES sorted_by = ARRAY[...]",
            )
        asked = _sort_terms(parameters.sort_columns or "")
        if asked and asked != [_sort_term(text) for text in layout.sorted_by]:
            raise UnsupportedError(
                f"sort_columns: Trino sorts by the table's own sort order only, which is {', '.join(layout.sorted_by)}",
                hint="Leave sort_columns out, or change the table's sorted_by.",
            )


def _sort_terms(text: str) -> list[tuple[str, bool, bool]]:
    return [_sort_term(part) for part in text.split(",") if part.strip()]


def _sort_term(text: str) -> tuple[str, bool, bool]:
    """Column, descending, nulls first."""
    words = text.split()
    told = " ".join(words[1:]).lower()
    descending = "desc" in told.split()
    nulls_first = "nulls first" in told or ("nulls" not in told and not descending)
    return words[0].strip('"').lower(), descending, nulls_first


def threshold_of(parameters: CompactionParameters, *, rewrite_all: bool) -> str:
    """The size below which Trino rewrites a file."""
    return EVERY_FILE if rewrite_all else f"{small_below(parameters)}B"


def statement(table: TrinoTable, threshold: str, where: str) -> str:
    """One optimize."""
    condition = f" WHERE {where}" if where else ""
    return f"ALTER TABLE {table.name} EXECUTE optimize(file_size_threshold => {literal(threshold)}){condition}"


def explains(table: TrinoTable, sql: str) -> bool:
    """Whether Trino can plan an optimize: it cannot when its condition is not one on whole partitions.

    One without a condition needs no plan: that the table, the rights and the arguments will do is told before.
    """
    how = "EXPLAIN" if " WHERE " in sql else "EXPLAIN (TYPE VALIDATE)"
    try:
        table.query(f"{how} {sql}")
    except EngineError as error:
        if "WHERE" in error.detail:
            return False
        raise
    return True


def _steps(  # noqa: PLR0917 - the partitions, and which of them
    table: TrinoTable,
    layout: Layout,
    chosen: Sequence[Partition],
    offered: Sequence[Partition],
    everything: Sequence[Partition],
    parameters: CompactionParameters,
    *,
    threshold: str,
) -> list[PlanStep]:
    """A step for each statement, with all that it rewrites: also what Trino cannot name the chosen ones without."""
    every, mixed = threshold == EVERY_FILE, len({one.spec_id for one in everything}) > 1
    taken = [(one, *one.rewritten(every=every, single=mixed)) for one in everything]
    reached = [one for one in taken if one[1] or one[0].deletes]
    wanted, values = _by_field(chosen, layout), _by_field([one for one, *_ in reached], layout)
    found = None
    if not mixed and wanted is not None and values is not None:
        found = scopes(
            layout,
            dict(table.columns(table.embedded)) if layout.fields else {},
            wanted,
            values,
            [size for *_, size in reached],
            most_bytes=parameters.max_group_size_mb * MIB,
            most=int(table.capabilities.session.get("max_partitions_per_writer", 100)),
        )
    nameable = found and explains(table, statement(table, threshold, found[0].where))
    scoped = found if found and nameable else [Scope("", (), tuple(range(len(reached))))]
    if parameters.partition_filter is not None:
        asked = {id(one) for one in offered}
        if not nameable or any(id(reached[member][0]) not in asked for one in scoped for member in one.members):
            raise UnsupportedError(
                "partition_filter: Trino cannot name these partitions alone, by bucket or truncate fields, or by a "
                "spec that has changed",
                hint="The embedded engine can: engine: pyiceberg.",
            )
    if not nameable:
        explains(table, statement(table, threshold, ""))
    return [
        _step(number, scope, [reached[member] for member in scope.members], parameters, threshold=threshold)
        for number, scope in enumerate(scoped, 1)
    ]


def _by_field(partitions: Sequence[Partition], layout: Layout) -> list[tuple[Any, ...]] | None:
    """The values of the current spec's fields; None when they cannot be told for one of the partitions."""
    found = [told for one in partitions if (told := one.by_field(layout)) is not None]
    return found if len(found) == len(partitions) else None


def _step(
    number: int,
    scope: Scope,
    taken: Sequence[tuple[Partition, int, int]],
    parameters: CompactionParameters,
    *,
    threshold: str,
) -> PlanStep:
    """``taken``: partitions, each with the files and bytes of it that are rewritten."""
    target = parameters.target_file_size_mb * MIB
    members = [one for one, *_ in taken]
    bytes_in, files = sum(size for *_, size in taken), sum(some for _, some, _ in taken)
    out = sum(files_out(size, target) for *_, size in taken)
    where = (
        f" of {members[0].text}" if len(members) == 1 and members[0].text else f" of {count(len(members), 'partition')}"
    )
    detail: dict[str, Any] = {
        "partition": members[0].text if len(members) == 1 else "",
        "partitions": [one.text for one in members],
        "fixed": scope.fixed,
        "parts": list(scope.parts),
        "threshold": threshold,
        "files": sorted(path for one in members for path in one.small),
        "files_at_most": files,
        "files_out": out,
        "bytes": bytes_in,
        "rows": sum(one.rows for one in members),
        "delete_files": sum(one.deletes for one in members),
    }
    folded = f"; fold in {count(detail['delete_files'], 'delete file')}" if detail["delete_files"] else ""
    return PlanStep(
        number=number,
        action="rewrite",
        summary=f"Let Trino rewrite {count(files, 'file')}{where} ({size(bytes_in)}) into about {out:,}{folded}.",
        risk=_RISK,
        detail=detail,
    )


def _reason(
    chosen: Sequence[Partition],
    everything: Sequence[Partition],
    steps: Sequence[PlanStep],
    parameters: CompactionParameters,
) -> str:
    files = sum(one.files for one in everything)
    if not chosen:
        return (
            f"nothing to do: no partition has {parameters.min_input_files} files below "
            f"{parameters.target_file_size_mb * 0.75:g} MiB; {files:,} data files in all"
        )
    taken = sum(step.detail["files_at_most"] for step in steps)
    out = sum(step.detail["files_out"] for step in steps)
    return f"{taken:,} of {files:,} files become about {out:,} through Trino, in {count(len(steps), 'statement')}"
