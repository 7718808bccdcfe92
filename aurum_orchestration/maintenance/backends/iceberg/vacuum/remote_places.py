"""Folders of a table on storages that are not local: through Arrow's file system, on S3 in bulk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import pyarrow.fs as pafs
from pyiceberg.io import FileIO

from aurum_orchestration.errors import StorageWriteError, UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.files import in_threads
from aurum_orchestration.maintenance.backends.iceberg.objects import Objects, is_object, objects_of
from aurum_orchestration.maintenance.backends.iceberg.reachability import normalised
from aurum_orchestration.maintenance.backends.iceberg.storage import DELETED, MISSING
from aurum_orchestration.maintenance.backends.iceberg.vacuum.places import (
    MOVED,
    OCCUPIED,
    Place,
    Stored,
    answering,
    first_line,
)

_WORTH_A_LISTING = 200
"""From this many files on, one listing of the folder that holds them all is taken instead of a request for each."""


def remote_place(io: FileIO, root: str) -> Place:
    """The folder at a location that is no local path. Raises UnsupportedError when it cannot be listed."""
    system, path = _arrow(io, root)
    objects = objects_of(io) if is_object(root) else None
    return ArrowPlace(root, system, path) if objects is None else ObjectPlace(root, system, path, objects)


class ArrowPlace(Place):
    """A folder of any other storage, through its Arrow file system."""

    def __init__(self, root: str, system: pafs.FileSystem, path: str) -> None:
        super().__init__(root)
        self._system, self._path = system, path.rstrip("/")
        if not self.root.endswith(self._path):
            raise UnsupportedError(f"the path {root} is {path} to its file system")
        self._prefix = self.root[: len(self.root) - len(self._path)]

    def at(self, location: str) -> Place:
        """See :class:`Place`."""
        return ArrowPlace(location, self._system, self._inside(location))

    def files(self, known: Container[str], skip: Callable[[str, bool], bool]) -> Iterator[Stored]:
        """See :class:`Place`."""
        for info in self._below(self._path, recursive=True):
            if info.type != pafs.FileType.File:
                continue
            *folders, name = info.path[len(self._path) + 1 :].split("/")
            if any(one[:1] in {".", "_"} and skip(one, True) for one in folders):
                continue
            if not name or (name[0] in "._" and skip(name, False)):
                continue
            self.listed += 1
            location = self._prefix + info.path
            if normalised(location) not in known:
                yield _stored(location, info)

    def stat(self, locations: Sequence[str]) -> Iterator[Stored | None]:
        """See :class:`Place`."""

        def one(location: str) -> Stored | None:
            info = self._system.get_file_info(self._inside(location))
            return _stored(location, info) if info.type == pafs.FileType.File else None

        if len(locations) < _WORTH_A_LISTING:
            with answering(self.root):
                yield from in_threads(one, locations)
            return
        asked = {self._inside(location): location for location in locations}
        around = os.path.commonpath(asked)
        found = {
            asked[info.path]: _stored(asked[info.path], info)
            for info in self._below(around, recursive=True)
            if info.type == pafs.FileType.File and info.path in asked
        }
        yield from map(found.get, locations)

    def move(self, pairs: Sequence[tuple[Stored, str]]) -> Iterator[str]:
        """See :class:`Place`."""
        yield from in_threads(self._move, pairs)

    def _move(self, pair: tuple[Stored, str]) -> str:
        """Copy, look at the copy, delete the original."""
        source, target = self._inside(pair[0].location), self._inside(pair[1])
        try:
            if self._system.get_file_info(target).type != pafs.FileType.NotFound:
                return OCCUPIED
            with contextlib.suppress(NotImplementedError):
                self._system.create_dir(target.rpartition("/")[0], recursive=True)
            self._system.copy_file(source, target)
            if self._system.get_file_info(target).size != pair[0].size:
                self._system.delete_file(target)
                return "its copy came out with another size"
            self._system.delete_file(source)
        except FileNotFoundError:
            return MISSING
        except Exception as error:
            return first_line(error)
        return MOVED

    def delete(self, locations: Sequence[str]) -> Iterator[str]:
        """See :class:`Place`."""

        def one(location: str) -> str:
            try:
                self._system.delete_file(self._inside(location))
            except FileNotFoundError:
                return MISSING
            except Exception as error:
                return first_line(error)
            return DELETED

        yield from in_threads(one, locations)

    def write(self, location: str, content: bytes) -> Stored:
        """See :class:`Place`."""
        path = self._inside(location)
        try:
            with contextlib.suppress(NotImplementedError):
                self._system.create_dir(path.rpartition("/")[0], recursive=True)
            with self._system.open_output_stream(path) as stream:
                stream.write(content)
            return _stored(location, self._system.get_file_info(path))
        except Exception as error:
            raise StorageWriteError(f"{location} cannot be written: {first_line(error)}") from error

    def read(self, location: str, most: int | None = None) -> bytes:
        """See :class:`Place`."""
        with answering(location), self._system.open_input_stream(self._inside(location)) as stream:
            return bytes(stream.read(most))

    def folders(self, location: str) -> list[str]:
        """See :class:`Place`."""
        found = self._below(self._inside(location), recursive=False)
        return sorted(self._prefix + info.path for info in found if info.type == pafs.FileType.Directory)

    def remove_folder(self, location: str) -> None:
        """See :class:`Place`."""
        path = self._inside(location)
        with contextlib.suppress(Exception):
            if not any(info.type == pafs.FileType.File for info in self._below(path, recursive=True)):
                self._system.delete_dir(path)

    def _below(self, path: str, *, recursive: bool) -> list[Any]:
        with answering(self._prefix + path):
            found: list[Any] = self._system.get_file_info(
                pafs.FileSelector(path, recursive=recursive, allow_not_found=True)
            )
        return found

    def _inside(self, location: str) -> str:
        """The path of a location that is spelled like this folder's."""
        if not location.startswith(self._prefix):
            raise UnsupportedError(f"{location} is not on the storage of {self.root}")
        return location[len(self._prefix) :]


class ObjectPlace(ArrowPlace):
    """A folder of an S3-compatible store, which has no folders: what is not needed for reading goes in bulk."""

    def __init__(self, root: str, system: pafs.FileSystem, path: str, objects: Objects) -> None:
        super().__init__(root, system, path)
        self._objects = objects

    def at(self, location: str) -> Place:
        """See :class:`Place`."""
        return ObjectPlace(location, self._system, self._inside(location), self._objects)

    def move(self, pairs: Sequence[tuple[Stored, str]]) -> Iterator[str]:
        """See :class:`Place`. All are copied, and the copies looked at, before the originals go."""
        outcomes = list(in_threads(self._copy, pairs))
        copied = [number for number, outcome in enumerate(outcomes) if outcome == MOVED]
        deleted = self._objects.delete([pairs[number][0].location for number in copied])
        for number, why in zip(copied, deleted, strict=True):
            outcomes[number] = f"copied, but the original stays: {why}" if why else MOVED
        yield from outcomes

    def _copy(self, pair: tuple[Stored, str]) -> str:
        file, target = pair
        try:
            if self._objects.size(target) is not None:
                return OCCUPIED
            self._objects.copy(file.location, target, file.size)
            if self._objects.size(target) != file.size:
                list(self._objects.delete([target]))
                return "its copy came out with another size"
        except FileNotFoundError:
            return MISSING
        except Exception as error:
            return first_line(error)
        return MOVED

    def delete(self, locations: Sequence[str]) -> Iterator[str]:
        """See :class:`Place`. What was not there counts as deleted."""
        for why in self._objects.delete(locations):
            yield why or DELETED

    def write(self, location: str, content: bytes) -> Stored:
        """See :class:`Place`. Without the markers of folders that Arrow leaves."""
        path = self._inside(location)
        try:
            with self._system.open_output_stream(path) as stream:
                stream.write(content)
            return _stored(location, self._system.get_file_info(path))
        except Exception as error:
            raise StorageWriteError(f"{location} cannot be written: {first_line(error)}") from error


def _stored(location: str, info: Any) -> Stored:
    return Stored(location, info.size or 0, (info.mtime_ns or 0) / 1e9)


def _arrow(io: Any, location: str) -> tuple[pafs.FileSystem, str]:
    """The Arrow file system of a PyIceberg FileIO, and the path of a location in it."""
    if hasattr(io, "fs_by_scheme"):
        scheme, netloc, path = io.parse_location(location, io.properties)
        return io.fs_by_scheme(scheme, netloc), path
    if hasattr(io, "get_fs"):
        parts = urlsplit(location)
        system = io.get_fs(parts.scheme or "file", parts.hostname)
        return pafs.PyFileSystem(pafs.FSSpecHandler(system)), system._strip_protocol(location)
    raise UnsupportedError(f"{type(io).__name__} cannot list files", hint="Use PyIceberg's pyarrow or fsspec FileIO.")
