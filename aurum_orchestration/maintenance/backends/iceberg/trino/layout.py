"""How a table is partitioned and sorted, as Trino writes it, and conditions that name partitions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from aurum_orchestration.maintenance.backends.iceberg.trino.sql import ident, literal
from aurum_orchestration.maintenance.backends.iceberg.trino.table import TrinoTable

_FIELD = re.compile(
    r'(?:(?P<transform>[a-z]+)\()?(?P<column>"(?:[^"]|"")*"|[^\s(),"]+)(?:,\s*(?P<size>\d+))?\)?', re.IGNORECASE
)
_TEXT = re.compile(r"'((?:[^']|'')*)'")
_COMPARABLE = (bool, int, str, Decimal, date, datetime)


@dataclass(frozen=True, slots=True)
class Field:
    """A partition field: ``text`` as Trino writes it, the column as it is named, the transform, its number."""

    text: str
    column: str
    transform: str
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Layout:
    """The current partition spec and sort order."""

    fields: tuple[Field, ...]
    sorted_by: tuple[str, ...]


def read_layout(table: TrinoTable) -> Layout:
    """Ask Trino. Raises what the client raises."""
    told = str(table.query(f"SHOW CREATE TABLE {table.name}").first()[0])
    told = told[told.rfind("\nWITH (\n") :]
    return Layout(tuple(field_of(text) for text in _list(told, "partitioning")), tuple(_list(told, "sorted_by")))


def field_of(text: str) -> Field:
    """A field from Trino's words for it: ``day("q""x")``, ``bucket(id, 4)``, ``region``."""
    match = _FIELD.fullmatch(text.strip())
    if match is None:
        return Field(text, text, "unknown")
    column = match["column"]
    if column.startswith('"'):
        column = column[1:-1].replace('""', '"')
    size = int(match["size"]) if match["size"] else None
    return Field(text, column, (match["transform"] or "identity").lower(), size)


def _list(told: str, name: str) -> list[str]:
    found = re.search(rf"^\s+{name} = ARRAY\[(.*)\],?$", told, re.MULTILINE)
    return [text.replace("''", "'") for text in _TEXT.findall(found[1])] if found else []


def condition(field: Field, kind: str, value: Any) -> str | None:
    """The condition on a column that holds for all rows of a partition value and for no others, None without one.

    ``kind`` is the column's Trino type, ``value`` what Trino's metadata tables say.
    """
    name = ident(field.column)
    if field.transform not in {"identity", "year", "month", "day", "hour"}:
        return None
    if value is None:
        return f"{name} IS NULL"
    if field.transform == "identity":
        exact = isinstance(value, _COMPARABLE) and not kind.startswith(("time", "uuid", "varbinary"))
        return f"{name} = {literal(value)}" if exact else None
    first, last = _span(field.transform, value)
    return f"({name} >= {_moment(first, kind)} AND {name} < {_moment(last, kind)})"


def _span(transform: str, value: Any) -> tuple[datetime, datetime]:
    epoch = datetime(1970, 1, 1)  # noqa: DTZ001 - of no zone: a partition's hour, day, ... is that of UTC
    if transform == "hour":
        start = epoch + timedelta(hours=int(value))
        return start, start + timedelta(hours=1)
    if transform == "day":
        day = value if isinstance(value, date) else (epoch + timedelta(days=int(value))).date()
        start = datetime(day.year, day.month, day.day)  # noqa: DTZ001
        return start, start + timedelta(days=1)
    months = int(value) if transform == "month" else 12 * int(value)
    step = 1 if transform == "month" else 12
    return _month(months), _month(months + step)


def _month(months: int) -> datetime:
    return datetime(1970 + months // 12, months % 12 + 1, 1)  # noqa: DTZ001


def _moment(value: datetime, kind: str) -> str:
    if kind == "date":
        return literal(value.date())
    return literal(value.replace(tzinfo=UTC) if "time zone" in kind else value)


@dataclass(frozen=True, slots=True)
class Scope:
    """Partitions that one statement can name: ``fixed`` and any of ``parts``; no part: the whole table."""

    fixed: str
    parts: tuple[str, ...]
    members: tuple[int, ...]

    @property
    def where(self) -> str:
        """The condition, "" for the whole table."""
        return where_of(self.fixed, self.parts)


def where_of(fixed: str, parts: Sequence[str]) -> str:
    """``fixed`` and any of ``parts``."""
    return " AND ".join(filter(None, [fixed, f"({' OR '.join(parts)})" if parts else ""]))


def scopes(
    layout: Layout,
    columns: Mapping[str, str],
    wanted: Sequence[Sequence[Any]],
    partitions: Sequence[Sequence[Any]],
    sizes: Sequence[int],
    *,
    most_bytes: int,
    most: int = 100,
) -> list[Scope] | None:
    """Scopes that together name the wanted partitions, at most about ``most_bytes`` each; None without a way.

    Trino takes one set of values per column and their combinations, so a scope varies the column with most values.
    Fields that no condition can name (buckets, say) are left out: a scope's members are all partitions that only differ
    there, wanted or not.
    """
    fields = [
        number
        for number in range(len(layout.fields))
        if wanted and all(_condition(layout, columns, number, values) for values in wanted)
    ]
    if not fields:
        return None

    def told(values: Sequence[Any]) -> tuple[str, ...]:
        return tuple(_condition(layout, columns, number, values) or "" for number in fields)

    asked = {told(values) for values in wanted}
    named = {member: texts for member, values in enumerate(partitions) if (texts := told(values)) in asked}
    varied = max(range(len(fields)), key=lambda index: len({texts[index] for texts in named.values()}))
    groups: dict[str, dict[str, list[int]]] = {}
    for member, texts in named.items():
        fixed = " AND ".join(text for index, text in enumerate(texts) if index != varied)
        groups.setdefault(fixed, {}).setdefault(texts[varied], []).append(member)
    found: list[Scope] = []
    for fixed, parts in groups.items():
        found += _chunks(fixed, parts, sizes, most_bytes, most)
    return found


def _condition(layout: Layout, columns: Mapping[str, str], number: int, values: Sequence[Any]) -> str | None:
    field = layout.fields[number]
    kind = columns.get(field.column)
    return condition(field, kind, values[number]) if kind else None


def _chunks(
    fixed: str, parts: Mapping[str, list[int]], sizes: Sequence[int], most_bytes: int, most: int
) -> list[Scope]:
    found: list[Scope] = []
    texts: list[str] = []
    members: list[int] = []
    for text, inside in sorted(parts.items()):
        size = sum(sizes[member] for member in [*members, *inside])
        if texts and (size > most_bytes or len(members) + len(inside) > most):
            found.append(Scope(fixed, tuple(texts), tuple(members)))
            texts, members = [], []
        texts.append(text)
        members += inside
    return [*found, Scope(fixed, tuple(texts), tuple(members))]
