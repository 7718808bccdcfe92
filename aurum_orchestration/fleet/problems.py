"""What is wrong in a configuration file, and how it is told: file, line, key, the nearest right word."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
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
    location = (*path, *detail["loc"])
    kind = detail["type"]
    message = _MESSAGES.get(kind, detail["msg"].removeprefix("Value error, "))
    if kind == "extra_forbidden":
        return Problem(location, message, nearest(str(location[-1]), words))
    if kind.endswith(("_type", "_parsing", "literal_error")) and show_value and _is_scalar(detail["input"]):
        message += f" (it is {redact(repr(detail['input']))})"
    if kind == "literal_error" and isinstance(detail["input"], str):
        expected = str(detail.get("ctx", {}).get("expected", ""))
        return Problem(location, message, nearest(detail["input"], expected.replace(" or ", ", ").replace("'", "").split(", ")))
    return Problem(location, message)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def as_error(path: Path, problems: Iterable[Problem], line: Callable[[Key], int | None]) -> ConfigurationError:
    """All problems of a file as one error, in the order of the file."""
    located = sorted({(line(problem.path) or 0, _tell(problem), problem.hint or "") for problem in problems})
    told = [
        " ".join(part for part in (f"{path}:{number}: {text}." if number else f"{path}: {text}.", hint) if part)
        for number, text, hint in located
    ]
    if len(told) == 1:
        return ConfigurationError(told[0])
    return ConfigurationError("\n".join([f"{path}: {len(told)} errors", *told]))


def _tell(problem: Problem) -> str:
    key = spell(problem.path)
    return f"{key}: {problem.message}" if key else problem.message


def spell(path: Key) -> str:
    """A place as a person reads it: ``tables[2].policy.compaction``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def plain_keys(value: Mapping[str, Any]) -> list[str]:
    """The keys of a mapping as text."""
    return [str(key) for key in value]
