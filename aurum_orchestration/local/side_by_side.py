"""Both engines on the same tables from the same start: the embedded one compacts and is taken back, then Trino does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pyiceberg.catalog import Catalog
from rich.console import RenderableType
from rich.text import Text

from aurum_orchestration.cli.render.words import count, size
from aurum_orchestration.errors import InternalError, VerificationError
from aurum_orchestration.fleet.load import load_fleet
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.local import show
from aurum_orchestration.local.lake import NAMESPACE, RECIPES
from aurum_orchestration.local.proof import Contents, contents
from aurum_orchestration.local.stack import BACKEND
from aurum_orchestration.maintenance.interfaces import MaintenanceResult, MaintenanceStatus, OperationType
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.maintenance.threads import run_sync
from aurum_orchestration.settings import AurumSettings

TABLES = [name for name, recipe in RECIPES.items() if recipe.stream is not None]
"""The tables of the demo that are sick."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """What one engine made of one table, and in how many seconds: plan, proof and record are in them."""

    table: str
    engine: str
    seconds: float
    before: Contents
    after: Contents

    @property
    def kept(self) -> bool:
        """True when no row was lost, added or changed."""
        return self.before.same_rows(self.after)


def by_embedded(catalog: Catalog, fleet: Path, home: Path) -> Iterator[Compaction]:
    """Compact each of the tables by the embedded engine, look, and take it back. Its history is in ``home``.

    Raises InternalError when it failed, VerificationError when the table is not as it was afterwards.
    """
    home.mkdir(exist_ok=True)
    settings = AurumSettings(home=home, fleet=fleet, history_url=f"sqlite:///{home / 'history.db'}")
    service = MaintenanceService(settings, fleet=load_fleet(fleet, settings))
    try:
        for name in TABLES:
            before = contents(catalog, name)
            table = str(TableId(BACKEND, (NAMESPACE, name)))
            done = _completed(run_sync(service.execute_maintenance(BACKEND, OperationType.COMPACTION, table)))
            yield Compaction(table, "embedded", done.seconds, before, contents(catalog, name))
            _completed(run_sync(service.undo(done.operation_id)))
            if contents(catalog, name) != before:
                raise VerificationError(f"{table} is not as it was before the embedded engine compacted it")
    finally:
        run_sync(service.close())


def _completed(result: MaintenanceResult) -> MaintenanceResult:
    if result.status != MaintenanceStatus.COMPLETED:
        told = result.problem.detail if result.problem is not None else result.reason
        raise InternalError(f"{result.config.operation_type} of {result.config.target_table} {result.status}: {told}")
    return result


def table_of(compactions: Sequence[Compaction]) -> RenderableType:
    """The engines' figures, table by table."""
    table = show.columns("TABLE", "ENGINE", "SECONDS", "FILES", "SIZE", "ROWS", "SAME ROWS")
    for one in sorted(compactions, key=lambda one: one.table):
        table.add_row(
            one.table,
            one.engine,
            f"{one.seconds:.1f}",
            show.change(count(one.before.files), count(one.after.files)),
            show.change(size(one.before.bytes), size(one.after.bytes)),
            count(one.after.rows),
            Text("yes", style="green") if one.kept else Text("NO", style="bold red"),
        )
    return table
