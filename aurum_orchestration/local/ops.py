"""The demo's operations database: flights in PostgreSQL, each written when it is planned and changed as it flies."""

from __future__ import annotations

import io
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.local import nyc2013
from aurum_orchestration.local.engines import background, postgres

BACKEND, SCHEMA, NAME = "ops", "ops", "flights"
TABLE = TableId(BACKEND, (SCHEMA, NAME))
MOST_DAYS = 90
"""So many days are written at most: every flight of them three times."""

_COLUMNS = ("time_hour", "carrier", "flight", "tailnum", "origin", "dest", "dep_delay", "arr_delay")
_MAKE = """
CREATE SCHEMA ops;
CREATE TABLE ops.flights (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, time_hour timestamptz NOT NULL, carrier text NOT NULL,
    flight int NOT NULL, tailnum text, origin text, dest text, dep_delay int, arr_delay int,
    status text NOT NULL DEFAULT 'planned'
) WITH (autovacuum_enabled = false);
COMMENT ON TABLE ops.flights IS 'Every departure, written when it was planned and changed when it left and landed.';
CREATE INDEX flights_time ON ops.flights (time_hour);
CREATE INDEX flights_plane ON ops.flights (tailnum);
CREATE INDEX flights_status ON ops.flights (status, time_hour)
"""
_FLY = (
    "UPDATE ops.flights SET status = 'departed' WHERE dep_delay IS NOT NULL",
    "UPDATE ops.flights SET status = 'landed' WHERE status = 'departed' AND arr_delay IS NOT NULL",
    "DELETE FROM ops.flights WHERE status = 'planned'",
)
_CONTENTS = "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0)::text FROM ops.flights t"


@dataclass(frozen=True, slots=True)
class Ops:
    """A running operations database."""

    dsn: str

    def fill(self, days: int) -> None:
        """Make the table, write the flights of some days, and let them fly. Nobody vacuums meanwhile."""
        import pyarrow.compute as pc
        import pyarrow.csv

        rows = nyc2013.load("flights").select(list(_COLUMNS))
        end = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=min(days, MOST_DAYS))
        text = io.BytesIO()
        pyarrow.csv.write_csv(rows.filter(pc.less(rows["time_hour"], end)), text)
        with self._connect() as connection:
            connection.execute(_MAKE)
            copy = f"COPY ops.flights ({', '.join(_COLUMNS)}) FROM STDIN (FORMAT csv, HEADER)"
            with connection.cursor() as cursor, cursor.copy(copy) as target:
                target.write(text.getvalue())
        for statement in (*_FLY, "ANALYZE ops.flights"):
            with self._connect() as connection:  # a session tells what it did when it ends
                connection.execute(statement)

    def contents(self) -> tuple[int, str]:
        """Rows of the table, and a checksum of them."""
        with self._connect() as connection:
            [(rows, checksum)] = connection.execute(_CONTENTS).fetchall()
        return int(rows), str(checksum)

    def _connect(self) -> Any:
        import psycopg

        return psycopg.connect(self.dsn, autocommit=True)


def described(fleet: dict[str, Any], port: int) -> dict[str, Any]:
    """A fleet file with this database as one more backend. It loads while the database is down, too."""
    ops = {
        "type": "postgres",
        "dsn": "${AURUM_DEMO_PG:-" + postgres.url(port).replace("+psycopg", "") + "}",
        "discover": [f"{SCHEMA}.*"],
        "connect_timeout": 2,
    }
    own = {"match": str(TABLE), "policy": {"reindex": {"min_bloat_mb": 0}}}
    return {
        **fleet,
        "backends": {**fleet["backends"], BACKEND: ops},
        "tables": [*fleet.get("tables", []), own],
    }


@contextmanager
def running(folder: Path) -> Iterator[tuple[Ops, int]]:
    """The database in a folder, started, and ended at the end; and its port. Raises ProvisioningError."""
    folder.mkdir(parents=True, exist_ok=True)
    if postgres.closed_above(folder) is None:
        with _running(folder) as made:
            yield made
        return
    # nothing of it is needed afterwards
    with tempfile.TemporaryDirectory(prefix="aurum-ops-") as elsewhere, _running(Path(elsewhere)) as made:
        yield made


@contextmanager
def _running(folder: Path) -> Iterator[tuple[Ops, int]]:
    binaries = postgres.made(folder) or postgres.make(folder)
    port = background.port_for(background.read(folder, BACKEND))
    command = postgres.command(binaries, folder, port, "shared_buffers=64MB", "fsync=off")
    server = background.start(
        folder, BACKEND, command, port, lambda: postgres.answers(port), cwd=folder, identity=postgres.identity()
    )
    try:
        yield Ops(postgres.url(port).replace("+psycopg", "")), port
    finally:
        server.stop(signal.SIGINT)  # disconnects everybody
