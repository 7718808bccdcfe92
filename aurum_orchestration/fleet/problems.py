"""What is wrong in a configuration file, and how it is told: file, line, key, the nearest right word."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from aurum_orchestration.errors import ConfigurationError, nearest, redact

Key = tuple[str | int, ...]
"""Where something stands in the file: the keys and list positions that lead to it."""

_MESSAGES = {
    "extra_forbidden": "unknown key",
    "too_short": "must not be empty",
    "missing": "is missing",
    "dict_type": "must be a mapping (key: value)",
    "model_type": "must be a mapping (key: value)",
    "model_attributes_type": "must be a mapping (key: value)",
    "list_type": "must be a list",
    "string_type": "must be text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what would be right."""

    path: Key
    message: str
    hint: str | None = None


def from_validation(error: ValidationError, model: type[BaseModel], path: Key = ()) -> Iterator[Problem]:
    """The problems of a failed validation; ``path`` leads to what was validated by ``model``."""
    for detail in error.errors(include_url=False):
        words: Iterable[str] = model.model_fields if len(detail["loc"]) == 1 else ()
        yield from_detail(detail, words, path)


def from_detail(detail: ErrorDetails, words: Iterable[str], path: Key = (), *, show_value: bool = True) -> Problem:
    """One of pydantic's errors as a problem; ``words`` are the keys that are known at that place."""
    location, kind, given = (*path, *detail["loc"]), detail["type"], detail["input"]
    told = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    message, hint = _MESSAGES.get(kind, told), None
    if kind == "extra_forbidden":
        return Problem(location, message, nearest(str(location[-1]), words))
    if kind == "literal_error" and isinstance(given, str):
        choices = re.findall(r"'([^']*)'", str(detail.get("ctx", {}).get("expected")))
        hint = nearest(given, choices) if choices else None
    if show_value and kind not in {"missing", "value_error", "too_short"} and _is_scalar(given):
        message += " (it is empty)" if given is None else f" (it is {redact(repr(given))})"
    return Problem(location, message, hint)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def as_error(path: Path, problems: Iterable[Problem], line: Callable[[Key], int]) -> ConfigurationError:
    """All problems of a file as one error, in the order of the file."""
    located = sorted({(line(each.path), spell(each.path), each.message, each.hint or "") for each in problems})
    told = []
    for number, key, message, hint in located:
        # the key in brackets: redaction takes "password: word" for a secret
        where = f"{path}:{number}{f' ({key})' if key else ''}"
        told.append(f"{where}: {message}.{f' {hint}' if hint else ''}")
    return ConfigurationError(told[0] if len(told) == 1 else "\n".join([f"{path}: {len(told)} errors", *told]))


def spell(path: Key) -> str:
    """A place as a person reads it: ``tables[2].policy.compaction``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
