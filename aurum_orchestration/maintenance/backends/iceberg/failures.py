"""What catalogs raise, in many exception classes, as the package's own errors, without secrets."""

from __future__ import annotations

import errno
import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from pyiceberg import exceptions as iceberg
from sqlalchemy.exc import ArgumentError

from aurum_orchestration.errors import (
    AurumError,
    BackendUnavailableError,
    ConfigurationError,
    CorruptTableError,
    MissingExtraError,
    StorageWriteError,
    TableNotFoundError,
)

_SECRET_KEY = re.compile(r"(?i)password|secret|token|credential|access-key|account-key|connection-string")
_PROPERTIES = "Check the backend's `catalog:` properties in fleet.yaml."
_NO_PROPERTIES = (
    "Is there a fleet.yaml in this folder? Name it by --fleet or AURUM_FLEET, or write one by aurum init. "
    "PyIceberg's own configuration does, too."
)
_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG}

NOT_METADATA = (ValueError, EOFError, zlib.error, gzip.BadGzipFile, iceberg.ValidationError)
"""What PyIceberg raises for a metadata file that is none: no JSON, not what Iceberg says, a broken archive."""


@contextmanager
def catalog_errors(name: str, properties: Mapping[str, Any], *, opening: bool = False) -> Iterator[None]:
    """Turns what a catalog raises into the package's errors; ``name`` is the backend's, for the text.

    While ``opening`` a catalog, a wrong value is one of its properties; later on it is a broken table.
    """
    try:
        yield
    except AurumError:
        raise
    except Exception as error:
        raise translate(error, name, properties, opening=opening) from None


def translate(error: Exception, name: str, properties: Mapping[str, Any], *, opening: bool = False) -> AurumError:
    """The package's error for what a catalog of these properties raised; see :func:`catalog_errors`."""
    if isinstance(error, (ModuleNotFoundError, iceberg.NotInstalledError)):
        error = _missing_module(error)
    text = f"catalog {name!r}: {_scrubbed(message_of(error), properties)}"
    kind: type[AurumError]
    if isinstance(error, (ModuleNotFoundError, iceberg.NotInstalledError)):
        kind, hint = MissingExtraError, _install_hint(error, properties)
    elif isinstance(error, iceberg.NoSuchTableError):
        kind, hint = TableNotFoundError, None
    elif isinstance(error, (iceberg.UnauthorizedError, iceberg.ForbiddenError, iceberg.OAuthError)):
        kind, hint = ConfigurationError, "Check the catalog's credentials."
    elif isinstance(error, (ValueError, TypeError, ArgumentError, iceberg.NoSuchPropertyException)) and opening:
        kind, hint = ConfigurationError, _PROPERTIES if {"uri", "type"} & properties.keys() else _NO_PROPERTIES
    elif isinstance(error, (*NOT_METADATA, TypeError, FileNotFoundError)):
        kind, hint = CorruptTableError, None
    else:
        kind, hint = BackendUnavailableError, "Check that the catalog is up and that its address is right."
    return kind(text, hint=hint)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """Turns what a storage raises while ``what`` is written into the package's errors."""
    try:
        yield
    except OSError as error:
        raise not_written(f"{what} cannot be written", error) from error


def not_written(told: str, error: Exception) -> StorageWriteError | BackendUnavailableError:
    """The package's error for a write that failed: permanent where the storage refuses, transient for all else."""
    refused = isinstance(error, OSError) and error.errno in _REFUSED
    return (StorageWriteError if refused else BackendUnavailableError)(f"{told}: {error}")


def message_of(error: Exception) -> str:
    """What the error says, its first line."""
    if isinstance(error.__cause__, ValidationError):  # PyIceberg's own says how many there are
        return str(error.__cause__.errors()[0]["msg"])
    origin = getattr(error, "orig", None) or error
    lines = [line.strip() for line in str(origin).splitlines() if line.strip()]
    return lines[0] if lines else type(origin).__name__


def _scrubbed(text: str, properties: Mapping[str, Any]) -> str:
    for key, value in properties.items():
        if _SECRET_KEY.search(key) and len(str(value)) > 2:
            text = text.replace(str(value), "***")
    return text


def _missing_module(error: Exception) -> Exception:
    """What is behind the error: PyIceberg says that SQLAlchemy is missing when any driver is."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ModuleNotFoundError):
        cause = cause.__cause__ or cause.__context__
    return cause or error


def _install_hint(error: Exception, properties: Mapping[str, Any]) -> str:
    module = str(getattr(error, "name", None) or "")
    if module.startswith("psycopg"):
        return "pip install 'aurum-orchestration[postgres]'"
    if "sql" in (kind := str(properties.get("type", "sql"))):
        return f"Install the driver {module or 'that the catalog needs'}."
    return f"pip install 'pyiceberg[{kind}]'"
