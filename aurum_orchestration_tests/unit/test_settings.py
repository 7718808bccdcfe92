from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from aurum_orchestration.errors import ConfigurationError
from aurum_orchestration.settings import AurumSettings, DataBackendSettings


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in os.environ:
        if name.startswith("AURUM_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_defaults(tmp_path: Path) -> None:
    settings = AurumSettings.from_env()
    assert settings.home == Path.home() / ".aurum"
    assert settings.fleet == tmp_path / "fleet.yaml"
    assert not settings.names_fleet
    assert settings.history_url == f"sqlite:///{Path.home()}/.aurum/history.db"
    assert settings.log_level == "WARNING"
    assert settings.data_backend == DataBackendSettings(trino_host=None, trino_port=8080, iceberg_catalog="iceberg")
    assert not list(tmp_path.iterdir())


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        "AURUM_HOME": "relative/home",
        "AURUM_FLEET": "~/my.yaml",
        "AURUM_LOG_LEVEL": "debug",
        "AURUM_DATA_BACKEND_TRINO_HOST": "trino.internal",
        "AURUM_DATA_BACKEND_TRINO_PORT": "8443",
        "AURUM_DATA_BACKEND_ICEBERG_CATALOG": "prod",
    }.items():
        monkeypatch.setenv(name, value)
    settings = AurumSettings.from_env()
    assert settings.home == tmp_path / "relative/home"
    assert settings.fleet == Path.home() / "my.yaml"
    assert settings.names_fleet
    assert settings.history_url == f"sqlite:///{tmp_path}/relative/home/history.db"
    assert settings.log_level == "DEBUG"
    assert settings.data_backend.trino_host == "trino.internal"
    assert settings.data_backend.trino_port == 8443
    assert settings.data_backend.iceberg_catalog == "prod"


def test_arguments_win_over_the_environment_and_empty_variables_count_as_unset(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AURUM_HOME", "/from/environment")
    monkeypatch.setenv("AURUM_HISTORY_URL", "")
    monkeypatch.setenv("AURUM_DATA_BACKEND_TRINO_PORT", "1")
    settings = AurumSettings(home=tmp_path, data_backend=DataBackendSettings(trino_host="h", trino_port=2))
    assert settings.home == tmp_path
    assert settings.history_url == f"sqlite:///{tmp_path}/history.db"
    assert settings.data_backend.trino_port == 2


def test_two_settings_side_by_side(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURUM_HOME", str(tmp_path / "one"))
    one = AurumSettings.from_env()
    monkeypatch.setenv("AURUM_HOME", str(tmp_path / "two"))
    two = AurumSettings.from_env()
    assert (one.home.name, two.home.name) == ("one", "two")
    assert one.history_url != two.history_url
    with pytest.raises(ValidationError):
        one.home = two.home  # type: ignore[misc]


def test_a_password_in_the_history_url_is_used_but_never_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://aurum:hunter2@db/aurum"
    monkeypatch.setenv("AURUM_HISTORY_URL", url)
    settings = AurumSettings.from_env()
    assert settings.history_url == url
    assert "hunter2" not in f"{settings!r} {settings}"
    assert "aurum:***@db" in repr(settings)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AURUM_DATA_BACKEND_TRINO_PORT", "many"),
        ("AURUM_DATA_BACKEND_TRINO_PORT", "70000"),
        ("AURUM_LOG_LEVEL", "loud"),
        ("AURUM_DATA_BACKEND", "{not json"),
    ],
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, value: str) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable.removeprefix("AURUM_").lower() + "|" + variable):
        AurumSettings.from_env()


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(ValidationError):
        AurumSettings(hoem="/tmp")  # type: ignore[call-arg]
