"""Aurum Orchestration: keeps every table of a data platform healthy, from Dagster and from the shell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aurum_orchestration.lazy import lazy_exports

if TYPE_CHECKING:
    from aurum_orchestration.dagster_edge.component import AurumFleetComponent

__all__ = ["AurumFleetComponent", "__version__"]

__version__ = "0.1.0"

__getattr__ = lazy_exports(__name__, {"AurumFleetComponent": "dagster_edge.component"})


def __dir__() -> list[str]:
    """Names to complete and to register: Dagster finds the component by them."""
    return sorted({*globals(), *__all__})
