"""One number for a set of rows, whatever their order, by Trino's ``checksum`` aggregate.

``checksum(ROW(a, b))`` by itself proves little, as tried on Trino 476: it adds up the hashes of the columns, so
that rows which exchange values give the same number, and a null, a zero, an empty list and an empty map hash alike.
Therefore: every value comes with whether it is null, every list and map with its length, and the row is the
value of a map, whose hash mixes by XOR. NaN equals NaN, 0.0 equals -0.0, and an instant equals itself in any zone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from aurum_orchestration.maintenance.backends.iceberg.trino.sql import ident

_CAST = ("bigint", "double", "decimal")
"""Types that a column may have been promoted to: the snapshot before may still have the narrower one."""


def checksum_of(columns: Sequence[tuple[str, str]]) -> str:
    """The expression for columns, each a name and a Trino type."""
    parts: list[str] = []
    for name, kind in columns:
        value = f"CAST({ident(name)} AS {kind})" if kind.startswith(_CAST) else ident(name)
        parts += _parts(value, _parsed(kind), 0)
    return f"checksum(MAP(ARRAY['aurum'], ARRAY[ROW({', '.join(parts)})]))"


def _parsed(kind: str) -> Any:
    """The type, None for one that cannot be told: Trino does not quote the names of a struct's fields."""
    from trino.sqlalchemy.datatype import parse_sqltype

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return parse_sqltype(kind)
        except (ValueError, Warning):
            return None


def _parts(value: str, kind: Any, depth: int) -> list[str]:
    """What tells a value from every other of its type."""
    from sqlalchemy.types import ARRAY
    from trino.sqlalchemy.datatype import MAP, ROW

    one, key = f"e{depth}", f"k{depth}"
    if isinstance(kind, ARRAY):
        inner = ", ".join(_parts(one, _element(kind), depth + 1))
        return [f"coalesce(cardinality({value}), -1)", f"transform({value}, {one} -> ROW({inner}))"]
    if isinstance(kind, MAP):
        inner = ", ".join(_parts(one, kind.value_type, depth + 1))
        return [f"coalesce(cardinality({value}), -1)", f"transform_values({value}, ({key}, {one}) -> ROW({inner}))"]
    told = [f"{value} IS NULL"]
    if isinstance(kind, ROW):
        for name, inner_kind in kind.attr_types:
            told += _parts(f"{value}.{ident(str(name))}", inner_kind, depth)
        return told
    return [value, *told]


def _element(kind: Any) -> Any:
    """The type of a list's elements; SQLAlchemy folds lists of lists into one with dimensions."""
    from sqlalchemy.types import ARRAY

    dimensions = kind.dimensions or 1
    return ARRAY(kind.item_type, dimensions=dimensions - 1) if dimensions > 1 else kind.item_type
