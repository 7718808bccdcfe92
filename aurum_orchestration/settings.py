"""Where the project keeps things and how it is told: environment variables ``AURUM_*``, read once into a value.

Nothing here is global: two settings with different values live side by side in one process.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from aurum_orchestration.errors import ConfigurationError, redact
from aurum_orchestration.fleet.trino import TrinoAuth


class DataBackendSettings(BaseSettings):
    """The one backend there is without a fleet.yaml, from ``AURUM_DATA_BACKEND_*``.

    With ``trino_host`` Iceberg tables are reached through Trino, without it through PyIceberg, whose
    own configuration (``~/.pyiceberg.yaml``, ``PYICEBERG_CATALOG__*``) then describes the catalog.
    """

    model_config = SettingsConfigDict(
        env_prefix="AURUM_DATA_BACKEND_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    trino_host: str | None = Field(default=None, description="Host of the Trino coordinator.")
    trino_port: int = Field(default=8080, ge=1, le=65535, description="Port of the Trino coordinator.")
    trino_user: str = Field(default="aurum", description="User that Trino sees.")
    trino_password: str | None = Field(default=None, repr=False, description="Its password; needs https.")
    trino_auth: TrinoAuth | None = Field(
        default=None,
        repr=False,
        description='How the user proves who it is, as JSON: `{"kind": "jwt", "token_file": ...}`.',
    )
    trino_http_scheme: Literal["http", "https"] | None = Field(
        default=None, description="`https` with a password or `trino_auth`, else `http`, unless said here."
    )
    trino_verify: bool | Path = Field(
        default=True, description="Check the server's certificate; or the PEM file of who signed it."
    )
    trino_catalog: str | None = Field(
        default=None, description="Trino's name of the catalog. Default: the Iceberg catalog's name."
    )
    trino_session_properties: dict[str, str] = Field(
        default_factory=dict, description="Session properties of every statement, as JSON."
    )
    trino_request_timeout_seconds: float = Field(
        default=30.0, gt=0, description="How long one answer of Trino may take."
    )
    iceberg_catalog: str = Field(default="iceberg", description="Name of the Iceberg catalog.")

    def trino_keys(self) -> dict[str, Any]:
        """The keys of a backend that is reached through Trino; none without ``trino_host``."""
        if self.trino_host is None:
            return {}
        asked = {"trino_host", "trino_port", "trino_user"}
        given = {name for name in self.model_fields_set | asked if name.startswith("trino_")}
        keys = {name: getattr(self, name) for name in given}
        named = {name if name == "trino_catalog" else name.removeprefix("trino_"): keys[name] for name in keys}
        return {"engine": "trino", **{name: value for name, value in named.items() if value is not None}}


class AurumSettings(BaseSettings):
    """All settings of a process. Arguments win over the environment, which wins over the defaults.

    Paths are absolute; ``~`` is the user's home. Nothing is created or opened.
    """

    model_config = SettingsConfigDict(env_prefix="AURUM_", env_ignore_empty=True, extra="forbid", frozen=True)

    home: Path = Field(
        default=Path("~/.aurum"), validate_default=True, description="Folder of everything the project remembers."
    )
    fleet: Path = Field(default=Path("fleet.yaml"), validate_default=True, description="The fleet file.")
    history_url: str = Field(
        default_factory=lambda known: f"sqlite:///{quote(str(known['home']))}/history.db" if "home" in known else "",
        description="SQLAlchemy URL of the history store; default: a SQLite file in the home.",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="WARNING", description="What is logged to stderr: this level and above."
    )
    data_backend: DataBackendSettings = Field(
        default_factory=DataBackendSettings, description="The backend used when there is no fleet file."
    )

    @field_validator("home", "fleet")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        return value.expanduser().absolute()

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.strip().upper() if isinstance(value, str) else value

    @property
    def names_fleet(self) -> bool:
        """True when somebody named the fleet file, so that it has to exist."""
        return "fleet" in self.model_fields_set

    @classmethod
    def from_env(cls) -> Self:
        """The settings as the environment has them now.

        Raises ConfigurationError naming every variable that is wrong.
        """
        try:
            return cls()
        except ValidationError as error:
            raise ConfigurationError(_explain(error)) from error
        except SettingsError as error:
            raise ConfigurationError(f"environment: {error}") from error

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        """Fields as printed: without the password that a URL may hold."""
        return [(key, redact(value) if isinstance(value, str) else value) for key, value in super().__repr_args__()]


def _explain(error: ValidationError) -> str:
    prefix = "AURUM_DATA_BACKEND_" if error.title == DataBackendSettings.__name__ else "AURUM_"
    return "; ".join(
        f"{prefix}{'_'.join(str(part) for part in problem['loc']).upper()}: {problem['msg']}"
        for problem in error.errors(include_input=False, include_url=False)
    )
