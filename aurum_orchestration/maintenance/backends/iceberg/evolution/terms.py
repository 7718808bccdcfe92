"""Partition specs as people write them: ``day(ts)``, ``bucket(16, curve_id)``, ``truncate(3, name) as prefix``."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import (
    BucketTransform,
    DayTransform,
    HourTransform,
    IdentityTransform,
    MonthTransform,
    TimeTransform,
    Transform,
    TruncateTransform,
    VoidTransform,
    YearTransform,
)

from aurum_orchestration.errors import RequestError, nearest
from aurum_orchestration.maintenance.backends.iceberg.compact.partitioning import is_primitive_in_structs

_TERM = re.compile(
    r"(?:(?P<transform>[A-Za-z]+)\s*\((?P<arguments>.*)\)|(?P<column>\"[^\"]+\"|[^\s()\"]+))"
    r"(?:\s+as\s+(?P<name>\"[^\"]+\"|[^\s()\"]+))?",
    re.IGNORECASE | re.DOTALL,
)
_PLAIN: dict[str, type[Transform[Any, Any]]] = {
    "identity": IdentityTransform,
    "year": YearTransform,
    "month": MonthTransform,
    "day": DayTransform,
    "hour": HourTransform,
}
_SIZED: dict[str, type[BucketTransform[Any]] | type[TruncateTransform[Any]]] = {
    "bucket": BucketTransform,
    "truncate": TruncateTransform,
}
_EXAMPLE = "Write e.g. day(ts), bucket(16, id), truncate(3, name), or a column's name."


@dataclass(frozen=True, slots=True)
class Term:
    """A field of a spec that somebody asks for. ``name`` is the field's, if they gave one."""

    text: str
    column: str
    source_id: int
    transform: Transform[Any, Any]
    name: str | None

    def is_same(self, field: PartitionField) -> bool:
        """Whether a field of a spec does what is asked for."""
        alike = field.source_id == self.source_id and str(field.transform) == str(self.transform)
        return alike and self.name in (None, field.name)


@dataclass(frozen=True, slots=True)
class Change:
    """Names of fields that leave the current spec, and what is added to it."""

    remove: Sequence[str]
    add: Sequence[Term]


def parse_term(text: str, schema: Schema) -> Term:
    """A term for a table's columns. Raises RequestError for one that is none, naming the nearest right word."""
    match = _TERM.fullmatch(text.strip())
    if match is None:
        raise RequestError(f"partition field {text!r} cannot be understood", hint=_EXAMPLE)
    transform: Transform[Any, Any] = IdentityTransform()
    column = match["column"]
    if column is None:
        column, transform = _applied(text, match["transform"].lower(), match["arguments"])
    column = column.strip('"')
    columns = [
        name
        for identity in schema.field_ids
        if (name := schema.find_column_name(identity)) and is_primitive_in_structs(schema, identity)
    ]
    if column not in columns:
        raise RequestError(
            f"partition field {text!r}: there is no column {column!r} to partition by", hint=nearest(column, columns)
        )
    field = schema.find_field(column)
    if not transform.can_transform(field.field_type):
        raise RequestError(f"partition field {text!r}: {column!r} is a {field.field_type}, which has no {transform}")
    name = match["name"].strip('"') if match["name"] else None
    return Term(text, column, field.field_id, transform, name)


def _applied(text: str, name: str, arguments: str) -> tuple[str, Transform[Any, Any]]:
    name = name.removesuffix("s") if name.removesuffix("s") in _PLAIN else name
    if name in _PLAIN:
        return arguments.strip(), _PLAIN[name]()
    if name not in _SIZED:
        raise RequestError(
            f"partition field {text!r}: there is no transform {name!r}", hint=nearest(name, [*_PLAIN, *_SIZED])
        )
    parts = [part.strip() for part in arguments.split(",")]
    sizes = [part for part in parts if part.isdigit()]
    if len(parts) != 2 or len(sizes) != 1 or int(sizes[0]) < 1:
        raise RequestError(f"partition field {text!r}: {name} takes a number and a column", hint=_EXAMPLE)
    size = int(sizes[0])
    return next(part for part in parts if part is not sizes[0]), _SIZED[name](size)


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody asks for: the whole spec, or what to add and to remove."""

    spec: Sequence[str] | None
    add: Sequence[str]
    remove: Sequence[str]


def change_of(current: PartitionSpec, schema: Schema, asked: Asked, former: Collection[str]) -> Change:
    """What leads from the current spec to the one asked for; nothing when it is that already.

    ``former`` are names of fields that any spec of the table has had: one that is gone need not be removed.
    Fields that version 1 made void count as not there. Raises RequestError for a spec that cannot be.
    """
    there = [field for field in current.fields if not isinstance(field.transform, VoidTransform)]
    if asked.spec is not None:
        wanted = [parse_term(text, schema) for text in asked.spec]
        gone = [field for field in there if not any(term.is_same(field) for term in wanted)]
    else:
        wanted = [parse_term(text, schema) for text in asked.add]
        gone = [field for text in asked.remove if (field := _named(text, there, schema, former)) is not None]
    new = [term for term in wanted if not any(term.is_same(field) for field in there)]
    _refuse_twice(wanted, new, [field for field in there if field not in gone], schema)
    return Change([field.name for field in gone], new)


def _named(
    text: str, there: Sequence[PartitionField], schema: Schema, former: Collection[str]
) -> PartitionField | None:
    """The field that a text names; None for one that is not in the spec (any more)."""
    name = text.strip().strip('"')
    for field in there:
        if field.name == name:
            return field
    if name in former:
        return None
    term = parse_term(text, schema)
    return next((field for field in there if term.is_same(field)), None)


def _refuse_twice(wanted: Sequence[Term], new: Sequence[Term], kept: Sequence[PartitionField], schema: Schema) -> None:
    keys = [(term.source_id, str(term.transform)) for term in wanted]
    for term, key in zip(wanted, keys, strict=True):
        if keys.count(key) > 1:
            raise RequestError(f"partition field {term.text!r} is asked for twice")
    for term in new:
        others = [one.transform for one in new if one is not term and one.source_id == term.source_id]
        others += [field.transform for field in kept if field.source_id == term.source_id]
        if isinstance(term.transform, TimeTransform) and any(isinstance(one, TimeTransform) for one in others):
            name = schema.find_column_name(term.source_id)
            raise RequestError(
                f"partition field {term.text!r}: {name!r} would be partitioned by time twice, one part of the other",
                hint="Remove the other field in the same change: give the whole spec.",
            )
