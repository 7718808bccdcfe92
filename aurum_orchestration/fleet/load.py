"""fleet.yaml to :class:`Fleet`; everything that is wrong in it is told at once, with its line."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aurum_orchestration.errors import ConfigurationError, nearest
from aurum_orchestration.fleet.config import (
    BUILTIN_BACKEND_TYPES,
    BackendConfig,
    FleetConfig,
    IcebergBackendConfig,
    TableRule,
    backend_model,
)
from aurum_orchestration.fleet.fleet import Fleet
from aurum_orchestration.fleet.notifications import NotificationRule
from aurum_orchestration.fleet.policy import (
    SECTION_MODELS,
    PolicyModels,
    builtin_policy_models,
    combined_problems,
    section_problems,
)
from aurum_orchestration.fleet.problems import Key, Problem, as_error, from_detail
from aurum_orchestration.fleet.table_id import literal_id, literal_prefix
from aurum_orchestration.fleet.yaml_file import YamlFile
from aurum_orchestration.settings import AurumSettings, DataBackendSettings


def load_fleet(
    path: Path | None = None,
    settings: AurumSettings | None = None,
    *,
    policy_models: PolicyModels | None = None,
    backend_types: Iterable[str] | None = None,
) -> Fleet:
    """The fleet that a file describes.

    ``path`` defaults to the settings' fleet file. When that one is not there and nobody named it (by
    argument or environment), the fleet is the one backend of the data-backend settings.
    ``policy_models`` are the Policy models by operation, default: those of this package;
    ``backend_types`` are types known besides those of this package.

    Raises ConfigurationError that lists every problem with file, line and key.
    """
    settings = settings or AurumSettings.from_env()
    models = builtin_policy_models() if policy_models is None else {**SECTION_MODELS, **policy_models}
    file = path or settings.fleet
    named = settings.names_fleet or file != settings.fleet
    if not named and not file.exists():
        return Fleet(_without_file(settings.data_backend), home=settings.home, policy_models=models)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the fleet file {file} cannot be read: {error}", hint="Name the file by --fleet or AURUM_FLEET."
        ) from error
    content = YamlFile(text, {**os.environ, "AURUM_HOME": str(settings.home)}.get)
    config, problems = check(content.data, models, {*BUILTIN_BACKEND_TYPES, *(backend_types or ())})
    if config is None or content.problems:
        raise as_error(file, [*content.problems, *_not_told_yet(problems, content.problems)], content.line)
    return Fleet(config, home=settings.home, path=file, policy_models=models, line=content.line)


def check(data: Any, models: PolicyModels, backend_types: Iterable[str]) -> tuple[FleetConfig | None, list[Problem]]:
    """The configuration that plain data holds, or None and all that is wrong with it."""
    problems = [*_structure_problems(data), *_policy_problems(data, models), *_name_problems(data, backend_types)]
    if problems:
        return None, problems
    config = FleetConfig.model_validate(data)
    problems = [*combined_problems(config, models), *_clashing_assets(config)]
    return (None, problems) if problems else (config, [])


def _not_told_yet(problems: Iterable[Problem], told: Iterable[Problem]) -> list[Problem]:
    """Without what follows from a place already told, such as the empty value of an unset variable."""
    places = {problem.path for problem in told}
    return [problem for problem in problems if () not in places and problem.path not in places]


def _structure_problems(data: Any) -> Iterator[Problem]:
    if not isinstance(data, Mapping):
        yield Problem((), "the file has to hold version, backends, policy and tables")
        return
    try:
        FleetConfig.model_validate(data)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            place = detail["loc"]
            yield from_detail(detail, _words(place, data), show_value=not _may_be_secret(place))


def _may_be_secret(place: Key) -> bool:
    """Whether what stands there is not to be shown: connection keys, and where notices go."""
    return (place[:1] == ("backends",) and len(place) != 2) or (place[:1] == ("notifications",) and "on" not in place)


def _words(place: Key, data: Mapping[str, Any]) -> Iterable[str]:
    """The keys that are known where ``place`` stands."""
    match place:
        case ("backends", name, _):
            return backend_model(data["backends"][name].get("type")).model_fields
        case ("tables", _, _):
            return TableRule.model_fields
        case ("notifications", _, _):
            return NotificationRule.model_fields
        case (_,):
            return FleetConfig.model_fields
        case _:
            return ()


def _policy_problems(data: Any, models: PolicyModels) -> Iterator[Problem]:
    """Wrong policies, wherever they are written."""
    if isinstance(data, Mapping):
        yield from section_problems(data.get("policy"), ("policy",), models)
        for path, holder in [*_members(data, "backends"), *_members(data, "tables")]:
            yield from section_problems(holder.get("policy"), (*path, "policy"), models)


def _members(data: Mapping[str, Any], key: str) -> Iterator[tuple[Key, Mapping[str, Any]]]:
    """The mappings below a key that holds a mapping or a list of them."""
    below = data.get(key)
    items = below.items() if isinstance(below, Mapping) else enumerate(below) if isinstance(below, list) else ()
    for name, member in items:
        if isinstance(member, Mapping):
            yield (key, name), member


def _name_problems(data: Any, backend_types: Iterable[str]) -> Iterator[Problem]:
    """Backend types that do not exist, rules for backends that do not, keys that look like a slip."""
    if not isinstance(data, Mapping):
        return
    types = sorted(backend_types)
    names: list[str] = []
    for path, backend in _members(data, "backends"):
        names.append(str(path[-1]))
        kind = backend.get("type")
        if isinstance(kind, str) and kind not in types:
            yield Problem((*path, "type"), f"no backend type is named {kind!r}", nearest(kind, types))
        if backend_model(kind) is BackendConfig:
            yield from _slips(backend, path)
    for path, rule in _members(data, "tables"):
        glob = rule.get("match")
        if names and isinstance(glob, str):
            yield from _unknown_backend(glob, (*path, "match"), names)
    for path, rule in _members(data, "notifications"):
        globs = rule.get("tables")
        for number, glob in enumerate(globs if names and isinstance(globs, list) else ()):
            if isinstance(glob, str):
                yield from _unknown_backend(glob, (*path, "tables", number), names)


def _slips(backend: Mapping[str, Any], path: Key) -> Iterator[Problem]:
    # a backend type without a model of its own may have any connection key, so only near misses are certain
    for key in backend:
        if key not in BackendConfig.model_fields:
            close = difflib.get_close_matches(key, BackendConfig.model_fields, n=1, cutoff=0.8)
            if close:
                yield Problem((*path, key), "unknown key", f"Did you mean {close[0]!r}?")


def _unknown_backend(glob: str, path: Key, names: list[str]) -> Iterator[Problem]:
    try:
        prefix = literal_prefix(glob)
    except ValueError:
        return  # told as a wrong glob
    if prefix and prefix[0] not in names:
        yield Problem(path, f"no backend is named {prefix[0]!r}", nearest(prefix[0], names))


def _clashing_assets(config: FleetConfig) -> Iterator[Problem]:
    taken: dict[tuple[str, ...], str] = {}
    for number, rule in enumerate(config.tables):
        if rule.asset_key is not None:
            table = str(literal_id(rule.match))
            other = taken.setdefault(tuple(rule.asset_key), table)
            if other != table:
                yield Problem(("tables", number, "asset_key"), f"{other} has the same asset key")


def _without_file(backend: DataBackendSettings) -> FleetConfig:
    """One backend named iceberg, through Trino when a host is set."""
    keys = {"type": "iceberg", "catalog": {"name": backend.iceberg_catalog}, **backend.trino_keys()}
    try:
        iceberg = IcebergBackendConfig.model_validate(keys)
    except ValidationError as error:
        told = "; ".join(problem["msg"].removeprefix("Value error, ") for problem in error.errors(include_input=False))
        raise ConfigurationError(f"AURUM_DATA_BACKEND_TRINO_*: {told}") from None
    return FleetConfig(version=1, backends={"iceberg": iceberg})
