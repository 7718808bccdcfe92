"""Databases with every kind of table in the conformance suite: PostgreSQL, TimescaleDB and SQLite, each a real one.

Each database has all kinds at once, worn out (rows deleted and changed since they were written), and a log whose rows
are past their age, which only the operations on rule groups may take away.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
import yaml
from psycopg import sql

from aurum_orchestration_tests.servers.postgres_matrix import RELEASES, SETTLES_AFTER

LOG = "old_log"
YOUNG = 3
"""The log, and how many of its rows are too young to go."""

_EVERYWHERE = {
    "plain": "CREATE TABLE plain (id bigint PRIMARY KEY, t text, at timestamp);"
    "INSERT INTO plain SELECT id, t, at FROM numbers; CREATE INDEX plain_t ON plain (t)",
    "no primary key": "CREATE TABLE no_key (id bigint, t text); INSERT INTO no_key SELECT id % 7, t FROM numbers",
    "empty": "CREATE TABLE hollow (id bigint PRIMARY KEY)",
    "names to be quoted": 'CREATE TABLE "Temp ""x"".; --" ("a b" bigint PRIMARY KEY, "select" text);'
    'INSERT INTO "Temp ""x"".; --" SELECT id, t FROM numbers;'
    'CREATE INDEX "odd "" name" ON "Temp ""x"".; --" ("select")',
    "generated columns": "CREATE TABLE made (id bigint PRIMARY KEY, twice bigint GENERATED ALWAYS AS (id * 2) STORED);"
    "INSERT INTO made (id) SELECT id FROM numbers; CREATE INDEX made_twice ON made (twice)",
    "foreign keys": "CREATE TABLE parent (id bigint PRIMARY KEY); INSERT INTO parent SELECT id FROM numbers;"
    "CREATE TABLE child (id bigint PRIMARY KEY, parent bigint REFERENCES parent ON DELETE CASCADE);"
    "INSERT INTO child SELECT id, id FROM numbers; UPDATE child SET parent = 1 WHERE id < 50",
    "huge rows": "CREATE TABLE huge (id bigint PRIMARY KEY, body text)",
    "churn": "DELETE FROM plain WHERE id % 3 = 0; UPDATE plain SET t = 'changed' WHERE id % 5 = 0;"
    "DELETE FROM no_key WHERE id = 3;"
    'DELETE FROM "Temp ""x"".; --" WHERE "a b" % 2 = 0; DELETE FROM made WHERE id % 2 = 0',
}
_POSTGRES = {
    "numbers": "CREATE VIEW numbers AS SELECT g AS id, 'text-' || g % 40 AS t,"
    " timestamp '2026-01-01' + g * interval '1 hour' AS at FROM generate_series(1, 2000) g",
    **_EVERYWHERE,
    "huge rows": "CREATE TABLE huge (id bigint PRIMARY KEY, body text);"
    "INSERT INTO huge SELECT g, (SELECT string_agg(md5((g * 1000 + n)::text), '') FROM generate_series(1, 1000) n)"
    " FROM generate_series(1, 20) g; DELETE FROM huge WHERE id % 2 = 0",
    "partitioned": "CREATE TABLE days (d date NOT NULL, id bigint, PRIMARY KEY (d, id)) PARTITION BY RANGE (d);"
    "CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');"
    "CREATE TABLE days_2 PARTITION OF days FOR VALUES FROM ('2026-02-01') TO ('2026-04-01');"
    "INSERT INTO days SELECT at::date, id FROM numbers; DELETE FROM days WHERE id % 2 = 0",
    "default partition": "CREATE TABLE hubs (hub text, id bigint) PARTITION BY LIST (hub);"
    "CREATE TABLE hubs_1 PARTITION OF hubs FOR VALUES IN ('text-1'); CREATE TABLE hubs_other PARTITION OF hubs DEFAULT;"
    "INSERT INTO hubs SELECT t, id FROM numbers; DELETE FROM hubs WHERE id % 2 = 0",
    "inheritance": "CREATE TABLE mother (id bigint PRIMARY KEY); CREATE TABLE daughter () INHERITS (mother);"
    "INSERT INTO mother SELECT id FROM numbers WHERE id < 500; INSERT INTO daughter SELECT id FROM numbers;"
    "DELETE FROM mother WHERE id % 2 = 0",
    "unlogged": "CREATE UNLOGGED TABLE fleeting (id bigint PRIMARY KEY); INSERT INTO fleeting SELECT id FROM numbers;"
    "DELETE FROM fleeting WHERE id % 2 = 0",
    "materialized view": "CREATE MATERIALIZED VIEW sums AS SELECT t, count(*) AS n FROM plain GROUP BY t;"
    "CREATE UNIQUE INDEX sums_t ON sums (t)",
    "materialized view without a key": "CREATE MATERIALIZED VIEW total AS SELECT sum(n) AS n FROM sums",
    "log": f"CREATE TABLE {LOG} (id bigint PRIMARY KEY, at timestamptz);"
    f"INSERT INTO {LOG} SELECT id, now() - interval '2000 days' FROM numbers;"
    f"INSERT INTO {LOG} SELECT -g, now() FROM generate_series(1, {YOUNG}) g",
}
_QUIET = """
DO $$ DECLARE one regclass; BEGIN
  FOR one IN SELECT oid FROM pg_class WHERE relkind IN ('r', 'm') AND relnamespace = 'public'::regnamespace
  LOOP EXECUTE format('ALTER TABLE %s SET (autovacuum_enabled = false)', one); END LOOP;
END $$
"""
_HYPERTABLE = """
CREATE TABLE ticks (at timestamptz NOT NULL, price float8);
SELECT create_hypertable('ticks', 'at', chunk_time_interval => interval '20 days');
INSERT INTO ticks SELECT at, id FROM numbers;
DELETE FROM ticks WHERE price::int % 2 = 0
"""
_COLUMNSTORE = """
CREATE TABLE stored (at timestamptz NOT NULL, price float8);
SELECT create_hypertable('stored', 'at', chunk_time_interval => interval '20 days');
INSERT INTO stored SELECT at, id FROM numbers;
ALTER TABLE stored SET (timescaledb.enable_columnstore);
CREATE MATERIALIZED VIEW dailies WITH (timescaledb.continuous) AS
  SELECT time_bucket('1 day', at) AS day, count(*) FROM stored GROUP BY 1 WITH NO DATA;
SELECT compress_chunk(chunk) FROM show_chunks('stored', older_than => '2026-02-10'::timestamptz) chunk;
UPDATE stored SET price = price + 1 WHERE price::int % 5 = 0
"""
"""On the TSL edition: some chunks are in the columnstore, some rows of them are not any more."""
_SQLITE = {
    "numbers": "CREATE VIEW numbers AS "
    "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 2000)"
    " SELECT id, 'text-' || id % 40 AS t, datetime('2026-01-01', id || ' hours') AS at FROM n",
    **_EVERYWHERE,
    "huge rows": "CREATE TABLE huge (id bigint PRIMARY KEY, body blob);"
    "INSERT INTO huge SELECT id, randomblob(30000) FROM numbers WHERE id < 20; DELETE FROM huge WHERE id % 2 = 0",
    "without rowid": "CREATE TABLE bare (id text PRIMARY KEY) WITHOUT ROWID;"
    "INSERT INTO bare SELECT id || t FROM numbers",
    "log": f"CREATE TABLE {LOG} (id bigint PRIMARY KEY, at text);"
    f"INSERT INTO {LOG} SELECT id, datetime('now', '-2000 days') FROM numbers;"
    f"INSERT INTO {LOG} SELECT -id, datetime('now') FROM numbers WHERE id <= {YOUNG}",
}
_RELATIONS = """
SELECT n.nspname, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname = 'public' ORDER BY 1, 2
"""
_COUNTERS = """
SELECT c.oid, c.relname, c.relfilenode, c.relpages, c.reltuples, c.relfrozenxid::text,
       pg_stat_get_vacuum_count(c.oid), pg_stat_get_analyze_count(c.oid),
       (SELECT array_agg((i.indexrelid, i.indisvalid)::text) FROM pg_index i WHERE i.indrelid = c.oid)
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1
"""


@dataclass(frozen=True)
class Database:
    """A database with all kinds of tables: ``fleet`` names it ``db``, ``targets`` are ids of the tables and its own.

    ``rows`` gives a digest of each table's rows, ``state`` all that a dry run might change besides.
    """

    fleet: str
    targets: list[str]
    rows: Callable[[], Mapping[str, Any]]
    state: Callable[[], Any]
    young: Callable[[], int]
    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def _fleet(home: Path, backend: dict[str, Any], table: str, *, expires: str) -> str:
    groups = {
        name: [{"title": name, "table": table, "time_column": expires, "age_days": 365}] for name in ("cleanup", "logs")
    }
    sessions = {"sessions": [{"title": "sessions", "table": table, "time_column": expires, "age_days": 365}]}
    policy = {"backup": {"path": str(home / "backups")}}
    return yaml.safe_dump({"version": 1, "backends": {"db": {**backend, **groups, **sessions}}, "policy": policy})


@contextmanager
def postgres(request: pytest.FixtureRequest) -> Iterator[Database]:
    with _on_server(request, request.getfixturevalue("postgres_url"), "postgres") as made:
        yield made


def of_version(major: int) -> Callable[[pytest.FixtureRequest], AbstractContextManager[Database]]:
    """The same on a server of one of the supported versions."""

    @contextmanager
    def made(request: pytest.FixtureRequest) -> Iterator[Database]:
        with _on_server(request, request.getfixturevalue("postgres_matrix")(major), "postgres") as database:
            if major < 15:
                time.sleep(SETTLES_AFTER)
            yield database

    return made


@contextmanager
def timescale(request: pytest.FixtureRequest) -> Iterator[Database]:
    """With a hypertable besides, and where the server has the TSL edition one that has a columnstore."""
    with _on_server(request, request.getfixturevalue("timescale"), "timescale", _HYPERTABLE) as made:
        yield made


@contextmanager
def _on_server(request: pytest.FixtureRequest, url: str, kind: str, more: str = "") -> Iterator[Database]:
    server, name = url.replace("+psycopg", ""), f"conform_{uuid.uuid4().hex[:12]}"
    dsn = psycopg.conninfo.make_conninfo(server, dbname=name)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            with psycopg.connect(dsn, autocommit=True) as own:
                if kind == "timescale":
                    own.execute("CREATE EXTENSION IF NOT EXISTS timescaledb")
                for statements in _POSTGRES.values():
                    own.execute(statements)
                if more and own.execute("SHOW timescaledb.license").fetchone() == ("timescale",):
                    more = f"{more};{_COLUMNSTORE}"
                for statement in filter(str.strip, more.split(";")):
                    own.execute(statement)
                own.execute(_QUIET)
                own.execute("ANALYZE")
                found = own.execute(_RELATIONS).fetchall()

            def ask(query: Any) -> list[tuple[Any, ...]]:
                with psycopg.connect(dsn, autocommit=True) as look:
                    return look.execute(query).fetchall()

            def digest(schema: str, table: str) -> tuple[Any, ...]:
                query = "SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {} t"
                return ask(sql.SQL(query).format(sql.Identifier(schema, table)))[0]

            home: Path = request.getfixturevalue("tmp_path")
            yield Database(
                _fleet(home, {"type": kind, "dsn": dsn}, f"public.{LOG}", expires="at"),
                [_id(*row[:2]) for row in found] + [f"db.{name}"],
                lambda: {row[1]: digest(*row[:2]) for row in found if row[1] != LOG},
                lambda: [
                    ask(_COUNTERS),
                    ask("SELECT datname FROM pg_database WHERE datname LIKE '%conform%'"),
                    digest("public", LOG),
                ],
                lambda: int(ask(f"SELECT count(*) FROM {LOG} WHERE id < 0")[0][0]),
            )
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def sqlite(request: pytest.FixtureRequest) -> Iterator[Database]:
    home: Path = request.getfixturevalue("tmp_path")
    path = home / "conform.db"
    with closing(sqlite3.connect(path)) as own:
        for statements in _SQLITE.values():
            own.executescript(statements)
        names = [
            row[0]
            for row in own.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
        ]

    def ask(query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path)) as look:
            return look.execute(query).fetchall()

    def rows(table: str) -> list[tuple[Any, ...]]:
        quoted = table.replace('"', '""')
        return sorted(ask(f'SELECT * FROM "{quoted}"'), key=repr)

    yield Database(
        _fleet(home, {"type": "sqlite", "path": str(path)}, f"main.{LOG}", expires="at"),
        [_id("main", name) for name in names] + ["db.main"],
        lambda: {name: rows(name) for name in names if name != LOG},
        path.read_bytes,
        lambda: len([row for row in rows(LOG) if row[0] < 0]),
    )


def _id(schema: str, table: str) -> str:
    from aurum_orchestration.fleet.table_id import TableId

    return str(TableId("db", (schema, table)))


DATABASES: dict[str, Callable[[pytest.FixtureRequest], AbstractContextManager[Database]]] = {
    "postgres": postgres,
    "timescale": timescale,
    "sqlite": sqlite,
    **{f"postgres{major}": of_version(major) for major in RELEASES},
}
