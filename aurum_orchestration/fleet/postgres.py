"""The keys of a PostgreSQL or TimescaleDB backend in fleet.yaml."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from aurum_orchestration.fleet.config import BackendConfig
from aurum_orchestration.fleet.rule_groups import RuleGroups


class PostgresBackendConfig(BackendConfig, RuleGroups):
    """One database of a PostgreSQL server.

    What is left out, libpq's own variables and files (PGHOST, ~/.pgpass) say.
    """

    model_config = ConfigDict(extra="forbid")

    type: Literal["postgres", "timescale"] = Field(description="Kind of backend.")
    dsn: str | None = Field(
        default=None, repr=False, description="Connection string or URL: postgresql://user@host/db. Holds secrets."
    )
    host: str | None = Field(default=None, description="Host name, or folder of the Unix socket.")
    port: int | None = Field(default=None, ge=1, le=65535, description="Port; default 5432.")
    dbname: str | None = Field(default=None, description="Name of the database.")
    user: str | None = Field(default=None, description="Role to log in as.")
    password: str | None = Field(default=None, repr=False, description="Password, from the environment.")
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] | None = Field(
        default=None, description="Whether the connection is encrypted and the server's certificate checked."
    )
    sslrootcert: str | None = Field(default=None, description="File with the certificates that are trusted.")
    sslcert: str | None = Field(default=None, description="File with the client's certificate.")
    sslkey: str | None = Field(default=None, description="File with the client's key.")
    target_session_attrs: Literal["any", "read-write", "primary", "prefer-standby", "standby", "read-only"] | None = (
        Field(default=None, description="Which of several hosts is taken, as in libpq; primary for maintenance.")
    )
    connect_timeout: int = Field(default=10, ge=1, le=600, description="Seconds a connection may take.")
    pool_size: int = Field(default=8, ge=2, le=100, description="Connections at most, of one process.")
    lock_timeout: float = Field(
        default=2, gt=0, le=60, description="Seconds that a statement waits for a lock; then it is tried again later."
    )
    statement_timeout: float = Field(
        default=60, gt=0, description="Seconds that a statement which only looks may take."
    )
    work_timeout: float = Field(
        default=6 * 3600, gt=0, description="Seconds that one VACUUM, REINDEX, batch or other piece of work may take."
    )

    @model_validator(mode="after")
    def _one_way_to_connect(self) -> Self:
        named = [key for key in ("host", "port", "dbname", "user") if getattr(self, key) is not None]
        if self.dsn is not None and named:
            raise ValueError(f"dsn says where to: take out {', '.join(named)}")
        return self

    def conninfo(self) -> str:
        """The connection string for libpq. Holds secrets. Raises ConfigurationError when dsn is none."""
        import psycopg
        from psycopg.conninfo import make_conninfo

        from aurum_orchestration.errors import ConfigurationError

        keys = {
            "host": self.host,
            "port": self.port,
            "dbname": self.dbname,
            "user": self.user,
            "password": self.password,
            "sslmode": self.sslmode,
            "sslrootcert": self.sslrootcert,
            "sslcert": self.sslcert,
            "sslkey": self.sslkey,
            "target_session_attrs": self.target_session_attrs,
            "connect_timeout": self.connect_timeout,
        }
        # SQLAlchemy's way to name the driver is no part of libpq's
        dsn = (self.dsn or "").replace("postgresql+psycopg://", "postgresql://", 1)
        try:
            return make_conninfo(dsn, **{key: value for key, value in keys.items() if value is not None})
        except psycopg.ProgrammingError as error:
            raise ConfigurationError(
                "dsn is no connection string", hint="Write postgresql://user@host:5432/database."
            ) from error
