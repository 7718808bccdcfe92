"""What a run did and why, as markdown for its page in the UI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import dagster as dg

from aurum_orchestration.dagster_edge.chart import Bar, chart
from aurum_orchestration.errors import AurumError, ProblemDetail
from aurum_orchestration.maintenance.interfaces import Decision, MaintenanceResult, MaintenanceStatus, TableHealth

MOST_ROWS = 300
"""Rows of a table in a run's metadata at most: an event is read whole each time its run is shown."""

MOST_LINES = 20
"""Lines of a log message at most."""

BAD = frozenset({MaintenanceStatus.FAILED, MaintenanceStatus.CANCELLED})

_ORDER = [
    MaintenanceStatus.FAILED,
    MaintenanceStatus.CANCELLED,
    MaintenanceStatus.COMPLETED,
    MaintenanceStatus.PLANNED,
    MaintenanceStatus.SKIPPED,
]


def run_metadata(results: Sequence[MaintenanceResult], notes: Sequence[str] = ()) -> dict[str, dg.MetadataValue]:
    """Metadata of a run that carried out operations: the table of them, and its sums as numbers."""
    counts = Counter(result.status for result in results)
    metadata: dict[str, dg.MetadataValue] = {"report": dg.MetadataValue.md(operations_report(results, notes))}
    picture = chart(_bars(results), "Files before and after")
    if picture:
        metadata["picture"] = dg.MetadataValue.md(picture)
    metadata.update({f"tables_{status}": dg.MetadataValue.int(counts[status]) for status in _ORDER if counts[status]})
    rewritten, added = _total(results, "files_rewritten"), _total(results, "files_added")
    if rewritten:
        metadata["files_rewritten"] = dg.MetadataValue.int(rewritten)
        metadata["files_added"] = dg.MetadataValue.int(added)
    verified = sum(result.verification.rows_after for result in results if result.verification)
    if verified:
        metadata["rows_verified"] = dg.MetadataValue.int(verified)
    return metadata


def operations_log(results: Sequence[MaintenanceResult]) -> str:
    """The same for a log: the summary and a line for each of the first tables."""
    named = _namer(results)
    told = [f"{named(result)} {result.status}: {_why(result)}" for result in _worst_first(results)]
    more = [f"and {len(told) - MOST_LINES:,} more"] if len(told) > MOST_LINES else []
    return "\n".join([_summary(results), *told[:MOST_LINES], *more])


def operations_report(results: Sequence[MaintenanceResult], notes: Sequence[str] = ()) -> str:
    """One line per table, what went wrong first: status, why, files before and after, rows verified, seconds."""
    ordered = _worst_first(results)
    several = _several(results)
    rows = [_operation_row(result, several=several) for result in ordered[:MOST_ROWS]]
    head = ["table", *(["operation"] if several else []), "status", "what and why", "files", "rows verified", "seconds"]
    return _document(_summary(results), notes, head, rows, len(ordered))


def health_report(measured: Sequence[tuple[TableHealth, float, Sequence[Decision]]], notes: Sequence[str] = ()) -> str:
    """One line per table, the largest debt first: debt, what it needs and why."""
    ordered = sorted(measured, key=lambda item: (item[0].problem is None, -item[1], str(item[0].table)))
    rows = [_health_row(health, debt, decisions) for health, debt, decisions in ordered[:MOST_ROWS]]
    needy = sum(1 for _, _, decisions in measured if any(decision.act for decision in decisions))
    broken = sum(1 for health, _, _ in measured if health.problem)
    summary = f"{_tables(len(measured))} measured, {needy} in need"
    summary += f", **{broken} could not be measured**" if broken else ""
    return _document(summary, notes, ["table", "debt", "needs", "why"], rows, len(ordered))


def failure_text(results: Sequence[MaintenanceResult]) -> str:
    """One sentence that names every table that went wrong, with the cause of each."""
    bad = [result for result in results if result.status in BAD]
    name = _namer(results)
    named = "; ".join(f"{name(result)}: {_why(result)}" for result in bad[:20])
    more = f"; and {len(bad) - 20} more" if len(bad) > 20 else ""
    return f"{len(bad)} of {_things(results)} went wrong, the others are done. {named}{more}"


def _bars(results: Sequence[MaintenanceResult]) -> list[Bar]:
    """Of each table whose files were rewritten, how many there were of them before and after, over all operations."""
    bars: dict[str, Bar] = {}
    for result in results:
        name, before = result.config.target_table, result.metrics.get("files_rewritten", 0.0)
        if before and result.status not in {MaintenanceStatus.PLANNED, MaintenanceStatus.SKIPPED}:
            known = bars.get(name, Bar(name, 0, 0))
            bars[name] = Bar(name, known.before + before, known.after + result.metrics.get("files_added", 0.0))
    return list(bars.values())


def _worst_first(results: Sequence[MaintenanceResult]) -> list[MaintenanceResult]:
    return sorted(results, key=lambda one: (_rank(one.status), one.config.target_table, str(one.config.operation_type)))


def told(problem: ProblemDetail | AurumError) -> str:
    """What happened and what to do, in one line."""
    text = problem.detail or problem.title
    return f"{text.rstrip('.')}. {problem.hint}" if problem.hint else text


def _several(results: Sequence[MaintenanceResult]) -> bool:
    """Whether the results are of several operations, so that a table's id does not say which."""
    return len({str(result.config.operation_type) for result in results}) > 1


def _namer(results: Sequence[MaintenanceResult]) -> Callable[[MaintenanceResult], str]:
    if _several(results):
        return lambda result: f"{result.config.target_table} {result.config.operation_type}"
    return lambda result: result.config.target_table


def _things(results: Sequence[MaintenanceResult]) -> str:
    if not _several(results):
        return _tables(len(results))
    return f"{len(results):,} operations on {_tables(len({result.config.target_table for result in results}))}"


def _operation_row(result: MaintenanceResult, *, several: bool) -> list[str]:
    before, after = result.metrics.get("files_rewritten"), result.metrics.get("files_added")
    files = f"{before:,.0f} → {after or 0:,.0f}" if before else ""
    if result.status is MaintenanceStatus.PLANNED and result.steps:
        files = f"{len(result.steps)} steps planned"
    verification = result.verification
    rows = "" if verification is None else f"{verification.rows_after:,}" + ("" if verification.ok else " **differ**")
    status = f"**{result.status}**" if result.status in BAD else str(result.status)
    operation = [str(result.config.operation_type)] if several else []
    return [result.config.target_table, *operation, status, _why(result), files, rows, f"{result.seconds:,.1f}"]


def _health_row(health: TableHealth, debt: float, decisions: Sequence[Decision]) -> list[str]:
    if health.problem is not None:
        return [str(health.table), "", "**not measured**", told(health.problem)]
    first = decisions[0] if decisions else None
    needs = first.operation if first and first.act else "nothing"
    return [str(health.table), f"{debt:.1f}", needs, first.reason if first else ""]


def _why(result: MaintenanceResult) -> str:
    if result.problem is not None:
        return told(result.problem)
    return "; ".join([result.reason, *result.warnings])


def _summary(results: Sequence[MaintenanceResult]) -> str:
    counts = Counter(result.status for result in results)
    parts = [f"{counts[status]} {status}" for status in _ORDER if counts[status]]
    return f"{_things(results)}: {', '.join(parts)}" if parts else "No table to work on"


def _document(summary: str, notes: Sequence[str], head: list[str], rows: list[list[str]], total: int) -> str:
    lines = [summary, ""]
    lines += [f"- {_cell(note)}" for note in notes] + ([""] if notes else [])
    if rows:
        lines += [_line(head), _line(["---"] * len(head)), *(_line([_cell(cell) for cell in row]) for row in rows)]
    if total > len(rows):
        lines += ["", f"… and {total - len(rows):,} more tables: `aurum history` and `aurum status` show them all."]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "&#124;").replace("<", "&lt;").split())


def _tables(count: int) -> str:
    return "1 table" if count == 1 else f"{count:,} tables"


def _total(results: Sequence[MaintenanceResult], name: str) -> int:
    return int(sum(result.metrics.get(name, 0.0) for result in results))


def _rank(status: MaintenanceStatus) -> int:
    return _ORDER.index(status) if status in _ORDER else len(_ORDER)
