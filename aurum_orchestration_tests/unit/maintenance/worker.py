"""A process that compacts ``disk.ns.events``: ``python -m ...worker FOLDER TTL_SECONDS [HOLD]``.

With HOLD it stops in the stage of the second step, makes the file FOLDER/reached, and waits for FOLDER/go.
Prints the result as JSON.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

from aurum_orchestration.history import History
from aurum_orchestration.maintenance.executor import MaintenanceExecutor
from aurum_orchestration.maintenance.interfaces import MaintenanceConfig, RunContext
from aurum_orchestration.maintenance.operations.compaction import CompactionOperation
from aurum_orchestration.maintenance.threads import run_sync
from aurum_orchestration_tests.unit.maintenance.files import FilesBackend


def main(folder: Path, ttl: float, hold: bool) -> None:
    backend = FilesBackend({"root": str(folder / "root")}, name="disk")

    def wait(number: int, run: RunContext) -> None:
        if number != 2:
            return
        (folder / "reached").touch()
        while not (folder / "go").exists():
            run.check()
            time.sleep(0.01)

    if hold:
        backend.hooks["stage"] = wait
    executor = MaintenanceExecutor(History(f"sqlite:///{folder / 'history.db'}"), lease_ttl=timedelta(seconds=ttl))
    config = MaintenanceConfig(
        operation_type="compaction", target_table="disk.ns.events", parameters={"max_concurrent_groups": 1}
    )
    print(run_sync(executor.execute(backend, CompactionOperation(), config)).model_dump_json())


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), len(sys.argv) > 3)
