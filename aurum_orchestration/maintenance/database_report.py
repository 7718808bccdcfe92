"""What can be told of a database as a whole: the shapes behind ``MaintenanceUtils`` and ``aurum report``."""

from __future__ import annotations

from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from aurum_orchestration.errors import ProblemDetail
from aurum_orchestration.maintenance.shapes import Shape


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class DatabaseInfo(_Told):
    """Which database it is, and who we are there."""

    database_type: Literal["postgresql", "sqlite"]
    engine: str = Field(description="Product and version, e.g. PostgreSQL 17.2.")
    name: str = Field(description="Name of the database; of SQLite its file.")
    host: str | None = None
    user: str | None = None

    @property
    def is_postgresql(self) -> bool:
        """Whether it is PostgreSQL, with or without TimescaleDB."""
        return self.database_type == "postgresql"

    @property
    def is_sqlite(self) -> bool:
        """Whether it is SQLite."""
        return self.database_type == "sqlite"


class TableSize(_Told):
    """What a table takes on disk."""

    table: str = Field(description="schema.name")
    total_bytes: int
    table_bytes: int = Field(description="With TOAST, without indexes.")
    index_bytes: int
    rows: int | None = Field(default=None, description="As the server estimates them.")


class IndexInfo(_Told):
    """An index and how it is used."""

    index: str
    table: str
    bytes: int | None = None
    scans: int | None = Field(
        default=None, description="Since the server's statistics began; null where it does not count."
    )
    unique: bool
    needed: bool = Field(description="True when a constraint or replication stands on it.")
    valid: bool = True
    definition: str | None = Field(description="null while somebody holds the table exclusively.")


class LongQuery(_Told):
    """A query or transaction that has been open for long."""

    pid: int
    user: str | None
    application: str | None
    state: str | None
    seconds: float
    query: str


class LockWait(_Told):
    """A session that waits for a lock, and those that it waits for."""

    pid: int
    user: str | None
    relation: str | None
    mode: str
    seconds: float
    blocked_by: list[int]
    blockers: list[str] = Field(description="The same sessions in words.")


class Estimate(_Told):
    """How long an operation on the whole database is expected to take."""

    operation: str
    seconds: float
    basis: Literal["history", "bytes"] = Field(
        description="history: its last completed run on each table, added up. bytes: sizes over a usual speed."
    )


class DatabaseReport(_Told):
    """All that is known of one database."""

    backend: str
    info: DatabaseInfo | None = None
    bytes: int = 0
    connections: int = 0
    tables: list[TableSize] = Field(default_factory=list, description="The 20 largest, the largest first.")
    unused_indexes: list[IndexInfo] = Field(default_factory=list)
    invalid_indexes: list[IndexInfo] = Field(default_factory=list)
    long_running_queries: list[LongQuery] = Field(default_factory=list)
    locks: list[LockWait] = Field(default_factory=list)
    estimates: list[Estimate] = Field(default_factory=list)
    problem: ProblemDetail | None = None


class FleetReport(Shape):
    """What ``aurum report`` prints."""

    databases: list[DatabaseReport]


class DatabaseInspector(Protocol):
    """What a backend of a database can be asked. Writes nothing."""

    def info(self) -> DatabaseInfo:
        """Which database it is."""
        ...

    def size(self) -> int:
        """Bytes that it takes."""
        ...

    def table_sizes(self, limit: int | None) -> list[TableSize]:
        """Tables, the largest first."""
        ...

    def indexes(self) -> list[IndexInfo]:
        """All indexes, the largest first."""
        ...

    def connections(self) -> int:
        """Clients connected, us included."""
        ...

    def long_running(self, seconds: float) -> list[LongQuery]:
        """What has been open longer than that, the longest first."""
        ...

    def locks(self) -> list[LockWait]:
        """Who waits for whom."""
        ...
