"""Which rewrite of manifests is ours."""

from __future__ import annotations

from aurum_orchestration.maintenance.backends.iceberg.trino.history import TrinoSnapshot
from aurum_orchestration.maintenance.backends.iceberg.trino.manifests import made_by


def rewrite(number: int, **summary: str) -> TrinoSnapshot:
    return TrinoSnapshot(number, 1, number, "replace", {"manifests-created": "1", **summary})


def test_a_rewrite_of_another_engine_or_statement_is_not_ours() -> None:
    silent = rewrite(2, **{"engine-name": "trino"})
    spark = rewrite(3, **{"engine-name": "spark"})
    other = rewrite(4, trino_query_id="20260101_000000_00001_other")
    ours = rewrite(5, trino_query_id="20260101_000000_00002_ours")
    append = TrinoSnapshot(6, 1, 6, "append", {"manifests-created": "1"})
    assert made_by(ours.query_id, [silent, spark, other, ours, append]) == [ours]
    assert made_by(ours.query_id, [silent, spark, other, append]) == [silent]
    assert made_by("", [spark, other, append]) == []
