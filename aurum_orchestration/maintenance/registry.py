"""Names to classes: built in, announced by an installed package's entry points, or registered by code.

Nothing is imported before it is asked for by name, so a missing optional driver costs nothing until
it is used.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from aurum_orchestration.errors import AlreadyRegisteredError, ConfigurationError, UnknownNameError, nearest

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Registry(Generic[T]):
    """One kind of thing by name. ``builtin`` maps names to ``module:Class``, ``group`` is the entry-point group."""

    def __init__(self, kind: str, base: str, builtin: Mapping[str, str], group: str) -> None:
        self.kind = kind
        self.group = group
        self._base = base
        self._builtin = dict(builtin)
        self._registered: dict[str, type[T]] = {}
        self._announced: dict[str, EntryPoint] | None = None

    def register(self, name: str, cls: type[T]) -> None:
        """Make ``cls`` known as ``name``. Raises AlreadyRegisteredError when the name is taken."""
        key = str(name)
        base = _load(self._base)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise ConfigurationError(f"{self.kind} {key!r}: {cls!r} is not a subclass of {base.__name__}")
        if key in self.names():
            raise AlreadyRegisteredError(f"{self.kind} {key!r} is already registered", hint="Choose another name.")
        self._registered[key] = cls

    def names(self) -> tuple[str, ...]:
        """All known names, sorted, without importing what they stand for."""
        return tuple(sorted({*self._builtin, *self._entry_points(), *self._registered}))

    def get(self, name: str) -> type[T]:
        """The class known as ``name``. Raises UnknownNameError with the nearest name, MissingExtraError."""
        key = str(name)
        if key in self._registered:
            return self._registered[key]
        if key in self._builtin:
            return _load(self._builtin[key])
        point = self._entry_points().get(key)
        if point is None:
            raise UnknownNameError(f"no {self.kind} is named {key!r}", hint=nearest(key, self.names()))
        return self._load_announced(point)

    def all(self) -> dict[str, type[T]]:
        """Every class by name; an entry point that cannot be imported is left out and logged."""
        classes: dict[str, type[T]] = {}
        for name in self.names():
            try:
                classes[name] = self.get(name)
            except ConfigurationError as error:
                _log.error("%s", error)
        return classes

    def _entry_points(self) -> dict[str, EntryPoint]:
        if self._announced is None:
            announced: dict[str, EntryPoint] = {}
            for point in entry_points(group=self.group):
                taken = point.name in self._builtin or point.name in self._registered
                if taken or announced.get(point.name, point) != point:
                    raise AlreadyRegisteredError(
                        f"{self.kind} {point.name!r} of entry point {point.value!r} is already registered",
                        hint=f"Rename it in the package's entry-point group {self.group}.",
                    )
                announced[point.name] = point
            self._announced = announced
        return self._announced

    def _load_announced(self, point: EntryPoint) -> type[T]:
        try:
            cls = point.load()
        except Exception as error:
            raise ConfigurationError(
                f"{self.kind} {point.name!r}: entry point {point.value!r} cannot be imported: {error}"
            ) from error
        base = _load(self._base)
        if not (isinstance(cls, type) and issubclass(cls, base)):
            raise ConfigurationError(f"{self.kind} {point.name!r}: {point.value!r} is not a {base.__name__}")
        return cast(type[T], cls)


def _load(where: str) -> type:
    module, _, name = where.partition(":")
    loaded: type = getattr(importlib.import_module(module), name)
    return loaded
