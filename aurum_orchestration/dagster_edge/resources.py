"""What ops and sensors get from the outside: settings, history, and the maintenance service with its backends.

Each wraps an object that connects when first used, so setting one up does nothing. Tear-down at the end
of a run closes connections and may happen twice; the objects connect again when used again. A sensor's
tick leaves them open: what a backend remembers of its last measurement makes the next one cheap.
"""

import dagster as dg

from aurum_orchestration.history import History
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.maintenance.threads import run_sync
from aurum_orchestration.settings import AurumSettings

SERVICE = "aurum_service"
HISTORY = "aurum_history"
SETTINGS = "aurum_settings"


class SettingsResource(dg.ConfigurableResource[AurumSettings]):
    """Where this code location keeps things and finds its fleet."""

    values: dg.ResourceDependency[AurumSettings]

    def get(self) -> AurumSettings:
        """The settings."""
        return self.values


class HistoryResource(dg.ConfigurableResource[History]):
    """The log of all operations, the health series and the leases."""

    store: dg.ResourceDependency[History]

    def get(self) -> History:
        """The history; opened when first used."""
        return self.store

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Close the connections at the end of a run."""
        if context.run is not None:
            self.store.close()


class ServiceResource(dg.ConfigurableResource[MaintenanceService]):
    """The maintenance service with all backends of the fleet."""

    service: dg.ResourceDependency[MaintenanceService]

    def get(self) -> MaintenanceService:
        """The service; each backend connects when first used."""
        return self.service

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Disconnect the backends at the end of a run."""
        if context.run is not None:
            run_sync(self.service.close())


def service_resources(service: MaintenanceService) -> dict[str, object]:
    """The resources of a code location around one service, by the names that ops and sensors ask for."""
    return {
        SERVICE: ServiceResource(service=service),
        HISTORY: HistoryResource(store=service.history),
        SETTINGS: SettingsResource(values=service.settings),
    }
