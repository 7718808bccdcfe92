"""``engine: auto``: which engine, and what is said of it."""

from __future__ import annotations

from aurum_orchestration.maintenance.backends.iceberg.trino.choice import GIB, Facts, choose


def test_small_work_stays_embedded() -> None:
    choice = choose(Facts(rewrites=10 * GIB), 10)
    assert choice.engine == "pyiceberg"
    assert choice.reason == "on the embedded engine, because 10.0 GiB to rewrite are at most 10 GiB"


def test_large_work_goes_to_trino() -> None:
    choice = choose(Facts(rewrites=10.1 * GIB), 10)
    assert (choice.engine, choice.reason) == ("trino", "through Trino, because 10.1 GiB to rewrite are above 10 GiB")


def test_what_the_embedded_engine_refuses_goes_to_trino() -> None:
    choice = choose(Facts(embedded_refuses="it writes ORC"))
    assert (choice.engine, choice.reason) == (
        "trino",
        "through Trino, because the embedded engine cannot: it writes ORC",
    )


def test_what_trino_refuses_stays_embedded_however_large() -> None:
    choice = choose(Facts(rewrites=500 * GIB, trino_refuses="format version 3"))
    assert choice.engine == "pyiceberg"
    assert "format version 3" in choice.reason


def test_when_neither_can_trino_is_not_tried_again() -> None:
    assert choose(Facts(embedded_refuses="v3", trino_refuses="v3 too")).engine == "pyiceberg"
