"""The keys of an Iceberg backend that say how Trino is reached."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Auth(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BasicAuth(_Auth):
    """User name and password."""

    kind: Literal["basic"]
    user: str | None = Field(default=None, description="Who logs in; default: the backend's `user`.")
    password: str = Field(min_length=1, repr=False, description="Password, from the environment.")


class JwtAuth(_Auth):
    """A JSON web token."""

    kind: Literal["jwt"]
    token: str | None = Field(default=None, min_length=1, repr=False, description="The token, from the environment.")
    token_file: Path | None = Field(
        default=None, description="File that holds it, read for every statement, so that it may be renewed."
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.token is None) == (self.token_file is None):
            raise ValueError("give either token or token_file")
        return self


class OAuth2Auth(_Auth):
    """A login in a browser; the address to open is in the log. For people at a terminal, not for services."""

    kind: Literal["oauth2"]


class KerberosAuth(_Auth):
    """A Kerberos ticket. Needs the package requests-kerberos."""

    kind: Literal["kerberos"]
    config: Path | None = Field(default=None, description="The krb5.conf to use.")
    service_name: str | None = Field(default=None, description="Name of the coordinator's service.")
    principal: str | None = Field(default=None, description="Who logs in; default: the ticket's.")
    hostname_override: str | None = Field(default=None, description="Host name in the service's principal.")
    delegate: bool = Field(default=False, description="Hand the ticket on to the coordinator.")


class CertificateAuth(_Auth):
    """A client certificate."""

    kind: Literal["certificate"]
    certificate: Path = Field(description="PEM file of the certificate.")
    key: Path = Field(description="PEM file of its key.")


TrinoAuth = Annotated[BasicAuth | JwtAuth | OAuth2Auth | KerberosAuth | CertificateAuth, Field(discriminator="kind")]


class TrinoKeys(BaseModel):
    """How the coordinator is reached and what every statement carries."""

    model_config = ConfigDict(frozen=True)

    host: str | None = Field(default=None, description="Trino: host of the coordinator. Default: localhost.")
    port: int | None = Field(
        default=None, ge=1, le=65535, description="Trino: port of the coordinator. Default: 443 with TLS, else 8080."
    )
    user: str = Field(default="aurum", min_length=1, description="Trino: user name.")
    password: str | None = Field(
        default=None,
        repr=False,
        description="Trino: password, from the environment: `auth: {kind: basic}` in short.",
    )
    auth: TrinoAuth | None = Field(default=None, description="Trino: how the user proves who it is.")
    trino_catalog: str | None = Field(
        default=None, min_length=1, description="Trino: its name of the catalog. Default: the `name` in `catalog`."
    )
    http_scheme: Literal["http", "https"] | None = Field(
        default=None, description="Trino: `https` with any `auth`, else `http`, unless said here."
    )
    verify: bool | Path = Field(
        default=True, description="Trino: check the server's certificate; or the PEM file of who signed it."
    )
    allow_insecure_auth: bool = Field(
        default=False, description="Trino: send the login over plain http, where something else encrypts it."
    )
    session_properties: Mapping[str, str] = Field(
        default_factory=dict, description="Trino: session properties of every statement."
    )
    source: str = Field(default="aurum", description="Trino: what statements say they come from.")
    client_tags: tuple[str, ...] = Field(
        default=(), description="Trino: tags of every statement, besides `aurum`, the operation and the run."
    )
    roles: Mapping[str, str] = Field(default_factory=dict, description="Trino: role by catalog; `system` for its own.")
    request_timeout_seconds: float = Field(
        default=30.0, gt=0, description="Trino: how long one answer may take; a statement may take any number of them."
    )
    http_attempts: int = Field(
        default=3, ge=1, le=20, description="Trino: how often a request is sent when the network or a proxy fails."
    )
    statement_attempts: int = Field(
        default=3, ge=1, le=20, description="Trino: how often a read is sent when Trino fails in a way that passes."
    )
    health_timeout_seconds: float = Field(
        default=5.0, gt=0, description="Trino: how long a health check waits for an answer."
    )

    trino_above_gib: float = Field(
        default=200.0, ge=0, description="With `engine: auto`: above so many GiB to rewrite Trino does it."
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.auth is not None and self.password is not None:
            raise ValueError("give either password or auth, which has its own")
        secret = self.auth is not None or self.password is not None
        if secret and self.http_scheme == "http" and not self.allow_insecure_auth:
            raise ValueError(
                "a login over http can be read by anybody on the way: use http_scheme: https, "
                "or allow_insecure_auth: true where something else encrypts the connection"
            )
        if "://" in (self.host or ""):
            raise ValueError("host is a name without scheme and port: use http_scheme and port")
        return self
