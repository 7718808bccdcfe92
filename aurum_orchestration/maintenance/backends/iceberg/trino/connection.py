"""How a coordinator is reached: address, user, proof of who that is, and what every statement carries."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from aurum_orchestration.errors import ConfigurationError, MissingExtraError
from aurum_orchestration.fleet.trino import (
    BasicAuth,
    CertificateAuth,
    JwtAuth,
    KerberosAuth,
    OAuth2Auth,
    TrinoKeys,
)

if TYPE_CHECKING:
    from trino.auth import Authentication

_log = logging.getLogger(__name__)


class TrinoConnection(TrinoKeys):
    """A coordinator's address and everything a statement is sent with; made by :meth:`of`."""

    trino_catalog: str

    @classmethod
    def of(cls, config: Mapping[str, Any], backend: str) -> TrinoConnection:
        """The connection that a backend's keys describe.

        Trino's catalog is ``trino_catalog``, else the name of ``catalog``, else the backend's name.
        Raises ConfigurationError naming every key that is wrong.
        """
        catalog = config.get("catalog") or {}
        name = config.get("trino_catalog") or catalog.get("name") or backend
        keys = {key: config[key] for key in TrinoKeys.model_fields if config.get(key) is not None}
        try:
            return cls.model_validate({**keys, "trino_catalog": name})
        except ValidationError as error:
            raise ConfigurationError(f"backend {backend}: {_told(error)}") from None

    @property
    def secure(self) -> bool:
        """True when the connection is encrypted: as ``http_scheme`` says, else for anything that proves who we are."""
        if self.http_scheme is not None:
            return self.http_scheme == "https"
        return self.auth is not None or self.password is not None or self.port == 443

    @property
    def address(self) -> str:
        """The coordinator as a URL, without any secret."""
        host = self.host or "localhost"
        port = self.port or (443 if self.secure else 8080)
        return f"{'https' if self.secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"

    def trusted(self) -> bool | Path:
        """``verify``, its file known to be there. Raises ConfigurationError."""
        return self.verify if isinstance(self.verify, bool) else _file(self.verify, "verify")

    def authentication(self) -> Authentication | None:
        """The client library's object for ``auth``, made anew so that a token's file is read anew.

        Raises ConfigurationError for a file that cannot be read, MissingExtraError without Kerberos' library.
        """
        from trino import auth as kinds

        given = self.auth
        if given is None and self.password is not None:
            given = BasicAuth(kind="basic", password=self.password)
        if isinstance(given, BasicAuth):
            return kinds.BasicAuthentication(given.user or self.user, given.password)
        if isinstance(given, JwtAuth):
            return kinds.JWTAuthentication(_token(given))
        if isinstance(given, CertificateAuth):
            return kinds.CertificateAuthentication(
                str(_file(given.certificate, "auth.certificate")), str(_file(given.key, "auth.key"))
            )
        if isinstance(given, KerberosAuth):
            return _kerberos(given)
        if isinstance(given, OAuth2Auth):
            return kinds.OAuth2Authentication(redirect_auth_url_handler=kinds.CompositeRedirectHandler([_tell_where]))
        return None

    @property
    def library_arguments(self) -> dict[str, Any]:
        """What the client library's connection is made from, besides statement-specific headers."""
        address = urlsplit(self.address)
        return {
            "host": address.hostname,
            "port": address.port,
            "http_scheme": address.scheme,
            "user": self.user,
            "catalog": self.trino_catalog,
            "auth": self.authentication(),
            "roles": dict(self.roles) or None,
            "timezone": "UTC",
            "request_timeout": self.request_timeout_seconds,
            "max_attempts": self.http_attempts,
            "allow_insecure_auth": self.allow_insecure_auth,
        }


def _token(given: JwtAuth) -> str:
    if given.token is not None:
        return given.token
    path = Path(str(given.token_file)).expanduser()
    try:
        return path.read_text().strip()
    except OSError as error:
        raise ConfigurationError(f"the token file {path} cannot be read: {error.strerror}") from None


def _file(given: Path, key: str) -> Path:
    path = given.expanduser()
    try:
        if not path.is_dir():  # a folder of authorities will do
            path.open("rb").close()
    except OSError as error:
        raise ConfigurationError(f"{key}: the file {path} cannot be read: {error.strerror}") from None
    return path


def _kerberos(given: KerberosAuth) -> Authentication:
    import importlib.util

    from trino import auth as kinds

    if importlib.util.find_spec("requests_kerberos") is None:
        raise MissingExtraError(
            "Kerberos needs requests-kerberos, which is not installed", hint="pip install 'trino[kerberos]'"
        )
    return kinds.KerberosAuthentication(
        config=str(given.config) if given.config else None,
        service_name=given.service_name,
        principal=given.principal,
        hostname_override=given.hostname_override,
        delegate=given.delegate,
        mutual_authentication=kinds.KerberosAuthentication.MUTUAL_REQUIRED,
    )


def _tell_where(url: str) -> None:
    # not printed: stdout may be JSON that a script reads
    _log.warning("Trino asks for a login: open %s", url)


def _told(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'connection'}: {problem['msg'].removeprefix('Value error, ')}"
        for problem in error.errors(include_input=False, include_url=False)
    )
