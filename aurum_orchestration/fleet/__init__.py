"""The fleet: which tables there are and which policies hold for them. Knows no engine and no Dagster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurum_orchestration.lazy import lazy_exports

if TYPE_CHECKING:
    from aurum_orchestration.fleet.fleet import Fleet
    from aurum_orchestration.fleet.load import load_fleet
    from aurum_orchestration.fleet.table_id import TableId

__all__ = ["Fleet", "TableId", "load_fleet"]

__getattr__ = lazy_exports(__name__, {"Fleet": "fleet", "TableId": "table_id", "load_fleet": "load"})
