"""YAML with line numbers and environment variables: a file to plain data, and where each key stands.

Unquoted values are typed as YAML 1.2 does, so ``no`` and ``on`` are text. ``${VAR}`` and
``${VAR:-default}`` are replaced in values; ``$${`` is a literal ``${``. What a variable brings into an
unquoted value is typed like anything written there, except under ``backends``, where it stays text:
a password of digits keeps its zeros.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import yaml

from aurum_orchestration.fleet.problems import Key, Problem, spell

Lookup = Callable[[str], str | None]
"""The value of an environment variable, None when it is not set."""

_VARIABLE = re.compile(r"\$(\$\{)|\$\{([^}]*)(\})?")
_REFERENCE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_SECRET_KEY = re.compile(
    r"(?i)(^|[._-])(password|passwd|secret|token|credential|((secret[._-]?)?access|account|private|secret)[._-]key)$"
)
_WRITTEN_PASSWORD = re.compile(r"://[^/@\s:]+:(?!\$\{)[^/@\s]+@")
_TAG = "tag:yaml.org,2002:"

_ParserBase: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Parser(_ParserBase):  # type: ignore[misc]  # libyaml's parser where it is there: 17 times faster
    """Composes nodes. PyYAML's own scalars follow YAML 1.1, where ``no`` is false; these follow 1.2."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012


for _tag, _regex, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", ["<"]),
):
    _Parser.add_implicit_resolver(_TAG + _tag, re.compile(rf"(?:{_regex})\Z"), _first)


class YamlFile:
    """The content of a file: ``data``, the ``problems`` found on the way, and the line of every key."""

    def __init__(self, text: str, lookup: Lookup) -> None:
        self.data: Any = None
        self.problems: list[Problem] = []
        self._lines: dict[Key, int] = {(): 1}
        self._lookup = lookup
        self._within: set[int] = set()
        self._flattened: set[int] = set()
        try:
            self._parser = _Parser(text)
            root = self._parser.get_single_node()
            self.data = self._value(root, ()) if root is not None else None
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            if mark:
                self._lines[()] = min(mark.line + 1, text.count("\n") + 1)
            told = " ".join(part for part in (error.context, error.problem) if part)
            hint = "A value with ${...} in it, within {} or [], has to be in quotes." if "${" in text else None
            self.problems.append(Problem((), f"this is not YAML: {told}", hint))
        except yaml.YAMLError as error:
            self.problems.append(Problem((), f"this is not YAML: {error}"))
        except RecursionError:
            self.problems.append(Problem((), "it is nested too deeply"))

    def line(self, key: Key) -> int:
        """The line, from 1, where a key stands; of what it would stand in when it is not in the file."""
        return next(self._lines[key[:length]] for length in range(len(key), -1, -1) if key[:length] in self._lines)

    def _value(self, node: yaml.Node, path: Key) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._within:
            self.problems.append(Problem(path, "an alias stands inside what it stands for"))
            return None
        self._within.add(id(node))
        try:
            return self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._list(node, path)
        finally:
            self._within.discard(id(node))

    def _list(self, node: yaml.Node, path: Key) -> list[Any]:
        values = []
        for number, item in enumerate(node.value):
            here = (*path, number)
            self._lines[here] = item.start_mark.line + 1
            values.append(self._value(item, here))
        return values

    def _mapping(self, node: yaml.MappingNode, path: Key) -> dict[str, Any]:
        if id(node) not in self._flattened:
            self._flattened.add(id(node))
            self._check_twice(node, path)
            self._parser.flatten_mapping(node)
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != f"{_TAG}str":
                self._lines.setdefault((*path, str(key_node.value)), key_node.start_mark.line + 1)
                self.problems.append(
                    Problem((*path, str(key_node.value)), "a key has to be text", "Write it in quotes.")
                )
                continue
            here = (*path, key_node.value)
            self._lines[here] = key_node.start_mark.line + 1
            values[key_node.value] = self._value(value_node, here)
        return values

    def _check_twice(self, node: yaml.MappingNode, path: Key) -> None:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode) and key_node.tag != f"{_TAG}merge":
                if key_node.value in seen:
                    self._lines[(*path, key_node.value)] = key_node.start_mark.line + 1
                    self.problems.append(Problem((*path, key_node.value), "stands there twice"))
                seen.add(key_node.value)

    def _scalar(self, node: yaml.ScalarNode, path: Key) -> Any:
        raw: str = node.value
        tag = node.tag
        in_backend = path[:1] == ("backends",)
        if in_backend or path[:1] == ("notifications",):
            self.problems.extend(_written_secret(raw, path))
        text = _VARIABLE.sub(lambda match: self._variable(match, path), raw) if "${" in raw else raw
        if text != raw and node.style in {None, ""} and not in_backend:
            tag = self._parser.resolve(yaml.ScalarNode, text, (True, False))
        if in_backend and "catalog" in path[2:3] and tag != f"{_TAG}null":
            return text
        try:
            return _typed(text, tag)
        except ValueError:
            self.problems.append(Problem(path, f"{tag.removeprefix(_TAG)} is no tag for this value"))
            return None

    def _variable(self, match: re.Match[str], path: Key) -> str:
        if match.group(1):
            return match.group(1)
        reference = _REFERENCE.fullmatch(match.group(2))
        if reference is None or not match.group(3):
            self.problems.append(
                Problem(path, f"{match.group()} is no variable", "Write ${NAME}, ${NAME:-default}, or $${ for itself.")
            )
            return ""
        name, default = reference.groups()
        value = self._lookup(name)
        if default is not None:
            return value or default
        if value is None:
            self.problems.append(
                Problem(path, f"the environment variable {name} is not set", f"Set it, or write ${{{name}:-default}}.")
            )
            return ""
        return value


def _typed(text: str, tag: str) -> Any:
    match tag.removeprefix(_TAG):
        case "str":
            return text
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float":
            return float(text)
        case _:
            raise ValueError(tag)


def _written_secret(raw: str, path: Key) -> Iterator[Problem]:
    named = isinstance(path[-1], str) and _SECRET_KEY.search(path[-1]) and raw and "${" not in raw
    if named or _WRITTEN_PASSWORD.search(raw):
        variable = re.sub(r"\W+", "_", spell(path).removeprefix("backends.")).upper()
        yield Problem(path, "a secret is written in the file", f"Put it into the environment: ${{{variable}}}.")
