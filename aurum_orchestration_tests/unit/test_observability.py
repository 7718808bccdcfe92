"""Log records: to stderr, redacted, with the operation and table they are about."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from aurum_orchestration.maintenance.threads import in_thread
from aurum_orchestration.observability import configure_logging, logging_context

LOG = logging.getLogger("aurum_orchestration.somewhere")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    logger = logging.getLogger("aurum_orchestration")
    handlers, level, propagate = list(logger.handlers), logger.level, logger.propagate
    logger.handlers.clear()
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
    logger.setLevel(level)


def test_records_go_to_stderr_once_however_often_it_is_configured(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("info")
    configure_logging("INFO")
    LOG.info("once")
    out, err = capsys.readouterr()
    assert (out, err.count("once")) == ("", 1)
    configure_logging(logging.ERROR)
    LOG.info("quiet")
    assert capsys.readouterr().err == ""


async def test_records_name_operation_and_table_also_in_threads(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO")
    with logging_context(operation_id="op1", table="lake.a.b"):
        await in_thread(LOG.info, "within")
    LOG.info("outside")
    within, outside = capsys.readouterr().err.splitlines()
    assert "operation=op1 table=lake.a.b within" in within
    assert "operation=- table=- outside" in outside


def test_secrets_are_in_neither_message_nor_stack(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("INFO")
    try:
        raise ValueError("postgresql://ann:hunter2@host/db")
    except ValueError:
        LOG.exception("password=%s", "hunter2")
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "hunter2" not in err
