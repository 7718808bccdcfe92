"""A REST catalog that does not wait for ever, and asks again for what it only reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyiceberg.catalog.rest import RestCatalog
from pyiceberg.utils.config import Config, merge_config
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter
from urllib3 import Retry

TIMEOUT = "rest.timeout"
"""The property with the seconds that an answer may take."""

_DEFAULT_TIMEOUT = 60.0
_READING = frozenset({"GET", "HEAD"})
_ASK_AGAIN = frozenset({429, 502, 503, 504})


def rest_catalog(name: str, settings: Mapping[str, str]) -> PatientRestCatalog | None:
    """The catalog that ``settings`` and PyIceberg's own configuration describe; None when it is no REST catalog."""
    merged = merge_config(Config().get_catalog_config(name) or {}, dict(settings))
    kind, uri = str(merged.get("type", "")).lower(), str(merged.get("uri", ""))
    if "py-catalog-impl" in merged or not (kind == "rest" or (not kind and uri.startswith("http"))) or not uri:
        return None
    return PatientRestCatalog(name, **{str(key): value for key, value in merged.items()})  # type: ignore[arg-type]


class PatientRestCatalog(RestCatalog):
    """PyIceberg's REST catalog, whose requests end after ``rest.timeout`` seconds; only reads are repeated."""

    def _create_session(self) -> Session:
        session = super()._create_session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Patient(float(self.properties.get(TIMEOUT) or _DEFAULT_TIMEOUT)))
        return session


class _Patient(HTTPAdapter):
    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        again = Retry(
            total=3,
            read=0,
            backoff_factor=0.2,
            allowed_methods=_READING,
            status_forcelist=_ASK_AGAIN,
            raise_on_status=False,
            respect_retry_after_header=False,
        )
        super().__init__(max_retries=again, pool_maxsize=32)

    def send(self, request: PreparedRequest, *args: Any, **options: Any) -> Response:
        """Send, with the timeout where the caller gave none."""
        options["timeout"] = options.get("timeout") or self._timeout
        return super().send(request, *args, **options)
