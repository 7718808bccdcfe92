"""Range partitions of a table: their bounds as values, and those that were taken out and wait to be dropped."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from psycopg import sql

from aurum_orchestration.maintenance.backends.postgres.connection import Session

MARK = "aurum:detached "
"""The last line of a detached partition's comment begins with this; a JSON object follows."""

_KEY = """
SELECT p.partstrat::text AS strategy, p.partnatts::int AS columns, a.attname::text AS "column",
       coalesce(b.typname, t.typname)::text AS base, p.partdefid <> 0 AS has_default
  FROM pg_partitioned_table p
  LEFT JOIN pg_attribute a ON a.attrelid = p.partrelid AND a.attnum = p.partattrs[0] AND p.partattrs[0] <> 0
  LEFT JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_type b ON t.typtype = 'd' AND b.oid = t.typbasetype
 WHERE p.partrelid = %s::oid
"""

_PARTITIONS = """
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name,
       pg_get_expr(c.relpartbound, c.oid) AS bound, {pending} AS pending,
       (SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::float8 FROM pg_partition_tree(c.oid)) AS bytes,
       c.reltuples::float8 AS rows
  FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE i.inhparent = %s::oid
"""

_DETACHED = """
SELECT c.oid::bigint AS oid, n.nspname::text AS schema, c.relname::text AS name, d.description AS comment,
       pg_total_relation_size(c.oid)::float8 AS bytes
  FROM pg_description d JOIN pg_class c ON c.oid = d.objoid JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE d.classoid = 'pg_class'::regclass AND d.objsubid = 0 AND strpos(d.description, %s) > 0
   AND NOT EXISTS (SELECT FROM pg_inherits i WHERE i.inhrelid = c.oid)
 ORDER BY 2, 3
"""

_BOUND = re.compile(r"^FOR VALUES FROM \((.+)\) TO \((.+)\)$")

Bound = datetime | date | int | None
"""A bound of a range; None for MINVALUE, MAXVALUE and what Python has no value for."""


@dataclass(frozen=True, slots=True)
class PartitionKey:
    """How a table is partitioned. ``column`` and ``base`` (its type) are None for an expression."""

    strategy: str
    columns: int
    column: str | None
    base: str | None
    has_default: bool

    def by_range_of(self, column: str | None) -> bool:
        """Whether it is partitioned by ranges of this one column."""
        return self.strategy == "r" and self.columns == 1 and self.column is not None and self.column == column


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition; rows from ``lower`` on and before ``upper``. ``pending``: its detachment was begun."""

    oid: int
    schema: str
    name: str
    bound: str
    default: bool
    lower: Bound
    upper: Bound
    pending: bool
    bytes: float
    rows: float

    @property
    def identifier(self) -> sql.Identifier:
        """Its name, for psycopg.sql."""
        return sql.Identifier(self.schema, self.name)

    @property
    def shown(self) -> str:
        """Its name, for people."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Detached:
    """A former partition of ``parent`` (schema.name) with the range ``bound``, taken out at ``at``."""

    oid: int
    schema: str
    name: str
    comment: str
    bytes: float
    parent: str
    bound: str
    at: datetime

    @property
    def identifier(self) -> sql.Identifier:
        """Its name, for psycopg.sql."""
        return sql.Identifier(self.schema, self.name)


def partition_key(session: Session, oid: int) -> PartitionKey | None:
    """How a table is partitioned, None when it is not."""
    found = session.tuples(_KEY, (oid,))
    return PartitionKey(*found[0]) if found else None


def partitions(session: Session, oid: int, base: str | None) -> list[Partition]:
    """The partitions of a table in the order of their ranges, the default one last. ``base``: type of the key."""
    query = sql.SQL(_PARTITIONS).format(pending=sql.SQL("i.inhdetachpending"))
    found = []
    for row in session.rows(query, (oid,)):
        lower, upper = bounds(row.bound or "", base)
        default = row.bound == "DEFAULT"
        found.append(
            Partition(
                row.oid, row.schema, row.name, row.bound or "", default, lower, upper, row.pending, row.bytes, row.rows
            )
        )
    return sorted(found, key=lambda one: (one.default, one.lower is not None, _sortable(one.lower)))


def bounds(bound: str, base: str | None) -> tuple[Bound, Bound]:
    """Lower and upper bound from ``FOR VALUES FROM (...) TO (...)`` in ISO style."""
    found = _BOUND.match(bound)
    if found is None:
        return None, None
    return _value(found[1], base), _value(found[2], base)


def _value(text: str, base: str | None) -> Bound:
    text = text.strip("'")
    try:
        match base:
            case "timestamptz" | "timestamp":
                return datetime.fromisoformat(text)
            case "date":
                return date.fromisoformat(text)
            case "int2" | "int4" | "int8":
                return int(text)
    except ValueError:
        return None
    return None


def _sortable(bound: Bound) -> Any:
    return "" if bound is None else bound.isoformat() if isinstance(bound, date) else f"{bound + 2**63:020d}"


def marked(comment: str | None, parent: str, bound: str, now: datetime) -> str:
    """A comment with the line that says that the partition is taken out; what it said before stays."""
    told = json.dumps({"from": parent, "bound": bound, "at": now.isoformat()})
    return "\n".join(filter(None, (unmarked(comment), MARK + told)))


def unmarked(comment: str | None) -> str:
    """A comment without that line."""
    return "\n".join(line for line in (comment or "").splitlines() if not line.startswith(MARK))


def detached(session: Session, parent: str) -> Sequence[Detached]:
    """The former partitions of a table that were taken out and are still there."""
    found = []
    for row in session.rows(_DETACHED, (MARK,)):
        line = next((one for one in row.comment.splitlines() if one.startswith(MARK)), "")
        try:
            told = json.loads(line.removeprefix(MARK))
            at = datetime.fromisoformat(told["at"])
            if told["from"] == parent:
                found.append(Detached(row.oid, row.schema, row.name, row.comment, row.bytes, parent, told["bound"], at))
        except (ValueError, KeyError, TypeError):
            continue  # somebody wrote over it: not ours to drop
    return found
