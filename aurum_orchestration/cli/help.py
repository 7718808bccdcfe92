"""Help that ends with every operation there is, those of users' own packages too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typer.core import TyperCommand, TyperGroup

from aurum_orchestration.errors import AurumError


def operation_titles() -> Mapping[str, str]:
    """Every known operation by name, with its title."""
    from aurum_orchestration.maintenance.factory import MaintenanceFactory

    return {name: cls.title for name, cls in sorted(MaintenanceFactory.operations().items())}


def _write_operations(formatter: Any) -> None:
    try:
        titles = operation_titles()
    except AurumError as error:
        titles = {"?": error.detail}
    with formatter.section("Operations"):
        formatter.write_dl(list(titles.items()))


class OperationsGroup(TyperGroup):
    """A group of commands whose help lists the operations."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the operations, then the usual end."""
        _write_operations(formatter)
        super().format_epilog(ctx, formatter)


class OperationsCommand(TyperCommand):
    """A command with ``--operation``, whose help lists the choices."""

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the operations, then the usual end."""
        _write_operations(formatter)
        super().format_epilog(ctx, formatter)
