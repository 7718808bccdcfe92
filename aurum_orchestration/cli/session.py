"""One invocation of a command: its settings, its service, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from aurum_orchestration.cli.options import OutputFormat
from aurum_orchestration.cli.output import print_text, stderr_console
from aurum_orchestration.cli.render.problems import ProblemPanel
from aurum_orchestration.errors import (
    AlreadyRegisteredError,
    AurumError,
    ConfigurationError,
    MissingExtraError,
    RequestError,
    UnknownNameError,
    UnsupportedError,
    as_aurum_error,
)
from aurum_orchestration.observability import configure_logging

if TYPE_CHECKING:
    from aurum_orchestration.cli.activity import Activity
    from aurum_orchestration.maintenance.service import MaintenanceService

T = TypeVar("T")
FAILED, USAGE, INTERRUPTED = 1, 2, 130
_USAGE_ERRORS = (
    AlreadyRegisteredError,
    ConfigurationError,
    MissingExtraError,
    RequestError,
    UnknownNameError,
    UnsupportedError,
)
_log = logging.getLogger(__name__)


class Session:
    """Runs a command's work on a service and turns what goes wrong into a problem on stderr and an exit code.

    ``fleet`` is the fleet file when one was named, ``verbose`` how often ``-v`` was.
    """

    def __init__(self, output: OutputFormat, fleet: Path | None, verbose: int) -> None:
        self.output = output
        self.verbose = verbose
        self._fleet = fleet

    @property
    def json(self) -> bool:
        """True when results are printed as JSON."""
        return self.output is OutputFormat.JSON

    def call(self, work: Callable[[MaintenanceService], Awaitable[T]], activity: Activity | None = None) -> T:
        """The result of ``work`` on a service that is closed afterwards. Leaves the command on any error.

        ``activity`` shows on the terminal that something goes on, and is gone before anything is printed.
        """
        try:
            with activity or contextlib.nullcontext():
                return asyncio.run(self._with_service(work))
        except Exception as error:
            known = as_aurum_error(error)
            if known is not error:
                _log.error("unexpected error", exc_info=error)
            self.explain(known)
            raise typer.Exit(USAGE if isinstance(known, _USAGE_ERRORS) else FAILED) from error

    async def _with_service(self, work: Callable[[MaintenanceService], Awaitable[T]]) -> T:
        from aurum_orchestration.maintenance.service import create_maintenance_service
        from aurum_orchestration.settings import AurumSettings

        settings = AurumSettings.from_env()
        if self._fleet:
            settings = settings.model_copy(update={"fleet": self._fleet.expanduser().absolute()})
        with contextlib.suppress(ValueError, NotImplementedError):  # not in the main thread, or no such signals
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
        configure_logging({0: settings.log_level, 1: "INFO"}.get(self.verbose, "DEBUG"))
        async with create_maintenance_service(settings) as service:
            return await work(service)

    def explain(self, error: AurumError) -> None:
        """Say on stderr what went wrong: a panel, or with JSON output one line of JSON."""
        problem = error.problem()
        if self.json:
            sys.stderr.write(problem.model_dump_json() + "\n")
        else:
            print_text(stderr_console(), ProblemPanel(problem))
