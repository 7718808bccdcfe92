"""Ids of tables as people write them: ``backend.namespace.table``, odd names in double quotes.

``lake.flights.planes`` has three parts. A part that is not made of letters, digits, ``_`` and ``-``
is written in double quotes, a quote inside doubled: ``lake."my.ns"."t""x"``. In a glob, outside
quotes, ``*`` stands for any characters of one part, ``?`` for one of them, and ``**`` for any
characters including the dots between parts. Inside quotes nothing is special.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import msgspec

from aurum_orchestration.errors import RequestError

_PLAIN = re.compile(r"[\w-]+")
_TOKEN = re.compile(r'"((?:[^"]|"")*+)"|(\.)|([^".]+)')
_WILD = re.compile(r"\*\*|\*|\?")
# between parts in what globs are matched against; a name cannot hold it
_BETWEEN = "\0"


@lru_cache(maxsize=65536)
def quote_part(part: str) -> str:
    """A part as it is written in an id: as it is when plain, else in double quotes."""
    return part if _PLAIN.fullmatch(part) else '"' + part.replace('"', '""') + '"'


class TableId(msgspec.Struct, frozen=True, order=True, cache_hash=True, gc=False):
    """A table's id: the backend's name and the parts of its name there. Prints as it is written."""

    backend: str
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> TableId:
        """The id written as ``text``. Raises RequestError when it is not well formed or a glob."""
        table = literal_id(text)
        if table is None:
            raise RequestError(
                f"{text!r} is not a table id",
                hint="Write backend.namespace.table, e.g. lake.flights.flights; put a name with * or ? in quotes.",
            )
        return table

    def __str__(self) -> str:
        return ".".join([quote_part(self.backend), *map(quote_part, self.parts)])

    @property
    def name(self) -> str:
        """The last part: the table's own name."""
        return self.parts[-1]

    @property
    def namespace(self) -> tuple[str, ...]:
        """The parts between backend and table name."""
        return self.parts[:-1]


def literal_id(glob: str) -> TableId | None:
    """The only table a glob can match: an id without ``*`` and ``?``. None for every other glob.

    Raises RequestError when the glob is not well formed.
    """
    names = _literal(glob)
    return TableId(names[0], names[1:]) if names and len(names) > 1 else None


@lru_cache(maxsize=65536)
def _literal(glob: str) -> tuple[str, ...] | None:
    names = literal_prefix(glob)
    return names if len(names) == len(_split(glob)) else None


def literal_prefix(glob: str) -> tuple[str, ...]:
    """The leading parts of a glob that hold no ``*`` and no ``?``: every match starts with them."""
    names: list[str] = []
    for part in _split(glob):
        if any(not quoted and _WILD.search(text) for quoted, text in part):
            break
        names.append("".join(text for _, text in part))
    return tuple(names)


def check_glob(glob: str) -> str:
    """``glob`` itself. Raises RequestError when it is not well formed."""
    _split(glob)
    return glob


def matches(glob: str, table: TableId) -> bool:
    """True when the glob (over the whole id, backend included) matches the table."""
    return _pattern(glob).fullmatch(_BETWEEN.join((table.backend, *table.parts))) is not None


def discovered_by(patterns: Sequence[str], table: TableId) -> bool:
    """True when ``discover`` of a backend covers the table; no pattern covers everything.

    Patterns are relative to the backend: globs over the rest of the id, or namespaces (names without a
    wildcard, or of one part only), which cover all that is in them, however deep.
    """
    inside = _BETWEEN.join(table.parts)
    return not patterns or any(_coverage(pattern).fullmatch(inside) for pattern in patterns)


@lru_cache(maxsize=65536)
def _coverage(pattern: str) -> re.Pattern[str]:
    expression = _expression(pattern)
    if _literal(pattern) is not None or len(_split(pattern)) == 1:
        expression += f"(?:{_BETWEEN}.*)?"
    return re.compile(expression, re.DOTALL)


@lru_cache(maxsize=65536)
def _pattern(glob: str) -> re.Pattern[str]:
    return re.compile(_expression(glob), re.DOTALL)


def _expression(glob: str) -> str:
    parts = ("".join(re.escape(text) if quoted else _wild(text) for quoted, text in part) for part in _split(glob))
    return _BETWEEN.join(parts)


def _wild(text: str) -> str:
    meaning = {"**": ".*", "*": f"[^{_BETWEEN}]*", "?": f"[^{_BETWEEN}]"}
    out, position = [], 0
    for match in _WILD.finditer(text):
        out += [re.escape(text[position : match.start()]), meaning[match.group()]]
        position = match.end()
    return "".join([*out, re.escape(text[position:])])


@lru_cache(maxsize=65536)
def _split(text: str) -> tuple[tuple[tuple[bool, str], ...], ...]:
    """The parts of an id or glob, each as pieces: (was it quoted, the text without quotes)."""
    parts: list[list[tuple[bool, str]]] = [[]]
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise RequestError(f"{text!r}: a quote is not closed", hint='Close it; write a quote inside as "".')
        quoted, dot, plain = match.groups()
        position = match.end()
        if dot:
            parts.append([])
        elif quoted is not None:
            parts[-1].append((True, quoted.replace('""', '"')))
        else:
            parts[-1].append((False, plain))
    for part in parts:
        joined = "".join(name for _, name in part)
        if not joined or _BETWEEN in joined:
            raise RequestError(f"{text!r}: a name is missing, empty or holds a NUL", hint="Separate names by one dot.")
        if len(part) > 1 and not any(not quoted and _WILD.search(name) for quoted, name in part):
            raise RequestError(f"{text!r}: two names stand together", hint="Separate names by one dot.")
    return tuple(map(tuple, parts))
