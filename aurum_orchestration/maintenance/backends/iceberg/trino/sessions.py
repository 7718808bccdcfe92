"""The HTTP session of a coordinator: whose certificates it believes is what the backend says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from requests import Session


class TrinoSession(Session):
    """``verify``: True for the machine's own authorities, False for none, or the file of others."""

    def __init__(self, verify: bool | Path) -> None:
        super().__init__()
        self.verify = verify if isinstance(verify, bool) else str(verify)

    def merge_environment_settings(  # noqa: D102
        self, url: Any, proxies: Any, stream: Any, verify: Any, cert: Any
    ) -> dict[str, Any]:
        # the library lets REQUESTS_CA_BUNDLE win over what a session was told, but not over what a request was
        told = self.verify if verify is None else verify
        return super().merge_environment_settings(url, proxies, stream, told, cert)
