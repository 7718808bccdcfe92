"""What Trino raises, as the package's errors: the type, whether it passes by itself, and a hint."""

from __future__ import annotations

import pytest
from trino.exceptions import HttpError, TrinoConnectionError, TrinoQueryError

from aurum_orchestration import errors
from aurum_orchestration.maintenance.backends.iceberg.trino.failures import of_query, of_transport


def failed(name: str, kind: str = "EXTERNAL", **more: object) -> TrinoQueryError:
    return TrinoQueryError({"errorName": name, "errorType": kind, "message": "told", **more}, "q1")


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("PERMISSION_DENIED", "USER_ERROR", errors.AccessDeniedError),
        ("TABLE_NOT_FOUND", "USER_ERROR", errors.TableNotFoundError),
        ("CATALOG_NOT_FOUND", "USER_ERROR", errors.ConfigurationError),
        ("CATALOG_UNAVAILABLE", "USER_ERROR", errors.ConfigurationError),
        ("EXCEEDED_LOCAL_MEMORY_LIMIT", "INSUFFICIENT_RESOURCES", errors.ResourceLimitError),
        ("EXCEEDED_GLOBAL_MEMORY_LIMIT", "INSUFFICIENT_RESOURCES", errors.ResourceLimitError),
        ("EXCEEDED_TIME_LIMIT", "INSUFFICIENT_RESOURCES", errors.ResourceLimitError),
        ("CLUSTER_OUT_OF_MEMORY", "INSUFFICIENT_RESOURCES", errors.BackendUnavailableError),
        ("EXCEEDED_TASK_DESCRIPTOR_STORAGE_CAPACITY", "INSUFFICIENT_RESOURCES", errors.ResourceLimitError),
        ("ADMINISTRATIVELY_KILLED", "USER_ERROR", errors.StatementKilledError),
        ("ICEBERG_COMMIT_ERROR", "EXTERNAL", errors.CommitConflictError),
        ("TRANSACTION_CONFLICT", "USER_ERROR", errors.CommitConflictError),
        ("ICEBERG_INVALID_METADATA", "EXTERNAL", errors.CorruptTableError),
        ("NOT_SUPPORTED", "USER_ERROR", errors.UnsupportedError),
        ("PROCEDURE_NOT_FOUND", "USER_ERROR", errors.UnsupportedError),
        ("SYNTAX_ERROR", "USER_ERROR", errors.RequestError),
        ("NO_NODES_AVAILABLE", "INSUFFICIENT_RESOURCES", errors.BackendUnavailableError),
        ("SERVER_STARTING_UP", "INTERNAL_ERROR", errors.BackendUnavailableError),
        ("GENERIC_INTERNAL_ERROR", "INTERNAL_ERROR", errors.EngineError),
    ],
)
def test_errors_of_statements(name: str, kind: str, expected: type[errors.AurumError]) -> None:
    error = of_query(failed(name, kind), "lake")
    assert type(error) is expected
    assert error.detail == f"Trino of lake: {name}: told (query q1)"
    passes = expected in {errors.BackendUnavailableError, errors.CommitConflictError}
    assert error.transient is passes


def test_a_commit_that_iceberg_itself_is_not_sure_of() -> None:
    cause = {"type": "org.apache.iceberg.exceptions.CommitStateUnknownException"}
    error = of_query(failed("ICEBERG_COMMIT_ERROR", failureInfo={"cause": cause}), "lake")
    assert type(error) is errors.CommitStateUnknownError


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (HttpError("error 401: b'Unauthorized'"), errors.AccessDeniedError),
        (HttpError("error 404: b'nothing here'"), errors.ConfigurationError),
        (TrinoConnectionError("failed to execute: refused"), errors.BackendUnavailableError),
        (TrinoConnectionError("failed to execute: CERTIFICATE_VERIFY_FAILED"), errors.ConfigurationError),
        (ValueError("no JSON"), errors.ConfigurationError),
    ],
)
def test_errors_on_the_way(raised: Exception, expected: type[errors.AurumError]) -> None:
    error = of_transport(raised, "lake", "http://t:8080")
    assert type(error) is expected
    assert error.hint
    assert "http://t:8080" in error.detail


def test_a_coordinator_that_was_started_anew_does_not_know_the_statement() -> None:
    error = of_transport(HttpError("error 404: b'Query not found'"), "lake", "http://t:8080", started=True)
    assert type(error) is errors.BackendUnavailableError
