"""What a service stands on: settings, fleet, history and backends, each made when it is first asked for."""

from __future__ import annotations

import threading
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Self

from aurum_orchestration.fleet.notifications import Destination, destinations
from aurum_orchestration.maintenance.connections import Backends
from aurum_orchestration.maintenance.factory import MaintenanceFactory
from aurum_orchestration.maintenance.threads import in_thread

if TYPE_CHECKING:
    from aurum_orchestration.fleet import Fleet
    from aurum_orchestration.history import History
    from aurum_orchestration.settings import AurumSettings


class ConnectedService:
    """Settings and what follows from them. Nothing is read or connected before first use."""

    def __init__(
        self,
        settings: AurumSettings | None = None,
        *,
        fleet: Fleet | None = None,
        history: History | None = None,
        who: str | None = None,
        patience: timedelta = timedelta(seconds=60),
    ) -> None:
        from aurum_orchestration.settings import AurumSettings

        self.settings = settings or AurumSettings.from_env()
        self._fleet, self._history, self._own_history = fleet, history, history is None
        self._patience = patience
        self._who = who
        self._backends: Backends | None = None
        self._making = threading.RLock()

    @property
    def fleet(self) -> Fleet:
        """Backends, policies and rules; read from the fleet file when first asked for."""
        with self._making:
            if self._fleet is None:
                from aurum_orchestration.fleet.load import load_fleet
                from aurum_orchestration.fleet.policy import builtin_policy_models

                models = {**builtin_policy_models(), **MaintenanceFactory.policies()}
                self._fleet = load_fleet(
                    settings=self.settings, policy_models=models, backend_types=MaintenanceFactory.backends()
                )
            return self._fleet

    @property
    def history(self) -> History:
        """Log of operations, leases, health series. Opened by its first use, not before."""
        with self._making:
            if self._history is None:
                from aurum_orchestration.history import History

                self._history = History(self.settings.history_url)
            return self._history

    @property
    def backends(self) -> Backends:
        """The backends of the fleet."""
        with self._making:
            if self._backends is None:
                self._backends = Backends(self.fleet.backends)
            return self._backends

    def _destinations(self) -> list[Destination]:
        return list(destinations(self.fleet.config.notifications))

    async def connect(self) -> None:
        """Connect every backend now. Not needed: each connects when first used."""
        for name in self.backends.names:
            await self.backends.get(name).connect()

    async def disconnect(self) -> None:
        """Disconnect every backend; one that is used again connects again. Idempotent."""
        if self._backends is not None:
            await self._backends.close()

    async def close(self) -> None:
        """Disconnect, and close the history unless it was given. Idempotent."""
        try:
            await self.disconnect()
        finally:
            if self._history is not None and self._own_history:
                await in_thread(self._history.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
