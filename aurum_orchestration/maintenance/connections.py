"""The backends of a fleet: made when first used, found by name or type, closed together."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aurum_orchestration.errors import RequestError, UnknownNameError, nearest
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.base import BaseMaintenanceBackend
from aurum_orchestration.maintenance.factory import MaintenanceFactory

if TYPE_CHECKING:
    from aurum_orchestration.fleet.config import BackendConfig


class Backends:
    """Backends by name. Nothing is made, let alone connected, before it is asked for."""

    def __init__(self, configs: Mapping[str, BackendConfig]) -> None:
        self._configs = configs
        self._made: dict[str, BaseMaintenanceBackend] = {}
        self._guard = threading.Lock()
        self._gates: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Semaphore]] = (
            weakref.WeakKeyDictionary()
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all backends of the fleet, in its order."""
        return tuple(self._configs)

    def get(self, name: str) -> BaseMaintenanceBackend:
        """The backend of that name. Raises UnknownNameError, also for an unknown type, and MissingExtraError."""
        with self._guard:
            if name not in self._made:
                config = self._configs.get(name)
                if config is None:
                    raise UnknownNameError(f"no backend is named {name!r}", hint=nearest(name, self._configs))
                self._made[name] = MaintenanceFactory.create_backend(config.type, config.connection, name=name)
            return self._made[name]

    def find(self, backend_type: str | None, table: str) -> BaseMaintenanceBackend:
        """The backend a request means: by name, then by unique type; neither given, by the table id's first part."""
        if backend_type is None:
            first = TableId.parse(table).backend
            if first not in self._configs:
                raise UnknownNameError(f"{table!r}: no backend is named {first!r}", hint=nearest(first, self._configs))
            return self.get(first)
        if backend_type in self._configs:
            return self.get(backend_type)
        named = [name for name, config in self._configs.items() if config.type == backend_type]
        if len(named) > 1:
            raise RequestError(
                f"several backends have the type {backend_type!r}: {', '.join(named)}", hint="Give the backend's name."
            )
        if not named:
            known = {*self._configs, *(config.type for config in self._configs.values())}
            raise UnknownNameError(
                f"no backend has the name or type {backend_type!r}", hint=nearest(backend_type, known)
            )
        return self.get(named[0])

    def gate(self, name: str) -> asyncio.Semaphore:
        """What bounds how many operations run at once on a backend, in the running event loop."""
        gates = self._gates.setdefault(asyncio.get_running_loop(), {})
        if name not in gates:
            gates[name] = asyncio.Semaphore(self._configs[name].max_parallel)
        return gates[name]

    async def close(self) -> None:
        """Disconnect every backend made so far; the first failure is raised after all were tried."""
        with self._guard:
            made, self._made = list(self._made.values()), {}
        outcomes = await asyncio.gather(*(backend.disconnect() for backend in made), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome
