"""One number for a set of rows, whatever their order, by Trino's ``checksum`` aggregate.

``checksum(ROW(a, b))`` by itself proves little, as tried on Trino 476: it adds up the hashes of the columns, so
that rows which exchange values give the same number, and a null, a zero, an empty list and an empty map hash alike.
Therefore the values of a row are put one after the other as bytes, each with whether it is null or how long it is,
and their ``xxhash64`` is what is added up. Lists, maps and structs have no bytes in Trino: where a table has some,
each comes with whether it is null and its length, and the row is the value of a map, whose hash mixes by XOR, which
takes about ten times as long. NaN equals NaN, 0.0 equals -0.0, and an instant equals itself in any zone.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from aurum_orchestration.maintenance.backends.iceberg.trino.sql import ident

_CAST = ("bigint", "double", "decimal")
"""Types that a column may have been promoted to: the snapshot before may still have the narrower one."""

_ARGUMENTS = 100
"""So many values are joined at once: a function of Trino's takes at most 127."""

_FIXED = {
    "boolean": "to_big_endian_64(CAST({} AS bigint))",
    "tinyint": "to_big_endian_64(CAST({} AS bigint))",
    "smallint": "to_big_endian_64(CAST({} AS bigint))",
    "integer": "to_big_endian_64(CAST({} AS bigint))",
    "bigint": "to_big_endian_64(CAST({} AS bigint))",
    "real": "to_ieee754_64(if(is_nan({0}), nan(), CAST({0} AS double) + 0e0))",
    "double": "to_ieee754_64(if(is_nan({0}), nan(), CAST({0} AS double) + 0e0))",
    "date": "to_big_endian_64(date_diff('day', DATE '1970-01-01', {}))",
    "uuid": "CAST({} AS varbinary)",
}
"""Types whose values have all the same number of bytes, and these bytes."""

_AS_TEXT = ("decimal", "timestamp", "time", "varchar", "char")


def checksum_of(columns: Sequence[tuple[str, str]]) -> str:
    """The expression for columns, each a name and a Trino type."""
    flat: list[str] = []
    nested: list[str] = []
    for name, kind in columns:
        value = f"CAST({ident(name)} AS {kind})" if kind.startswith(_CAST) else ident(name)
        found = _bytes(value, kind)
        flat += found
        if not found:
            nested += _parts(value, _parsed(kind), 0)
    row = f"xxhash64({_joined(flat)})" if flat else "X''"
    if not nested:
        return f"checksum({row})"
    return f"checksum(MAP(ARRAY['aurum'], ARRAY[ROW({row}, {', '.join(nested)})]))"


def _bytes(value: str, kind: str) -> list[str]:
    """Expressions for a value's bytes that no other value of the type has; none for a type without bytes."""
    if kind in _FIXED:
        return [f"if({value} IS NULL, X'00', X'01')", f"coalesce({_FIXED[kind].format(value)}, X'')"]
    if kind == "varbinary":
        found = value
    elif kind.startswith(_AS_TEXT):
        found = f"to_utf8(CAST({value} AS varchar))"
    else:
        return []
    return [f"to_big_endian_64(coalesce(length({found}), -1))", f"coalesce({found}, X'')"]


def _joined(parts: Sequence[str]) -> str:
    if len(parts) <= _ARGUMENTS:
        return f"concat({', '.join(parts)})"
    groups = [parts[start : start + _ARGUMENTS] for start in range(0, len(parts), _ARGUMENTS)]
    return _joined([_joined(group) if len(group) > 1 else group[0] for group in groups])


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
