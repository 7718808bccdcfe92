"""A process that does one operation and is killed (SIGKILL, by itself) at a chosen point of it.

Points: ``write:N``, before the N-th metadata file is written;
``half:N``, in the middle of it; ``commit``, before the catalog is asked; ``committed``, after it answered
(``commit:N`` and ``committed:N`` for the N-th commit);
``record``, before the end is recorded. It exits with 3 when the point was not reached.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io.pyarrow import PyArrowFile, PyArrowFileIO

from aurum_orchestration.history import History
from aurum_orchestration_tests.integration.upkeep.lakeside import Lakeside

PARAMETERS: dict[str, dict[str, Any]] = {
    "backup": {"keep_last": 1},
    "partition_evolution": {"spec": ["bucket(2, id)"], "target_file_size_mb": 1, "max_group_size_mb": 1},
}


def die() -> NoReturn:
    """Be killed as by kill -9: nothing is cleaned up."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


def arm(point: str) -> None:
    """Patch what the point is about."""
    name, _, number = point.partition(":")
    real_output, real_commit = PyArrowFileIO.new_output, SqlCatalog.commit_table
    count = 0

    def new_output(self: PyArrowFileIO, location: str) -> PyArrowFile:
        nonlocal count
        count += 1
        if count == int(number):
            if name == "half":
                Path(location.removeprefix("file://")).write_bytes(b"Obj\1half a file")
            die()
        return real_output(self, location)

    def commit_table(self: SqlCatalog, *arguments: Any) -> Any:
        nonlocal count
        count += 1
        if count < int(number or 1):
            return real_commit(self, *arguments)
        if name == "commit":
            die()
        real_commit(self, *arguments)
        die()

    if name in {"write", "half"}:
        PyArrowFileIO.new_output = new_output  # type: ignore[method-assign]
    elif name == "record":
        setattr(History, "end", lambda *_, **__: die())  # noqa: B010 - a fault, not a method
    else:
        setattr(SqlCatalog, "commit_table", commit_table)  # noqa: B010 - a fault, not a method


def victim(home: str, operation: str, table: str, point: str) -> NoReturn:
    """Do the operation in the lake of that home; die at the point."""
    with Lakeside.at(Path(home)) as lake:
        arm(point)
        if operation.startswith("undo:"):
            lake.undo(operation.removeprefix("undo:"))
        else:
            lake.run(operation, table, **PARAMETERS.get(operation, {}))
    sys.exit(3)
