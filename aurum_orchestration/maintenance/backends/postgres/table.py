"""What the handlers of operations get: one table, or the database as a whole, with everything needed to work on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import sql

from aurum_orchestration.errors import LockTimeoutError, StateDriftedError, TableNotFoundError, UnsupportedError
from aurum_orchestration.fleet.fleet import DATABASE
from aurum_orchestration.fleet.postgres import PostgresBackendConfig
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.postgres.advisory import reserved
from aurum_orchestration.maintenance.backends.postgres.connection import Session, Sessions
from aurum_orchestration.maintenance.backends.postgres.horizon import lockers_question, read_lockers
from aurum_orchestration.maintenance.backends.postgres.server import ServerFacts
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, PlanStep, RunContext

TableKind = Literal["table", "partitioned", "matview", "hypertable"]


@dataclass(frozen=True)
class Database:
    """The database itself, the target of database-wide operations. Base of :class:`PgTable`."""

    id: TableId
    sessions: Sessions
    server: ServerFacts

    @property
    def kind(self) -> str:
        """``database``, or the table's kind."""
        return DATABASE

    @property
    def oid(self) -> int:
        """What the advisory lock and the fingerprint go by."""
        return self.server.database_oid

    @property
    def config(self) -> PostgresBackendConfig:
        """The backend's configuration, with its rule groups."""
        return self.sessions.config

    def look(self, operation: str = "plan", run: RunContext | None = None) -> Any:
        """A session for statements that only look: ``with table.look() as session``."""
        return self.sessions.look(operation, run)

    @contextmanager
    def work(self, operation: str, run: RunContext, **settings: str) -> Iterator[Session]:
        """A session for the work of a run, with server settings, which holds the table's advisory lock.

        Raises LeaseHeldError naming who has it, UnsupportedError where the server takes no writes.
        """
        self.server.refuse_writes(operation)
        try:
            with self.sessions.work(operation, run, **settings) as session, reserved(session, self.oid, str(self.id)):
                yield session
        except LockTimeoutError as error:
            raise self.naming(error) from error

    def naming(self, error: LockTimeoutError) -> LockTimeoutError:
        """The same error with who has the lock, where that is known."""
        return error

    def plan(
        self,
        operation: str,
        parameters: dict[str, Any],
        reason: str,
        steps: list[PlanStep],
        warnings: list[str] | None = None,
        **fingerprint: Any,
    ) -> MaintenancePlan:
        """A plan for this target. It is refused once the name stands for another table."""
        return MaintenancePlan(
            table=str(self.id),
            backend=self.id.backend,
            operation=operation,
            parameters=parameters,
            reason=reason,
            fingerprint={"database": self.server.database, "oid": self.oid, **fingerprint},
            steps=steps,
            warnings=warnings or [],
        )

    def require_planned(self, plan: MaintenancePlan) -> None:
        """Raise StateDriftedError when the plan was made for another table of the name."""
        if plan.fingerprint.get("oid") != self.oid or plan.fingerprint.get("database") != self.server.database:
            raise StateDriftedError(f"{self.id} was dropped and made anew since the plan", table=str(self.id))


@dataclass(frozen=True)
class PgTable(Database):
    """A table, partitioned table, materialized view or hypertable, as pg_class has it."""

    relation: Relation

    @property
    def kind(self) -> TableKind:
        """What kind of table it is."""
        return self.relation.kind

    @property
    def oid(self) -> int:
        """Its oid."""
        return self.relation.oid

    def naming(self, error: LockTimeoutError) -> LockTimeoutError:
        """The same error with who has a lock on the table or a partition of it now, unless it says so already."""
        if "pid " in error.detail:
            return error
        with self.look() as session:
            parts = [row[0] for row in session.tuples(_PARTS, (self.oid, self.oid))]
            there = [str(one) for one in read_lockers(session.tuples(*lockers_question(*parts))) if one.granted]
        told = f"{error.detail}; it is locked by {'; '.join(there)}" if there else error.detail
        return LockTimeoutError(told, table=str(self.id), hint=error.hint)

    @property
    def identifier(self) -> sql.Identifier:
        """Its name, for psycopg.sql."""
        return sql.Identifier(self.relation.schema, self.relation.name)

    @property
    def only(self) -> sql.Composable:
        """Its name for VACUUM and ANALYZE, without the tables that inherit from it; of a hypertable with its chunks."""
        return self.identifier if self.kind == "hypertable" else only(self.server, self.identifier)


@dataclass(frozen=True, slots=True)
class Relation:
    """A row of pg_class. ``maintainable``: whether the role may vacuum, analyze and reindex it."""

    oid: int
    schema: str
    name: str
    kind: TableKind
    filenode: int
    owner: str
    maintainable: bool


_RELATION = """
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, c.relkind::text AS relkind,
       c.relfilenode::bigint AS filenode, pg_get_userbyid(c.relowner)::text AS owner,
       pg_has_role(current_user, c.relowner, 'USAGE') OR {maintain} AS maintainable
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'm') AND c.relpersistence <> 't'
"""
_PARTS = "SELECT %s::oid::bigint UNION SELECT inhrelid::bigint FROM pg_inherits WHERE inhparent = %s::oid"
"""Without pg_partition_tree, which waits for locks itself."""
_TAKES_CHILDREN = 18
KINDS: dict[str, TableKind] = {"r": "table", "p": "partitioned", "m": "matview"}
"""relkind -> kind."""


def load(id: TableId, sessions: Sessions, server: ServerFacts) -> Database:
    """The target that an id means. Raises TableNotFoundError."""
    if len(id.parts) == 1:
        if id.name != server.database:
            raise TableNotFoundError(
                f"the backend's database is {server.database!r}, not {id.name!r}",
                table=str(id),
                hint=f"Write {id.backend}.{server.database}, or {id.backend}.schema.{id.name} for a table.",
            )
        return Database(id, sessions, server)
    with sessions.look("plan") as session:
        found = _found(session, id, server) if len(id.parts) == 2 else None
        hyper = found is not None and is_hypertable(session, server, found.schema, found.name)
    if found is None:
        raise TableNotFoundError(f"no table {'.'.join(id.parts)} in database {server.database}", table=str(id))
    kind: TableKind = "hypertable" if hyper else KINDS[found.relkind]
    relation = Relation(found.oid, found.schema, found.name, kind, found.filenode, found.owner, found.maintainable)
    return PgTable(id, sessions, server, relation)


def only(server: ServerFacts, name: sql.Identifier) -> sql.Composed:
    """A table for VACUUM and ANALYZE of it alone: from PostgreSQL 18 on these take what inherits from it, too."""
    return sql.SQL("ONLY {}" if server.major >= _TAKES_CHILDREN else "{}").format(name)


def _found(session: Session, id: TableId, server: ServerFacts) -> Any:
    maintain = "has_table_privilege(c.oid, 'MAINTAIN')" if server.major >= 17 else "%s"
    query = sql.SQL(_RELATION).format(maintain=sql.SQL(maintain))
    superuser = () if server.major >= 17 else (server.superuser,)
    return session.row(query, (*superuser, id.parts[0], id.parts[1]), again=True)


def is_hypertable(session: Session, server: ServerFacts, schema: str, name: str) -> bool:
    """Whether TimescaleDB splits the table into chunks."""
    if "timescaledb" not in server.extensions:
        return False
    query = "SELECT 1 FROM timescaledb_information.hypertables WHERE hypertable_schema = %s AND hypertable_name = %s"
    return session.row(query, (schema, name)) is not None


def table_of(target: Database, operation: str) -> PgTable:
    """The target when it is a table. Raises UnsupportedError for the database."""
    if isinstance(target, PgTable):
        return target
    raise UnsupportedError(f"{operation} goes table by table, not over the database at once", operation=operation)


def database_of(target: Database, operation: str) -> Database:
    """The target when it is the database. Raises UnsupportedError for a table, naming the database's id."""
    if not isinstance(target, PgTable):
        return target
    raise UnsupportedError(
        f"{operation} runs on the database as a whole: {target.id.backend}.{target.server.database}",
        operation=operation,
    )
