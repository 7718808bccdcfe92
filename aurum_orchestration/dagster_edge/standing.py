"""The fleet that a code location stands on: its file, or while that is broken, the last one that was right.

Dagster loads definitions anew at each reload and in each run. Without this, a fleet file with a mistake
would stop every schedule, sensor and queued run until somebody repairs it. Whoever asks whether the
file is right (``dagster definitions validate``, ``dg check defs``) is told that it is not.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from aurum_orchestration.errors import ConfigurationError
from aurum_orchestration.maintenance.service import MaintenanceService
from aurum_orchestration.settings import AurumSettings

_log = logging.getLogger(__name__)

_VALIDATION = "DAGSTER_IS_DEFS_VALIDATION_CLI"
"""Dagster sets it to 1 while it validates definitions, in a code server of its own too."""


def standing_service(
    settings: AurumSettings | None, patience: timedelta
) -> tuple[MaintenanceService, ConfigurationError | None]:
    """A service whose fleet is read, and what is wrong with its file when the fleet is the last right one.

    What was right is kept in AURUM_HOME, once that exists. Raises ConfigurationError when nothing was kept,
    and while Dagster validates.
    """
    service = MaintenanceService(settings, patience=patience)
    kept = _kept(service.settings)
    try:
        service.fleet  # noqa: B018 - reading the file is the point
    except ConfigurationError as error:
        if os.environ.get(_VALIDATION) == "1" or not kept.exists():
            raise
        before = MaintenanceService(service.settings.model_copy(update={"fleet": kept}), patience=patience)
        with suppress(ConfigurationError):
            before.fleet  # noqa: B018
            _log.error("the fleet file is broken, the last right one goes on (%s): %s", kept, error)
            return before, error
        raise
    with suppress(OSError):  # a home that cannot be written is no reason not to load
        _keep(service.settings.fleet, kept)
    return service, None


def _kept(settings: AurumSettings) -> Path:
    return settings.home / "fleet" / f"{hashlib.sha256(str(settings.fleet).encode()).hexdigest()[:16]}.yaml"


def _keep(file: Path, kept: Path) -> None:
    """Copy the file unless the copy is the same, readable by nobody else: somebody may write secrets in there."""
    if not kept.parent.parent.exists() or not file.exists():
        return
    content = file.read_bytes()
    if kept.exists() and kept.read_bytes() == content:
        return
    kept.parent.mkdir(exist_ok=True)
    draft = kept.with_suffix(f".{uuid.uuid4().hex}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
    draft.replace(kept)
