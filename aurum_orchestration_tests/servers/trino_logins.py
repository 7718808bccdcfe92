"""Trino's plugin for passwords, from the same archive as its server: what the Iceberg connector does without."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

from aurum_orchestration.local.engines import maven
from aurum_orchestration.local.engines.cache import Engine, Tell
from aurum_orchestration.local.engines.trino import SERVER, VERSION

PLUGIN = "password-authenticators"


def _make(folder: Path, tell: Tell) -> None:
    tell(f"Maven fetches the server of Trino {VERSION} (194 MB), unless it has it still")
    archive = maven.fetch(SERVER[0], folder, sha256=SERVER[1], tell=tell)
    draft = folder / "draft"
    with tarfile.open(archive) as packed:  # all of it: jars are links to each other
        packed.extractall(draft, filter="data")
    archive.unlink()
    (draft / f"trino-server-core-{VERSION}" / "plugin" / PLUGIN).rename(folder / PLUGIN)
    shutil.rmtree(draft)


ENGINE = Engine("trino-logins", f"passwords of Trino {VERSION}", VERSION, "half a minute with Maven", _make)
