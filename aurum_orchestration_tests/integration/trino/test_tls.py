"""An encrypted way to Trino: whose certificates count, who we are by password and by certificate, and what is told."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aurum_orchestration.errors import AccessDeniedError, AurumError, BackendUnavailableError, ConfigurationError
from aurum_orchestration.local.engines import lake as local_lake
from aurum_orchestration.local.engines.background import free_port
from aurum_orchestration.local.engines.trino import ENGINE
from aurum_orchestration.maintenance.backends.iceberg.trino.client import TrinoClient
from aurum_orchestration.maintenance.backends.iceberg.trino.connection import TrinoConnection
from aurum_orchestration_tests.engines import missing
from aurum_orchestration_tests.faults.trino_site import site, told
from aurum_orchestration_tests.servers import absence, trino_logins
from aurum_orchestration_tests.servers import trino as servers
from aurum_orchestration_tests.servers.certificates import Certificate, authority
from aurum_orchestration_tests.servers.trino import TrinoServer

PASSWORD = "a word that nobody may see"
BASIC = {"kind": "basic", "password": PASSWORD}


@dataclass(frozen=True)
class Trust:
    """Who signs what: ``ca`` the server's certificates and the user's; nobody knows ``other``."""

    folder: Path
    ca: Certificate
    other: Certificate
    server: Certificate
    elsewhere: Certificate
    user: Certificate
    stranger: Certificate

    @classmethod
    def made(cls, folder: Path) -> Trust:
        ca, other = authority(folder, "ca"), authority(folder, "other")
        return cls(
            folder,
            ca,
            other,
            server=ca.issue("server", "IP:127.0.0.1"),
            elsewhere=ca.issue("elsewhere", "DNS:trino.example"),
            user=ca.issue("aurum"),
            stranger=other.issue("stranger"),
        )

    def by_certificate(self, of: Certificate) -> dict[str, Any]:
        return {"auth": {"kind": "certificate", "certificate": str(of.certificate), "key": str(of.key)}}


@pytest.fixture(scope="module")
def trust(tmp_path_factory: pytest.TempPathFactory) -> Trust:
    return Trust.made(tmp_path_factory.mktemp("certificates"))


class _NotLetIn(BaseHTTPRequestHandler):
    """Whoever gets here got through TLS."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A handshake that fails is the client's to tell: closing before all is read would reset what says why."""
        with socket.socket(fileno=request.detach()) as left:
            left.settimeout(5)
            with suppress(OSError):
                left.shutdown(socket.SHUT_WR)
                while left.recv(4096):
                    pass


@contextmanager
def door(of: Certificate | None, clients: Certificate | None = None) -> Iterator[int]:
    """The port of a server with this certificate (None: without TLS) that asks for one that ``clients`` signed."""
    with _Quiet(("127.0.0.1", 0), _NotLetIn) as server:
        if of is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(of.certificate, of.key)
            if clients is not None:
                context.load_verify_locations(clients.certificate)
                context.verify_mode = ssl.CERT_REQUIRED
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Doors:
    """Ports: with the server's certificate; one of another name; one that asks for a certificate; without TLS."""

    server: int
    elsewhere: int
    asking: int
    plain: int


@pytest.fixture(scope="module")
def doors(trust: Trust) -> Iterator[Doors]:
    with ExitStack() as stack:
        opened = (door(trust.server), door(trust.elsewhere), door(trust.server, trust.ca), door(None))
        yield Doors(*(stack.enter_context(one) for one in opened))


def refused(port: int, **keys: Any) -> AurumError:
    given = {"host": "127.0.0.1", "port": port, "http_scheme": "https", "http_attempts": 1, "statement_attempts": 1}
    client = TrinoClient(TrinoConnection.of({**given, **keys}, "lake"), "lake")
    with pytest.raises(AurumError) as caught:
        client.query("SELECT 1")
    assert PASSWORD not in caught.value.problem().model_dump_json()
    return caught.value


def test_the_authority_that_the_backend_names_counts_whatever_the_environment_says(
    trust: Trust, doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(trust.other.certificate))
    error = refused(doors.server, verify=str(trust.ca.certificate), auth=BASIC)
    assert (type(error), "401" in error.detail) == (AccessDeniedError, True)
    assert isinstance(refused(doors.server, auth=BASIC), ConfigurationError)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(trust.ca.certificate))
    assert isinstance(refused(doors.server, auth=BASIC), AccessDeniedError)
    error = refused(doors.server, verify=str(trust.other.certificate), auth=BASIC)
    assert (type(error), "`verify`" in (error.hint or "")) == (ConfigurationError, True)


@pytest.mark.parametrize(
    ("port", "keys", "kind", "hint"),
    [
        ("server", {"verify": "other"}, ConfigurationError, "Set `verify` to the PEM file of who signed"),
        ("elsewhere", {}, ConfigurationError, "Set `host` to a name that the coordinator's certificate is for"),
        ("plain", {}, ConfigurationError, "port and http_scheme"),
        ("server", {"http_scheme": "http", "auth": None}, BackendUnavailableError, "http_scheme"),
        ("asking", {}, AccessDeniedError, "does not take our certificate"),
        ("asking", {"auth": "stranger"}, AccessDeniedError, "does not take our certificate"),
        ("asking", {"auth": "user"}, AccessDeniedError, "user and auth"),  # through TLS: the server behind it refuses
    ],
)
def test_what_does_not_fit_is_told_with_what_to_do(
    port: str, keys: Mapping[str, Any], kind: type[AurumError], hint: str, trust: Trust, doors: Doors
) -> None:
    given: dict[str, Any] = {"auth": BASIC, "verify": "ca", **keys}
    given["verify"] = str(getattr(trust, given["verify"]).certificate)
    if isinstance(given["auth"], str):
        given |= trust.by_certificate(getattr(trust, given["auth"]))
    error = refused(getattr(doors, port), **given)
    assert (type(error), hint in (error.hint or "")) == (kind, True), (error, error.hint)


def test_files_that_are_not_there_or_not_what_they_should_be(trust: Trust, doors: Doors) -> None:
    ca, user = str(trust.ca.certificate), trust.by_certificate(trust.user)["auth"]
    empty = trust.folder / "empty.pem"
    empty.touch()
    for keys, key in (
        ({"verify": "/nowhere/ca.pem", "auth": BASIC}, "verify"),
        ({"verify": ca, "auth": {**user, "certificate": "/nowhere/user.pem"}}, "auth.certificate"),
        ({"verify": ca, "auth": {**user, "key": "/nowhere/user.key"}}, "auth.key"),
    ):
        error = refused(doors.asking, **keys)
        assert isinstance(error, ConfigurationError)
        assert error.detail.startswith(f"{key}: the file /nowhere/")
    for keys in (
        {"verify": str(empty), "auth": BASIC},
        {"verify": ca, "auth": {**user, "certificate": str(empty)}},
        {"verify": ca, "auth": {**user, "key": str(trust.stranger.key)}},
    ):
        error = refused(doors.asking, **keys)
        assert (type(error), "PEM" in (error.hint or "")) == (ConfigurationError, True), (keys, error, error.hint)


@pytest.fixture(scope="module")
def encrypted(tmp_path_factory: pytest.TempPathFactory, trust: Trust) -> Iterator[tuple[TrinoServer, int]]:
    """A Trino of this module's own and its port for https, where it takes passwords and certificates."""
    logins = trino_logins.ENGINE.find()
    if logins is None:
        missing(trino_logins.ENGINE.name, absence(trino_logins.ENGINE))
    if (found := ENGINE.find()) is None:
        missing("trino", absence(ENGINE))
    folder, port = tmp_path_factory.mktemp("encrypted"), free_port()
    for one in (folder, *folder.parents[:2]):  # PostgreSQL runs as another user than root
        one.chmod(one.stat().st_mode | 0o111)
    plugins, etc = folder / "plugins", folder / "local" / "trino" / "etc"
    plugins.mkdir()
    etc.mkdir(parents=True)
    for plugin in (found / "server" / "plugin" / "iceberg", logins / trino_logins.PLUGIN):
        (plugins / plugin.name).symlink_to(plugin)
    salt = b"a salt of sixteen"
    stored = hashlib.pbkdf2_hmac("sha1", PASSWORD.encode(), salt, 1000, 64)
    (etc / "passwords").write_text(f"aurum:1000:{salt.hex()}:{stored.hex()}\n")
    (etc / "password-authenticator.properties").write_text(
        f"password-authenticator.name=file\nfile.password-file={etc / 'passwords'}\n"
    )
    server = servers.start(
        folder / "local",
        {
            "plugin.dir": str(plugins),
            "http-server.authentication.type": "CERTIFICATE,PASSWORD,JWT",
            "http-server.authentication.certificate.user-mapping.pattern": "CN=([^,]+).*",
            "http-server.https.enabled": "true",
            "http-server.https.port": str(port),
            "http-server.https.keystore.path": str(trust.server.both),
            "http-server.https.truststore.path": str(trust.ca.certificate),
        },
    )
    yield server, port
    local_lake.down(folder / "local")


@pytest.mark.thorough
@pytest.mark.timeout(600)
async def test_trino_itself(
    encrypted: tuple[TrinoServer, int], trust: Trust, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every way in, and every way that is none; the table goes through all of them unharmed."""
    server, port = encrypted
    ca = str(trust.ca.certificate)
    monkeypatch.setenv("AURUM_TEST_RIGHT", PASSWORD)  # a fleet file holds no password
    monkeypatch.setenv("AURUM_TEST_WRONG", "another")
    right, wrong = ({"auth": {"kind": "basic", "password": f"${{AURUM_TEST_{one}}}"}} for one in ("RIGHT", "WRONG"))
    with site(server, tmp_path, host="127.0.0.1", port=port, verify=ca) as table:
        before = table.snapshots()
        hints = []
        for keys, kind in (
            (wrong, "access-denied"),
            ({"http_scheme": "https"}, "access-denied"),
            (trust.by_certificate(trust.stranger), "access-denied"),
            ({**right, "verify": str(trust.other.certificate)}, "configuration-error"),
            ({**right, "verify": True}, "configuration-error"),
            ({**right, "host": "localhost"}, "configuration-error"),
            ({**right, "port": server.port}, "configuration-error"),
            ({"http_scheme": "http", "http_attempts": 1, "statement_attempts": 1}, "backend-unavailable"),
        ):
            kept = dict(table.keys)
            table.keys.update(keys)
            problem = told(await table.go("compaction"), kind, transient=kind == "backend-unavailable")
            assert PASSWORD not in problem.model_dump_json()
            hints.append(problem.hint)
            table.keys.clear()
            table.keys.update(kept)
        assert table.snapshots() == before
        assert "certificate" in (hints[2] or "")
        assert "`verify`" in (hints[3] or "")
        assert "`host`" in (hints[5] or "")

        table.keys.update(right)
        done = await table.go("compaction")
        assert done.status == "completed", done.problem
        assert done.metrics["files_rewritten"] == 7
        table.keys.update(trust.by_certificate(trust.user))
        done = await table.go("retention")
        assert done.status == "completed", done.problem
        await table.finish("manifests", before)
