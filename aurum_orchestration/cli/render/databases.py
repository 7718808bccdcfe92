"""``aurum report`` as a person reads it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.text import Text

from aurum_orchestration.cli.render import words
from aurum_orchestration.cli.render.problems import problem_panels
from aurum_orchestration.cli.render.records import Column, Records
from aurum_orchestration.maintenance.database_report import DatabaseReport, FleetReport, IndexInfo

_SIZES = (
    Column("TABLE"),
    Column("TOTAL", number=True),
    Column("INDEXES", number=True),
    Column("ROWS", number=True),
    Column(""),
)
_INDEXES = (Column("INDEX"), Column("SIZE", number=True), Column("TABLE"))


def render_databases(report: FleetReport) -> RenderableType:
    """A heading per database, its numbers and tables below."""
    if not report.databases:
        return Text("The fleet has no database: no backend of type postgres, timescale or sqlite.")
    return Group(*(part for one in report.databases for part in (*_database(one), Text())))


def _database(one: DatabaseReport) -> Iterator[RenderableType]:
    if one.info is None:
        yield Text(words.safe(one.backend), style="bold")
        yield from problem_panels([one])
        return
    where = f" at {one.info.host}" if one.info.host else ""
    yield Text.assemble(
        (words.safe(one.backend), "bold"), f": {words.safe(f'{one.info.name}{where}, {one.info.engine}')}"
    )
    user = f" as {one.info.user}" if one.info.user else ""
    connections = "1 connection" if one.connections == 1 else f"{one.connections:,} connections"
    yield Text(words.safe(f"  {words.size(one.bytes)}, {connections}{user}"))
    if one.tables:
        rows = [
            (
                Text(words.safe(table.table)),
                Text(words.size(table.total_bytes)),
                Text(words.size(table.index_bytes)),
                Text(words.count(table.rows)),
                Text(),
            )
            for table in one.tables
        ]
        yield from _section("Largest tables", Records(_SIZES, rows))
    yield from _indexes("Unused indexes (no query since statistics began; look at replicas, too)", one.unused_indexes)
    yield from _indexes("Invalid indexes", one.invalid_indexes)
    queries = [
        f"pid {query.pid} ({query.user}, {query.state}) for {words.duration(query.seconds)}: {query.query}"
        for query in one.long_running_queries
    ]
    yield from _lines("Long-running", queries)
    waits = [
        f"pid {wait.pid} waits {words.duration(wait.seconds)} for {wait.relation or wait.mode}, behind "
        f"{'; '.join(wait.blockers) or 'nobody that can be seen'}"
        for wait in one.locks
    ]
    yield from _lines("Locks waited for", waits)
    estimates = [f"{each.operation} {words.duration(each.seconds)} (by {each.basis})" for each in one.estimates]
    yield from _lines("Maintenance would take", [", ".join(estimates)] if estimates else [])


def _indexes(title: str, indexes: Sequence[IndexInfo]) -> Iterator[RenderableType]:
    if indexes:
        rows = [
            (Text(words.safe(one.index)), Text(words.size(one.bytes)), Text(words.safe(one.table))) for one in indexes
        ]
        yield from _section(title, Records(_INDEXES, rows))


def _lines(title: str, lines: Sequence[str]) -> Iterator[RenderableType]:
    if lines:
        yield from _section(title, Text("\n".join(words.safe(" ".join(line.split())) for line in lines)))


def _section(title: str, body: RenderableType) -> Iterator[RenderableType]:
    yield Text(f"  {title}", style="bold")
    yield Padding(body, (0, 0, 0, 4))
