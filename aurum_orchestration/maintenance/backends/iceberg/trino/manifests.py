"""Manifests through Trino: ``optimize_manifests``, only where it leaves fewer.

Trino rewrites all data manifests (never those of deletes), at the size of the table's property. Up to 476 it makes
one for each value of the first partition field, at least, so that it can leave more than before; the plan counts
these values, and a table that would have no fewer is left alone. What is there is measured before and after; a call
that won nothing is followed by one more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from aurum_orchestration.errors import (
    BackendUnavailableError,
    CommitStateUnknownError,
    UnsupportedError,
)
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.sizes import (
    ENCRYPTED,
    TARGET_PROPERTY,
    ideal,
    target_of,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.commits import Made
from aurum_orchestration.maintenance.backends.iceberg.trino.history import (
    TableHistory,
    TrinoSnapshot,
    fingerprint,
    read_history,
    refuse_other_table,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.readback import reading_back, wait_until_over
from aurum_orchestration.maintenance.backends.iceberg.trino.refusals import format_refusal
from aurum_orchestration.maintenance.backends.iceberg.trino.rollback import (
    BY_TRINO,
    plan_rollback,
    rollback_execution,
    take_back,
)
from aurum_orchestration.maintenance.backends.iceberg.trino.row_checksum import checksum_of
from aurum_orchestration.maintenance.backends.iceberg.trino.table import LINEAGE, TrinoTable
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    MaintenanceResult,
    OperationType,
    PlanExecution,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.operations.manifests import ManifestsParameters
from aurum_orchestration.maintenance.planner.words import count, size

SINCE = 470
CLUSTERED_SINCE = NULL_PARTITIONS_SINCE = 477
"""What a call does, and not whether there is one, is nothing that can be asked: it goes by the version."""

MOST_CLUSTERS = 100
METHOD = "trino-files-at-snapshots"
MIB = 1024 * 1024

_RISK = "None for readers and writers: no data file changes. A concurrent commit makes Trino begin anew."


@dataclass(frozen=True)
class Manifests:
    """Data manifests at the head of main: sizes in bytes, values of the first partition field, one of them null."""

    sizes: tuple[int, ...]
    values: int = 0
    null: bool = False

    @property
    def bytes(self) -> int:
        """Size of all of them."""
        return sum(self.sizes)

    def expected(self, target: int, version: int) -> int:
        """How many Trino will make of them."""
        least = ideal(self.bytes, target)
        return max(least, min(self.values, MOST_CLUSTERS)) if version < CLUSTERED_SINCE else least


def plan(table: TrinoTable, table_id: TableId, parameters: ManifestsParameters) -> MaintenancePlan:
    """What a call would do. Raises UnsupportedError with the reason when Trino cannot do it, or not as asked."""
    if not table.knows("optimize_manifests"):
        raise UnsupportedError(f"Trino {table.capabilities.version} has no optimize_manifests, {SINCE} has")
    history = read_history(table, clock=False)
    given = int(history.properties.get("format-version", "2"))
    if reason := format_refusal(given, table.capabilities):
        raise UnsupportedError(reason)
    if "encryption.key-id" in history.properties:
        raise UnsupportedError(ENCRYPTED)
    target = target_of(history.properties)
    wanted = target_of(history.properties, parameters.target_manifest_size_mb)
    if wanted != target:
        raise UnsupportedError(
            f"Trino takes the size of manifests from the table alone, {size(target)} here",
            hint=f"Set the table's property {TARGET_PROPERTY} to {wanted}, or use engine: pyiceberg.",
        )
    found = read_manifests(table, history)
    version = table.capabilities.version
    least = found.expected(target, version)
    worth_it = len(found.sizes) > 1 if parameters.everything else len(found.sizes) > least
    if worth_it and found.null and found.bytes > target and version < NULL_PARTITIONS_SINCE:
        raise UnsupportedError(
            f"Trino {version} cannot rewrite manifests of partitions without a value, {NULL_PARTITIONS_SINCE} can; "
            "the embedded engine can too"
        )
    return MaintenancePlan(
        table=str(table_id),
        backend=table_id.backend,
        operation=OperationType.MANIFESTS,
        parameters=parameters.model_dump(),
        reason=_reason(found, target, least, worth_it=worth_it),
        fingerprint=fingerprint(table, history),
        steps=[_step(table, found, target, least)] if worth_it else [],
    )


def execution(plan: MaintenancePlan, table: TrinoTable) -> PlanExecution:
    """The steps of a plan."""
    return _Execution(plan, table)


def undo(table: TrinoTable, result: MaintenanceResult) -> MaintenancePlan:
    """Main back to the snapshot before. Raises UndoRefusedError."""
    return plan_rollback(table, result)


def undo_execution(plan: MaintenancePlan, table: TrinoTable) -> PlanExecution:
    """The move of main."""
    return rollback_execution(plan, table)


def read_manifests(table: TrinoTable, history: TableHistory) -> Manifests:
    """The data manifests at the head of main. Trino does not tell them from those of deletes; the catalog does."""
    rows = table.query(
        "SELECT path, length, cardinality(partition_summaries), element_at(partition_summaries, 1).contains_null "
        f"FROM {table.relation('$manifests')}"
    ).rows
    deletes = delete_manifests(table, [str(path) for path, *_ in rows], history)
    kept = [row for row in rows if row[0] not in deletes]
    values = 0
    if any(fields for _, _, fields, _ in kept):
        counted = "count(DISTINCT partition[1]) + coalesce(max(IF(partition[1] IS NULL, 1, 0)), 0)"
        values = int(table.query(f"SELECT {counted} FROM {table.relation('$files')} WHERE content = 0").first()[0])
    return Manifests(tuple(int(row[1]) for row in kept), values, any(bool(row[3]) for row in kept))


def delete_manifests(table: TrinoTable, paths: Sequence[str], history: TableHistory) -> set[str]:
    """Those of delete files. Without the catalog the last ones, one for each commit known to have added any."""
    head = history.by_id(history.head)
    if head is None or head.summary.get("total-delete-files", "0") == "0":
        return set()
    if table.embedded is None:
        commits = sum(one.summary.get("added-delete-files", "0") != "0" for one in history.snapshots)
        return set(paths[-commits:]) if commits else set()
    from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.plan import head_of
    from aurum_orchestration.maintenance.backends.iceberg.publish import reload

    return {one.manifest_path for one in head_of(reload(table.embedded))[1] if int(one.content)}


def _step(table: TrinoTable, found: Manifests, target: int, least: int) -> PlanStep:
    return PlanStep(
        number=1,
        action="optimize-manifests",
        summary=f"Rewrite {len(found.sizes):,} manifests ({size(found.bytes)}) into about {least:,} by Trino.",
        risk=_RISK,
        detail={
            "sql": f"ALTER TABLE {table.name} EXECUTE optimize_manifests",
            "files": len(found.sizes),
            "files_out": least,
            "bytes": found.bytes,
            "target_bytes": target,
        },
    )


def _reason(found: Manifests, target: int, least: int, *, worth_it: bool) -> str:
    if worth_it:
        return f"{len(found.sizes):,} manifests become about {least:,}"
    if not found.sizes:
        return "nothing to do: the table has no manifest"
    told = f"nothing to do: {count(len(found.sizes), 'manifest')}, and no fewer at {target / MIB:g} MiB each"
    if ideal(found.bytes, target) < len(found.sizes):
        told += f", as this Trino makes one for each of {count(found.values, 'value')} of the first partition field"
    return told


class _Execution:
    workers = 1

    def __init__(self, plan: MaintenancePlan, table: TrinoTable) -> None:
        self.plan, self.table = plan, table

    def units(self) -> Iterator[Unit]:
        """One unit. Raises StateDriftedError when the table is another one by now."""
        refuse_other_table(self.table, read_history(self.table, clock=False), self.plan)
        for step in self.plan.steps:
            yield _ManifestsUnit(step, self.table)


class _ManifestsUnit(Unit):
    """Up to two calls, compared with the files and rows before; taken back when there are more manifests, or others."""

    verify_first = False
    fenced = True

    def __init__(self, step: PlanStep, table: TrinoTable) -> None:
        super().__init__(step)
        self._table = table
        self._before: TableHistory | None = None
        self._made: list[int] = []

    def stage(self, run: RunContext) -> None:  # noqa: ARG002 - the base's signature
        """See where main stands."""
        self._before = read_history(self._table, clock=False)

    def commit(self, run: RunContext) -> UnitOutcome:
        """Call, and once more when there are not fewer."""
        before = self._before or read_history(self._table, clock=False)
        start = read_manifests(self._table, before)
        metrics: dict[str, float] = {}
        warnings: list[str] = []
        now: Manifests | None = None
        for _ in range(2):
            try:
                summary = self._call(run, warnings)
                _add(metrics, summary)
                now = read_manifests(self._table, read_history(self._table, clock=False))
            except BackendUnavailableError as error:
                if not self._made:
                    raise
                # what was made is checked next, and taken back where nobody can look at it
                warnings.append(f"the manifests could not be counted afterwards: {error.detail}")
                break
            if len(now.sizes) < len(start.sizes) or not summary:
                break
        if now is not None:
            metrics["manifest_bytes_rewritten"], metrics["manifest_bytes_added"] = start.bytes, now.bytes
        if now is not None and len(now.sizes) >= len(start.sizes):
            warnings.append(
                f"{count(len(now.sizes), 'manifest')} after, {len(start.sizes):,} before: Trino makes some for each "
                "partition; the embedded engine makes as few as fit"
            )
        return UnitOutcome(
            metrics=metrics,
            undo=f"aurum undo {run.operation_id}: main goes back to snapshot {before.head}, "
            "while that is not expired and nobody else has committed since",
            undo_data={**BY_TRINO, "rollback_to": before.head, "snapshots": list(self._made)},
            warnings=warnings,
        )

    def verify(self, run: RunContext) -> Verification | None:  # noqa: ARG002 - the base's signature
        """The same files with the same rows before and after, as each of the snapshots lists them."""
        known = {one.snapshot_id: one for one in read_history(self._table, clock=False).snapshots}
        parts, has_ids = [], self._table.has_lineage()
        for made in (known[id_] for id_ in self._made):
            if made.parent_snapshot_id is not None:
                lineage = has_ids
                rows_before, before, with_id = self._files_at(made.parent_snapshot_id, lineage=lineage)
                if lineage and with_id < rows_before:  # as in a table that was upgraded and not written to since
                    lineage = False
                    rows_before, before, _ = self._files_at(made.parent_snapshot_id, lineage=False)
                rows_after, after, _ = self._files_at(made.snapshot_id, lineage=lineage)
                parts.append(
                    Verification(
                        method=METHOD, rows_before=rows_before, rows_after=rows_after, checksum_equal=before == after
                    )
                )
        return Verification.combine(parts)

    def take_back(self, run: RunContext) -> None:
        """Main back to where it stood, while nobody else has committed."""
        history = read_history(self._table, clock=False)
        made = [made_of(one) for one in history.snapshots if one.snapshot_id in self._made]
        if made:
            take_back(self._table, run, made)

    def discard(self) -> None:
        """Nothing was staged."""

    def _call(self, run: RunContext, warnings: list[str]) -> dict[str, str]:
        """One call; the summary of the snapshot that it made, empty when it made none."""
        known = {one.snapshot_id for one in read_history(self._table, clock=False).snapshots}
        sql = self.step.detail["sql"]
        lost: CommitStateUnknownError | None = None
        try:
            query_id = self._table.change(sql, run, operation=OperationType.MANIFESTS).query_id
        except CommitStateUnknownError as error:
            wait_until_over(self._table, sql, error)
            lost, query_id = error, error.query_id or ""
        with reading_back(query_id):
            new = [one for one in read_history(self._table, clock=False).snapshots if one.snapshot_id not in known]
        made = made_by(query_id, new)
        if len(made) > 1:
            told = ", ".join(str(one.snapshot_id) for one in made)
            warnings.append(
                f"others rewrote manifests at the same moment, and Trino does not tell which is ours: {told}"
            )
            return {}
        if lost is not None:
            if not made:
                raise BackendUnavailableError(f"{lost.detail}; read back: nothing was rewritten") from lost
            warnings.append(f"read back, since the connection broke: the manifests are rewritten ({lost.detail})")
        self._made += [one.snapshot_id for one in made]
        return dict(made[-1].summary) if made else {}

    def _files_at(self, snapshot_id: int, *, lineage: bool) -> tuple[int, Any, int]:
        """Rows, a sum over the file and the id that each has, and how many have an id: no column is read."""
        told = checksum_of([("$path", "varchar"), *LINEAGE]) if lineage else 'checksum("$path")'
        ids = 'count("$row_id")' if lineage else "0"
        rows, total, with_id = self._table.query(
            f"SELECT count(*), {told}, {ids} FROM {self._table.at(snapshot_id)}"
        ).first()
        return int(rows), total, int(with_id)


def _add(metrics: dict[str, float], summary: dict[str, str]) -> None:
    names = {
        "manifests_rewritten": "manifests-replaced",
        "manifests_added": "manifests-created",
        "entries": "entries-processed",
    }
    for name, told in names.items():
        metrics[name] = metrics.get(name, 0.0) + int(summary.get(told, 0))


def made_by(query_id: str, new: Sequence[TrinoSnapshot]) -> list[TrinoSnapshot]:
    """Which of new snapshots a statement may have made: one by its id, or those of a Trino that tells none (476)."""
    rewrites = [
        one
        for one in new
        if one.operation == "replace"
        and "manifests-created" in one.summary
        and one.summary.get("engine-name", "trino") == "trino"
    ]
    sure = [one for one in rewrites if one.query_id and one.query_id == query_id]
    return sure or [one for one in rewrites if not one.query_id]


def made_of(snapshot: TrinoSnapshot) -> Made:
    """A snapshot of ours, for taking it back. It has a parent: there was something to rewrite."""
    return Made(snapshot.snapshot_id, snapshot.parent_snapshot_id or 0, snapshot.summary)
