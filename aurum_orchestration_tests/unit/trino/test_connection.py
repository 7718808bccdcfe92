"""How a backend's keys become a connection: defaults, every way of logging in, and what is wrong said at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from trino.auth import BasicAuthentication, CertificateAuthentication, JWTAuthentication, OAuth2Authentication

from aurum_orchestration.errors import ConfigurationError, MissingExtraError
from aurum_orchestration.fleet.config import IcebergBackendConfig
from aurum_orchestration.maintenance.backends.iceberg.trino.connection import TrinoConnection
from aurum_orchestration.settings import DataBackendSettings


def connection(**keys: Any) -> TrinoConnection:
    return TrinoConnection.of(keys, "lake")


@pytest.mark.parametrize(
    ("keys", "address"),
    [
        ({"host": "t"}, "http://t:8080"),
        ({}, "http://localhost:8080"),
        ({"host": "t", "port": 443}, "https://t:443"),
        ({"host": "t", "password": "p"}, "https://t:443"),
        ({"host": "t", "port": 8443, "auth": {"kind": "oauth2"}}, "https://t:8443"),
        ({"host": "t", "http_scheme": "https"}, "https://t:443"),
        ({"host": "t", "password": "p", "http_scheme": "http", "allow_insecure_auth": True}, "http://t:8080"),
        ({"host": "::1", "port": 80}, "http://[::1]:80"),
    ],
)
def test_address(keys: dict[str, Any], address: str) -> None:
    assert connection(**keys).address == address


def test_trinos_catalog_is_named_or_follows_from_the_backend() -> None:
    assert connection().trino_catalog == "lake"
    assert connection(catalog={"name": "prod"}).trino_catalog == "prod"
    assert connection(catalog={"name": "prod"}, trino_catalog="iceberg").trino_catalog == "iceberg"


def test_password_and_basic_are_the_same() -> None:
    short = connection(user="ann", password="p").authentication()
    assert short == BasicAuthentication("ann", "p")
    assert connection(user="ann", auth={"kind": "basic", "password": "p"}).authentication() == short
    assert connection(auth={"kind": "basic", "user": "bob", "password": "p"}).authentication() == BasicAuthentication(
        "bob", "p"
    )


def test_token_is_read_anew_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    given = connection(auth={"kind": "jwt", "token_file": str(file)})
    with pytest.raises(ConfigurationError, match=r"token file .* cannot be read: No such file"):
        given.authentication()
    file.write_text("one\n")
    assert given.authentication() == JWTAuthentication("one")
    file.write_text("two")
    assert given.authentication() == JWTAuthentication("two")


def test_the_other_ways_of_logging_in(tmp_path: Path) -> None:
    assert connection(auth={"kind": "jwt", "token": "abc"}).authentication() == JWTAuthentication("abc")
    certificate, key = tmp_path / "c.pem", tmp_path / "k.pem"
    certificate.touch()
    key.touch()
    given = {"kind": "certificate", "certificate": str(certificate), "key": str(key)}
    found = connection(auth=given).authentication()
    assert found == CertificateAuthentication(str(certificate), str(key))
    assert isinstance(connection(auth={"kind": "oauth2"}).authentication(), OAuth2Authentication)
    assert connection().authentication() is None


def test_kerberos_says_what_to_install() -> None:
    with pytest.raises(MissingExtraError) as caught:
        connection(auth={"kind": "kerberos", "service_name": "HTTP"}).authentication()
    assert "trino[kerberos]" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"auth": {"kind": "magic"}}, "auth: Input tag 'magic'"),
        ({"auth": {"kind": "jwt"}}, "auth.jwt: give either token or token_file"),
        ({"auth": {"kind": "certificate", "certificate": "c"}}, "auth.certificate.key: Field required"),
        ({"auth": {"kind": "oauth2"}, "password": "hidden-one"}, "give either password or auth"),
        ({"password": "hidden-one", "http_scheme": "http"}, "can be read by anybody on the way"),
        ({"host": "https://t"}, "host is a name without scheme"),
        ({"port": 0}, "port: Input should be greater"),
    ],
)
def test_what_is_wrong_is_said_without_secrets(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        connection(**keys)
    assert told in caught.value.detail
    assert caught.value.detail.startswith("backend lake: ")
    assert "hidden-one" not in caught.value.detail


@pytest.mark.parametrize(
    "auth",
    [
        {"kind": "basic", "password": "hidden-one"},
        {"kind": "jwt", "token": "hidden-one"},
    ],
)
def test_secrets_are_not_printed(auth: dict[str, Any]) -> None:
    config = IcebergBackendConfig.model_validate({"type": "iceberg", "engine": "trino", "host": "t", "auth": auth})
    made = TrinoConnection.of(config.connection, "lake")
    settings = DataBackendSettings.model_validate({"trino_host": "t", "trino_auth": auth})
    assert made.auth is not None
    for printed in (repr(config), str(config), repr(made), str(made), repr(settings), str(settings)):
        assert "hidden-one" not in printed


def test_auto_needs_both_engines() -> None:
    with pytest.raises(ValueError, match="engine: auto needs both engines"):
        IcebergBackendConfig.model_validate(
            {"type": "iceberg", "engine": "auto", "host": "t", "catalog": {"name": "x"}}
        )


def test_environment_reaches_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "HOST": "t",
        "PORT": "8443",
        "AUTH": '{"kind": "jwt", "token": "abc"}',
        "CATALOG": "hot",
        "VERIFY": "/etc/ca.pem",
        "SESSION_PROPERTIES": '{"query_max_run_time": "2h"}',
        "REQUEST_TIMEOUT_SECONDS": "7",
    }.items():
        monkeypatch.setenv(f"AURUM_DATA_BACKEND_TRINO_{name}", value)
    made = TrinoConnection.of(DataBackendSettings().trino_keys() | {"catalog": {"name": "iceberg"}}, "iceberg")
    assert made.address == "https://t:8443"
    assert made.authentication() == JWTAuthentication("abc")
    assert (made.trino_catalog, made.user, str(made.verify)) == ("hot", "aurum", "/etc/ca.pem")
    assert made.session_properties == {"query_max_run_time": "2h"}
    assert made.request_timeout_seconds == 7
