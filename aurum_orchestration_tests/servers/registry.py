"""The engines that can be provisioned, by name."""

from __future__ import annotations

from aurum_orchestration.local.engines import trino
from aurum_orchestration.local.engines.cache import Engine
from aurum_orchestration_tests.servers import minio, postgres_matrix, rest, spark, timescale, trino_logins

ENGINES: dict[str, Engine] = {
    module.ENGINE.name: module.ENGINE
    for module in (minio, postgres_matrix, rest, spark, timescale, trino, trino_logins)
}
