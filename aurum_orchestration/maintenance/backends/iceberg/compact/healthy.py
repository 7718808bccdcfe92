"""Which row groups may be copied as they are. What is not known to be right is decoded.

A copy passes on what nobody looks at, so everything that a reader takes from the footer must mean the same
in the new file: physical types, annotations and field ids; the order that statistics are in and how far
readers trust them (which depends on ``created_by``); every offset. A field unknown here may hold an offset.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from aurum_orchestration.maintenance.backends.iceberg.compact.footer import (
    CODECS,
    MAGIC,
    Chunk,
    ColumnMeta,
    Element,
    FileMeta,
    Footer,
    Group,
    OpenSource,
    UnreadableFooterError,
    chunk_span,
    elements,
    meta,
    read_footer,
    value,
    walk_schema,
)
from aurum_orchestration.maintenance.backends.iceberg.compact.thrift_tree import I32, STRUCT, Struct
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import WriteOptions

HEALTHY_SHARE = 5
"""A row group is large enough from a fifth of the rows that a written one has,"""
HEALTHY_BYTES_SHARE = 8
"""or an eighth of the bytes (stored; a written one is bounded decoded)."""

_REQUIRED, _REPEATED = 0, 2
_FIRST_RIGHT = {"parquet-mr": (1, 10), "parquet-cpp": (1, 3)}
_VERSION = re.compile(rb"(?P<name>.+?) version v?(?P<major>\d+)\.(?P<minor>\d+)")


def least(options: WriteOptions) -> tuple[int, int]:
    """From so many rows, or so many stored bytes, a row group is large enough to stay."""
    return max(1, options.row_group_rows // HEALTHY_SHARE), max(1, options.row_group_bytes // HEALTHY_BYTES_SHARE)


def may_have_healthy(rows: int, size: int, options: WriteOptions) -> bool:
    """Whether a file of so many rows and bytes can have a row group that is large enough."""
    least_rows, least_bytes = least(options)
    return rows >= least_rows or size >= least_bytes


@dataclass(frozen=True)
class Template:
    """The footer that this engine's writer gives files of a table: what copied row groups must fit."""

    tree: Struct

    @classmethod
    def of(cls, schema: pa.Schema) -> Template:
        """The template for a table's Arrow schema."""
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, schema, store_decimal_as_integer=True, store_schema=False):
            pass
        data = sink.getvalue()
        return cls(read_footer(OpenSource(pa.BufferReader(data), "template"), data.size).tree)

    @cached_property
    def shape(self) -> list[Any]:
        """What the schema means; see :func:`_shape`."""
        return list(_shape(self.tree))

    @cached_property
    def leaves(self) -> list[list[bytes]]:
        """The path of every leaf column."""
        return [list(path) for element, path in walk_schema(self.tree) if Element.TYPE in element]

    @cached_property
    def flat(self) -> list[bool]:
        """For every leaf column whether each row has one value of it, null or not."""
        repeated = {path for element, path in walk_schema(self.tree) if value(element, Element.REPETITION) == _REPEATED}
        return [not any(tuple(path[:end]) in repeated for end in range(1, len(path) + 1)) for path in self.leaves]


def healthy_groups(footer: Footer, template: Template, options: WriteOptions) -> list[int]:
    """Positions of the row groups that may be copied into a file like ``template``."""
    if not _file_fits(footer, template):
        return []
    return [number for number, group in enumerate(footer.groups) if _group_fits(group, footer, template, options)]


def _file_fits(footer: Footer, template: Template) -> bool:
    tree = footer.tree
    if FileMeta.ENCRYPTION in tree or not _trusted(value(tree, FileMeta.CREATED_BY, b"")):
        return False
    if value(tree, FileMeta.COLUMN_ORDERS) != value(template.tree, FileMeta.COLUMN_ORDERS):
        return False
    try:
        return list(_shape(tree)) == template.shape
    except UnreadableFooterError:
        return False


def _trusted(created_by: bytes) -> bool:
    """False for writers whose statistics or pages readers treat with care when they see the name."""
    match = _VERSION.match(created_by)
    if match is None:
        return False
    first = _FIRST_RIGHT.get(match["name"].decode(errors="replace"))
    return first is None or (int(match["major"]), int(match["minor"])) >= first


def _group_fits(group: Struct, footer: Footer, template: Template, options: WriteOptions) -> bool:
    chunks = elements(group, Group.COLUMNS)
    rows = value(group, Group.NUM_ROWS, 0)
    least_rows, least_bytes = least(options)
    spans = [chunk_span(chunk) for chunk in chunks]
    if rows < least_rows and (rows == 0 or sum(span.length for span in spans) < least_bytes):
        return False
    if len(chunks) != len(template.leaves) or max(group) > Group.LAST:
        return False
    ordered = sorted(spans, key=lambda span: span.start)
    starts = [len(MAGIC), *(span.end for span in ordered)]
    apart = all(span.start >= start for span, start in zip(ordered, starts, strict=False))
    if not apart or min(span.length for span in spans) <= 0 or starts[-1] > footer.begins:
        return False
    wanted = [path.encode().split(b".") for path in options.bloom]
    return all(
        _chunk_fits(chunk, options.codec)
        and (not flat or value(meta(chunk), ColumnMeta.NUM_VALUES) == rows)
        and (path not in wanted or ColumnMeta.BLOOM in meta(chunk))
        for chunk, flat, path in zip(chunks, template.flat, template.leaves, strict=True)
    )


def _chunk_fits(chunk: Struct, codec: str) -> bool:
    column = meta(chunk)
    if not column or max(chunk) >= Chunk.CRYPTO or Chunk.FILE_PATH in chunk:
        return False
    if max(column) > ColumnMeta.LAST or ColumnMeta.INDEX_PAGE in column:
        return False
    return CODECS.get(value(column, ColumnMeta.CODEC)) == codec


def _shape(tree: Struct) -> Iterator[Any]:
    """Per element below the root what a reader must know, the same for all ways of writing it.

    The names of fields are not in it (they are found by id), nor what lists and maps call the groups inside.
    """
    for element, _ in walk_schema(tree):
        repetition = value(element, Element.REPETITION)
        children = value(element, Element.CHILDREN, 0)
        if children and repetition == _REPEATED:
            yield repetition, children
            continue
        yield (
            value(element, Element.FIELD_ID),
            repetition,
            children,
            value(element, Element.TYPE),
            value(element, Element.TYPE_LENGTH, 0) if value(element, Element.TYPE) == _FIXED else 0,
            _annotation(element),
        )


_FIXED, _INT32, _INT64 = 7, 1, 2
_EMPTY: tuple[int, Any] = STRUCT, {}
_MILLIS, _MICROS = {1: _EMPTY}, {2: _EMPTY}


def _time(unit: Struct) -> Struct:
    return {1: (2, True), 2: (STRUCT, unit)}


_CONVERTED: dict[int, tuple[int, Struct]] = {
    0: (1, {}),
    1: (2, {}),
    3: (3, {}),
    6: (6, {}),
    7: (7, _time(_MILLIS)),
    8: (7, _time(_MICROS)),
    9: (8, _time(_MILLIS)),
    10: (8, _time(_MICROS)),
}
"""Old annotations (``ConvertedType``) as the field of the union ``LogicalType`` that means the same."""


def _annotation(element: Struct) -> Any:
    logical = value(element, Element.LOGICAL)
    if logical:
        annotation: Any = {identity: content for identity, (_, content) in logical.items()}
        integer = annotation.get(10)
        if integer is None:
            return annotation
        width, signed = value(integer, 1), value(integer, 2)
        plain = signed and width == {_INT32: 32, _INT64: 64}.get(value(element, Element.TYPE))
        return None if plain else ("integer", width, signed)
    converted = value(element, Element.CONVERTED)
    if converted is None or (value(element, Element.TYPE), converted) in ((_INT32, 17), (_INT64, 18)):
        return None
    if converted == 5:
        scale, precision = value(element, Element.SCALE, 0), value(element, Element.PRECISION, 0)
        return {5: {1: (I32, scale), 2: (I32, precision)}}
    if converted in _CONVERTED:
        identity, content = _CONVERTED[converted]
        return {identity: content}
    return ("converted", converted)
