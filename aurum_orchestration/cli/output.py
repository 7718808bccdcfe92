"""Where output goes: results on stdout (text or JSON), everything else on stderr."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, TypeAdapter
from pydantic_core import to_json, to_jsonable_python
from rich.console import Console, RenderableType

_UNWRAPPED = 10_000
"""Width of a pipe: a program reads it, so a record stays on its line."""

S = TypeVar("S", bound=BaseModel)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty() and not os.environ.get("COLUMNS", "").isdigit()
    return Console(stderr=stderr, width=_UNWRAPPED if piped else None, highlight=False, markup=False, emoji=False)


def stdout_console() -> Console:
    """The console of results. As wide as the terminal or ``COLUMNS`` says; a pipe without it is not wrapped."""
    return _console(stderr=False)


def stderr_console() -> Console:
    """The console of logs, progress and problems."""
    return _console(stderr=True)


def speaks_unicode(console: Console) -> bool:
    """True when the stream's encoding has block and arrow characters."""
    return console.encoding.startswith("utf")


def print_text(console: Console, renderable: RenderableType) -> None:
    """Print without cutting a long id, and without trailing blanks where no terminal needs them."""
    if console.is_terminal:
        console.print(renderable, crop=False)
        return
    with console.capture() as capture:
        console.print(renderable, crop=False)
    lines = [line.rstrip() for line in capture.get().splitlines()]
    console.file.write("\n".join(lines) + "\n")
    console.file.flush()


def print_object(item: BaseModel) -> None:
    """Print one JSON object; a number that JSON lacks (NaN) becomes null."""
    text = item.model_dump_json(indent=2, ensure_ascii=not speaks_unicode(stdout_console()))
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def print_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print as :func:`print_json` does the shapes that have these members, without making them first."""
    if speaks_unicode(stdout_console()):
        _write(orjson.dumps(rows, default=to_jsonable_python, option=orjson.OPT_INDENT_2))
    else:
        _write(to_json(rows, indent=2, inf_nan_mode="null", ensure_ascii=True))


def print_json(shape: type[S], items: Sequence[S]) -> None:
    """Print one JSON array of ``shape``; a number that JSON lacks (NaN) becomes null."""
    text = TypeAdapter(list[shape]).dump_json(  # type: ignore[valid-type]
        list(items), indent=2, ensure_ascii=not speaks_unicode(stdout_console())
    )
    _write(text)


def _write(text: bytes) -> None:
    """Print UTF-8, which of ten thousand tables is megabytes: as it is, where the stream takes it so."""
    sys.stdout.flush()
    if stdout_console().encoding == "utf-8" and hasattr(sys.stdout, "buffer"):
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.write(b"\n")
    else:
        sys.stdout.write(text.decode())
        sys.stdout.write("\n")
    sys.stdout.flush()
