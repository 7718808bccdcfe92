"""A database with TimescaleDB, and the service on it."""

from __future__ import annotations

import time

from aurum_orchestration.maintenance.backends.timescale.backend import TimescaleMaintenanceBackend
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.integration.postgres.support import Pg

READINGS = "pg.public.readings"
DAYS = 30

HYPERTABLE = f"""
CREATE EXTENSION IF NOT EXISTS timescaledb;
CREATE TABLE readings (at timestamptz NOT NULL, meter int NOT NULL, value float8) WITH (autovacuum_enabled = false);
SELECT create_hypertable('readings', by_range('at', interval '1 day'));
CREATE INDEX readings_meter ON readings (meter, at);
INSERT INTO readings SELECT date_trunc('hour', now(), 'UTC') - g * interval '1 hour', g % 7, g * 0.5
  FROM generate_series(0, {DAYS} * 24 - 1) g
"""
"""Readings of the last 30 days, one an hour, a chunk per day in UTC; nobody but us vacuums them."""

MANY = """
INSERT INTO readings SELECT at + g * interval '30 seconds', g % 7, g FROM readings, generate_series(1, 119) g
"""
"""86,000 rows more."""

COLUMNSTORE = "ALTER TABLE readings SET (timescaledb.enable_columnstore, timescaledb.segmentby = 'meter')"

POLICY = """
INSERT INTO _timescaledb_config.bgw_job (id, application_name, schedule_interval, max_runtime, max_retries,
  retry_period, proc_schema, proc_name, owner, scheduled, fixed_schedule, hypertable_id, config)
SELECT 1001, 'native', '1 day', '1 hour', 1, '1 hour', '_timescaledb_functions', 'policy_retention', 'postgres',
  true, false, id, jsonb_build_object('hypertable_id', id, 'drop_after', '30 days')
  FROM _timescaledb_catalog.hypertable WHERE table_name = 'readings'
"""
"""What add_retention_policy writes on the TSL edition."""


def aggregate(name: str, width: str) -> str:
    """A continuous aggregate of the readings that has nothing yet."""
    return (
        f"CREATE MATERIALIZED VIEW {name} WITH (timescaledb.continuous, timescaledb.materialized_only) AS "
        f"SELECT time_bucket('{width}', at) AS bucket, count(*) AS n, sum(value) FROM readings GROUP BY 1 WITH NO DATA"
    )


class Timescale(Pg):
    """One database of a real server with TimescaleDB; the fleet has it as ``pg``."""

    def backend(self, **config: object) -> TimescaleMaintenanceBackend:
        """A backend of its own; whoever asks for it disconnects it."""
        return TimescaleMaintenanceBackend({"dsn": self.dsn, **config}, name="pg")

    def settings(self, extra: str = "") -> AurumSettings:
        """As for PostgreSQL, of type ``timescale``."""
        settings = super().settings(extra)
        fleet = self.home / "fleet.yaml"
        fleet.write_text(fleet.read_text().replace("type: postgres\n", "type: timescale\n"))
        return settings

    def chunks(self, table: str = "readings") -> list[str]:
        """Names of the chunks, the oldest first."""
        query = f"SELECT chunk_name::text FROM timescaledb_information.chunks WHERE hypertable_name = '{table}'"
        return [row[0] for row in self.sql(f"{query} ORDER BY range_start")]

    def until(self, query: str) -> None:
        """Wait until it is true: the server's own jobs take their time."""
        deadline = time.monotonic() + 60
        while self.sql(query) != [(True,)]:
            assert time.monotonic() < deadline, query
            time.sleep(0.2)

    def relations(self) -> list[tuple[object, ...]]:
        """Everything that maintenance could change: relations with their files, and when they were looked after."""
        return self.sql(
            "SELECT c.oid, c.relname, relfilenode, last_vacuum, last_analyze FROM pg_class c "
            "LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid ORDER BY 1"
        )
