"""What planner tests are made of: a table's health, its policy, and bounded random numbers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from hypothesis import settings
from hypothesis import strategies as st
from pydantic import BaseModel

from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import PolicyLookup, TableHealth
from aurum_orchestration.maintenance.operations.compaction import CompactionPolicy

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
TABLE = TableId("lake", ("flights", "flights"))
KEY = (str(TABLE), "compaction")

rule: Callable[..., Callable[..., None]] = settings(deadline=None, max_examples=100)
"""Every property is a rule of the planner; examples may be slow on a busy machine."""


def health(**metrics: float) -> TableHealth:
    return TableHealth(TABLE, TABLE.backend, "1", NOW, metrics)


def sick(excess: int = 2931, kept: int = 9) -> TableHealth:
    """A table whose files are tiny but for ``kept`` of them; ``excess`` could be saved."""
    return health(
        data_files=excess + kept,
        small_files=excess + 1,
        excess_files=excess,
        data_bytes=excess * 15_000.0,
        rows=excess * 100.0,
        snapshots=10,
        exact=1,
    )


def policy(**values: object) -> PolicyLookup:
    rules = CompactionPolicy.model_validate({"target_file_size_mb": 64, **values})

    def lookup(_table: TableId, _operation: str) -> BaseModel:
        return rules

    return lookup


def numbers(most: float) -> st.SearchStrategy[float]:
    return st.integers(0, int(most)).map(float)


odd_numbers = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.integers(-(10**400), 10**400))
