"""Names and values as Trino's SQL writes them."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from aurum_orchestration.errors import RequestError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.trino.sql import ident, literal, relation


@pytest.mark.parametrize(
    ("written", "suffix", "expected"),
    [
        ("lake.flights.planes", "", '"c"."flights"."planes"'),
        ("lake.flights.planes", "$files", '"c"."flights"."planes$files"'),
        ('lake."my.ns"."t""x"', "", '"c"."my.ns"."t""x"'),
        ("lake.a.b.t", "$refs", '"c"."a.b"."t$refs"'),
        ('lake.select."; DROP TABLE x --"', "", '"c"."select"."; DROP TABLE x --"'),
    ],
)
def test_relation(written: str, suffix: str, expected: str) -> None:
    assert relation("c", TableId.parse(written), suffix) == expected


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(RequestError):
        ident(name)


def test_a_table_needs_a_namespace() -> None:
    with pytest.raises(RequestError, match="no namespace"):
        relation("c", TableId("lake", ("t",)))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "NULL"),
        (True, "true"),
        (7, "7"),
        (1.5, "1.5E0"),
        (1e300, "1E+300"),
        (Decimal("1.10"), "DECIMAL '1.10'"),
        ("it's", "'it''s'"),
        (date(2026, 2, 3), "DATE '2026-02-03'"),
        (datetime(2026, 2, 3, 4, 5), "TIMESTAMP '2026-02-03 04:05:00.000000'"),  # noqa: DTZ001 - Trino has time stamps without a zone
        (datetime(2026, 2, 3, 4, 5, tzinfo=UTC), "TIMESTAMP '2026-02-03 04:05:00.000000 +00:00'"),
        (["a", "b'c"], "ARRAY['a', 'b''c']"),
    ],
)
def test_literal(value: Any, expected: str) -> None:
    assert literal(value) == expected
