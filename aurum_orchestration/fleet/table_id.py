"""Ids of tables as people write them: ``backend.namespace.table``, odd names in double quotes.

``lake.flights.planes`` has three parts. A part that is not made of letters, digits, ``_`` and ``-``
is written in double quotes, a quote inside doubled: ``lake."my.ns"."t""x"``. In a glob, outside
quotes, ``*`` stands for any characters of one part and ``**`` for any characters including dots;
``?`` stands for one character. Inside quotes nothing is special.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from aurum_orchestration.errors import RequestError

_PLAIN = re.compile(r"[\w-]+")
_TOKEN = re.compile(r'"(?:[^"]|"")*"|\.|[^".]+')


def quote_part(part: str) -> str:
    """A part as it is written in an id: as it is when plain, else in double quotes."""
    return part if _PLAIN.fullmatch(part) else '"' + part.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True, order=True)
class TableId:
    """A table's id: the backend's name and the parts of its name there. Prints as it is written."""

    backend: str
    parts: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> TableId:
        """The id written as ``text``. Raises RequestError when it is not well formed or a glob."""
        parts = _split(text)
        if len(parts) < 2:
            raise RequestError(
                f"{text!r} is not a table id", hint="Write backend.namespace.table, e.g. lake.flights.flights."
            )
        return cls(parts[0], tuple(parts[1:]))

    def __str__(self) -> str:
        return ".".join(quote_part(part) for part in (self.backend, *self.parts))

    @property
    def name(self) -> str:
        """The last part: the table's own name."""
        return self.parts[-1]

    @property
    def namespace(self) -> tuple[str, ...]:
        """The parts between backend and table name."""
        return self.parts[:-1]


def _split(text: str) -> list[str]:
    parts: list[str] = []
    expect_part = True
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise RequestError(f"{text!r}: a quote is not closed", hint='Close it; write a quote inside as "".')
        token, position = match.group(), match.end()
        if (token == ".") == expect_part:
            raise RequestError(f"{text!r}: a name is missing or two stand together", hint="Separate names by one dot.")
        if token != ".":
            part = token[1:-1].replace('""', '"') if token.startswith('"') else token
            if not part:
                raise RequestError(f"{text!r}: a name is empty")
            parts.append(part)
        expect_part = token == "."
    if expect_part:
        raise RequestError(f"{text!r}: a name is missing at the end" if text else "a table id is empty")
    return parts


@lru_cache(maxsize=4096)
def glob_pattern(glob: str) -> re.Pattern[str]:
    """A regular expression over ``str(TableId)`` that matches what ``glob`` means."""
    out: list[str] = []
    for token in re.findall(r'"(?:[^"]|"")*"|\*\*|.', glob, re.DOTALL):
        if token.startswith('"') and len(token) > 1:
            out.append(re.escape(quote_part(token[1:-1].replace('""', '"'))))
        elif token == "**":
            out.append(".*")
        elif token == "*":
            # one part: either plain characters or a quoted name
            out.append(r'(?:"(?:[^"]|"")*"|[^."]*)')
        elif token == "?":
            out.append(r'[^."]')
        else:
            out.append(re.escape(token))
    return re.compile("".join(out), re.DOTALL)


def matches(glob: str, table: TableId) -> bool:
    """True when the glob (over the whole id, backend included) matches the table."""
    return glob_pattern(glob).fullmatch(str(table)) is not None
