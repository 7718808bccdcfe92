"""What Trino and the way to it raise, as the package's own errors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from aurum_orchestration.errors import (
    AccessDeniedError,
    AurumError,
    BackendUnavailableError,
    CommitConflictError,
    CommitStateUnknownError,
    ConfigurationError,
    CorruptTableError,
    EngineError,
    RequestError,
    ResourceLimitError,
    StatementKilledError,
    StorageWriteError,
    TableNotFoundError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from trino.exceptions import TrinoQueryError

RETRYABLE = frozenset(
    {
        "CLUSTER_OUT_OF_MEMORY",
        "NO_NODES_AVAILABLE",
        "PAGE_TRANSPORT_ERROR",
        "PAGE_TRANSPORT_TIMEOUT",
        "QUERY_QUEUE_FULL",
        "REMOTE_HOST_GONE",
        "REMOTE_TASK_ERROR",
        "REMOTE_TASK_MISMATCH",
        "SERVER_SHUTTING_DOWN",
        "SERVER_STARTING_UP",
        "TOO_MANY_REQUESTS_FAILED",
        "ABANDONED_QUERY",
        "ABANDONED_TASK",
        "JDBC_ERROR",
        "HIVE_METASTORE_ERROR",
        "ICEBERG_FILESYSTEM_ERROR",
        "ICEBERG_CATALOG_ERROR",
    }
)
"""Names of errors that pass by themselves: the statement may succeed when it is sent again."""

_DENIED = "Give the user the right in Trino's access control, or run as one who has it."
_LIMIT = "Do less at a time (fewer partitions), or raise the limit in Trino."
_REFUSED = (
    "Trino refuses the statement as it is: change the parameters, or what Trino's catalog is configured to allow."
)
_NOT_TRINO = ("error 400", "error 404", "error 405")
_OF_TLS: tuple[tuple[str, type[AurumError], str], ...] = (
    ("certificate has expired", ConfigurationError, "The coordinator's certificate has expired: renew it there."),
    (
        "CERTIFICATE_VERIFY_FAILED.*(mismatch|not valid for)",
        ConfigurationError,
        "Set `host` to a name that the coordinator's certificate is for.",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        ConfigurationError,
        "Set `verify` to the PEM file of who signed the coordinator's certificate.",
    ),
    (
        "WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|HTTP_REQUEST",
        ConfigurationError,
        "What listens there does not encrypt: check the backend's port and http_scheme.",
    ),
    (
        r"ALERT_(BAD_|UNSUPPORTED_)?CERTIFICATE|ALERT_UNKNOWN_CA|ALERT_ACCESS_DENIED",
        AccessDeniedError,
        "The coordinator does not take our certificate: use `auth: {kind: certificate}` with one that it trusts, "
        "and renew what may have expired.",
    ),
    (
        r"KEY_VALUES_MISMATCH|NO_CERTIFICATE_OR_CRL_FOUND|NO_START_LINE|\[SSL\] PEM|BAD_BASE64|invalid path",
        ConfigurationError,
        "Check that `verify`, `auth.certificate` and `auth.key` are PEM files, the key that of the certificate.",
    ),
)
"""What the TLS library says, the kind that it is, what to do."""

_AUTH_ERRORS = {"TrinoAuthError", "KerberosExchangeError"}
_KINDS: Mapping[str, tuple[type[AurumError], str | None]] = {
    "PERMISSION_DENIED": (AccessDeniedError, _DENIED),
    "TABLE_NOT_FOUND": (TableNotFoundError, None),
    "SCHEMA_NOT_FOUND": (TableNotFoundError, None),
    "CATALOG_NOT_FOUND": (ConfigurationError, "Set the backend's trino_catalog to a catalog that SHOW CATALOGS lists."),
    "CATALOG_UNAVAILABLE": (ConfigurationError, "Trino could not start this catalog: its log says why."),
    "MISSING_CATALOG_NAME": (ConfigurationError, "Set the backend's trino_catalog."),
    "INVALID_SESSION_PROPERTY": (ConfigurationError, "Check the backend's session_properties."),
    "INVALID_CATALOG_PROPERTY": (ConfigurationError, "Check the catalog's configuration in Trino."),
    "EXCEEDED_LOCAL_MEMORY_LIMIT": (ResourceLimitError, _LIMIT),
    "EXCEEDED_GLOBAL_MEMORY_LIMIT": (ResourceLimitError, _LIMIT),
    "EXCEEDED_MEMORY_LIMIT": (ResourceLimitError, _LIMIT),
    "EXCEEDED_TIME_LIMIT": (ResourceLimitError, _LIMIT),
    "EXCEEDED_CPU_LIMIT": (ResourceLimitError, _LIMIT),
    "EXCEEDED_SCAN_LIMIT": (ResourceLimitError, _LIMIT),
    "EXCEEDED_SPILL_LIMIT": (ResourceLimitError, _LIMIT),
    "QUERY_TEXT_TOO_LARGE": (ResourceLimitError, _LIMIT),
    "QUERY_REJECTED": (ResourceLimitError, "A resource group of Trino refuses it: give the source or user another."),
    "ADMINISTRATIVELY_KILLED": (StatementKilledError, None),
    "ADMINISTRATIVELY_PREEMPTED": (StatementKilledError, None),
    "USER_CANCELED": (StatementKilledError, None),
    "ICEBERG_COMMIT_ERROR": (CommitConflictError, None),
    "TRANSACTION_CONFLICT": (CommitConflictError, None),
    "ICEBERG_MISSING_METADATA": (CorruptTableError, None),
    "ICEBERG_INVALID_METADATA": (CorruptTableError, None),
    "ICEBERG_BAD_DATA": (CorruptTableError, None),
    "ICEBERG_CANNOT_OPEN_SPLIT": (CorruptTableError, None),
    "ICEBERG_CURSOR_ERROR": (CorruptTableError, None),
    "ICEBERG_INVALID_SNAPSHOT_ID": (RequestError, None),
    "ICEBERG_WRITER_OPEN_ERROR": (StorageWriteError, None),
    "ICEBERG_WRITER_CLOSE_ERROR": (StorageWriteError, None),
    "ICEBERG_WRITER_DATA_ERROR": (StorageWriteError, None),
    "NOT_SUPPORTED": (UnsupportedError, None),
    "UNSUPPORTED_TABLE_TYPE": (UnsupportedError, None),
    "PROCEDURE_NOT_FOUND": (UnsupportedError, "A newer Trino may have it."),
    "FUNCTION_NOT_FOUND": (UnsupportedError, None),
}


def of_query(error: TrinoQueryError, backend: str) -> AurumError:
    """The package's error for a statement that Trino ended with one of its own."""
    name = error.error_name or "?"
    text = f"Trino of {backend}: {name}: {error.message} (query {error.query_id})"
    # the library cannot say so: Iceberg's own error has no name of its own in Trino
    if "CommitStateUnknownException" in str(error.failure_info or ""):
        return CommitStateUnknownError(text)
    known = _KINDS.get(name)
    if known is not None:
        return known[0](text, hint=known[1])
    if name in RETRYABLE:
        return BackendUnavailableError(text)
    if error.error_type == "INSUFFICIENT_RESOURCES":
        return ResourceLimitError(text, hint=_LIMIT)
    if error.error_type == "USER_ERROR":
        return RequestError(text, hint=_REFUSED)
    return EngineError(text, hint="Look the query up in Trino's web interface or log.")


def of_transport(error: Exception, backend: str, address: str, *, started: bool = False) -> AurumError:
    """The package's error for a coordinator that cannot be asked: refused, slow, broken off, not let in.

    ``started``: it had taken the statement, so it is a Trino; one that was started anew no longer knows it.
    """
    told = str(error).removeprefix("failed to execute: ").removeprefix("failed to fetch: ")
    text = f"Trino of {backend} at {address}: {told[:500]}"
    kind: type[AurumError]
    if told.startswith(("error 401", "error 403")) or type(error).__name__ in _AUTH_ERRORS:
        kind, hint = (
            AccessDeniedError,
            "Check the backend's user and auth in fleet.yaml, and renew what may have expired.",
        )
    elif (of_tls := next((found for found in _OF_TLS if re.search(found[0], told)), None)) is not None:
        _, kind, hint = of_tls
    elif not started and (told.startswith(_NOT_TRINO) or isinstance(error, (ValueError, KeyError))):
        kind, hint = ConfigurationError, "Check the backend's host, port and http_scheme: is that Trino?"
    else:
        kind, hint = (
            BackendUnavailableError,
            "Check that Trino is up and that its host, port and http_scheme are right.",
        )
    return kind(text, hint=hint)
