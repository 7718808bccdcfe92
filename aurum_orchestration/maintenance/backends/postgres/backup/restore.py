"""The proof of a backup: restored into a database of its own beside the real one, and its rows counted."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from aurum_orchestration.maintenance.backends.postgres.backup.tools import Caller, Tools
from aurum_orchestration.maintenance.backends.postgres.connection import Session
from aurum_orchestration.maintenance.backends.postgres.errors import typed_errors
from aurum_orchestration.maintenance.backends.postgres.table import Database

_TABLES = """
SELECT n.nspname::text AS schema, c.relname::text AS name
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1, 2
"""
_EXTENSION = (
    "SELECT n.nspname::text FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE extname = %s"
)
_WITH_TIMESCALE = sql.SQL("CREATE SCHEMA IF NOT EXISTS {0}; CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA {0}")
_TIMESCALE = sql.SQL("SELECT {}()")
"""A restore happens between two calls of TimescaleDB's, without which its catalog is filled twice."""

_NEWER_SETTING = 'unrecognized configuration parameter "transaction_timeout"'
"""What programs from version 17 on set first, and older servers do not know; nothing depends on it."""


def count_rows(session: Session) -> dict[str, int]:
    """Rows of every table that holds any by itself, as the session sees it."""
    return {
        sql.Identifier(row.schema, row.name).as_string(None): session.value(
            sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(row.schema, row.name))
        )
        for row in session.rows(_TABLES)
    }


def prefix(database: Database) -> str:
    """How the names of scratch databases of this one begin."""
    return f"aurum_scratch_{database.oid}_"


def drop_leftovers(session: Session, database: Database) -> int:
    """Drop the scratch databases that killed runs left; how many. The session holds the database's advisory lock."""
    names = [
        row[0]
        for row in session.tuples(
            "SELECT datname::text FROM pg_database WHERE starts_with(datname::text, %s)", (prefix(database),)
        )
    ]
    for name in names:
        session.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
    return len(names)


def restored(
    session: Session, database: Database, caller: Caller, tools: Tools, dump: Path, *, plain: bool, jobs: int
) -> dict[str, int]:
    """Rows by table after restoring a dump into a scratch database, which is dropped again.

    Raises AccessDeniedError where the role may not create one, EngineError for what cannot be restored.
    """
    with _scratch(session, database) as name:
        conninfo = make_conninfo(database.config.conninfo(), dbname=name)
        with typed_errors(caller.run), psycopg.connect(conninfo, **database.sessions.options) as connection:
            schema = session.value(_EXTENSION, ("timescaledb",))
            if schema is not None:
                connection.execute(_WITH_TIMESCALE.format(sql.Identifier(schema)))
                connection.execute(_TIMESCALE.format(sql.Identifier(schema, "timescaledb_pre_restore")))
        target = caller.database(name)
        if plain:
            caller.call([tools["psql"], "-X", "-q", "-w", "-f", str(dump), "-d", target], forgive=_NEWER_SETTING)
        else:
            command = [tools["pg_restore"], "--no-owner", "--no-privileges", "-w", "-d", target]
            # the tables of TimescaleDB's catalog refer to each other: in any order but the dump's rows are refused
            command += [] if schema is not None else ["-j", str(jobs)]
            caller.call([*command, str(dump)], forgive=_NEWER_SETTING)
        with typed_errors(caller.run), psycopg.connect(conninfo, **database.sessions.options) as connection:
            if schema is not None:
                connection.execute(_TIMESCALE.format(sql.Identifier(schema, "timescaledb_post_restore")))
            return count_rows(Session(connection, caller.run, connection.info.backend_pid))


@contextmanager
def _scratch(session: Session, database: Database) -> Iterator[str]:
    name = f"{prefix(database)}{uuid.uuid4().hex[:12]}"
    session.execute(_create(session, name))
    try:
        yield name
    finally:
        # a cancelled run must clear up as well, and is refused everything by its session
        with typed_errors():
            session.connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _create(session: Session, name: str) -> sql.Composed:
    """With the encoding and the collation of the database."""
    like = session.value("SELECT to_jsonb(d) FROM pg_database d WHERE datname = current_database()")
    locale = like.get("datlocale") or like.get("daticulocale")
    options: list[sql.Composable] = [
        sql.SQL("ENCODING {}").format(
            sql.Literal(session.value("SELECT pg_encoding_to_char(%s)", (like["encoding"],)))
        ),
        sql.SQL("LC_COLLATE {}").format(sql.Literal(like["datcollate"])),
        sql.SQL("LC_CTYPE {}").format(sql.Literal(like["datctype"])),
    ]
    if like.get("datlocprovider") == "i":
        options.append(sql.SQL("LOCALE_PROVIDER icu ICU_LOCALE {}").format(sql.Literal(locale)))
    elif like.get("datlocprovider") == "b":
        options.append(sql.SQL("LOCALE_PROVIDER builtin BUILTIN_LOCALE {}").format(sql.Literal(locale)))
    return sql.SQL("CREATE DATABASE {} TEMPLATE template0 {}").format(sql.Identifier(name), sql.SQL(" ").join(options))
