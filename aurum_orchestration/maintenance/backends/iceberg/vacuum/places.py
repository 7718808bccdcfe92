"""Folders of a table as vacuum sees them: listed fast, with sizes and times, and with files moved about.

Locations go in and come out, spelled as the folder's own location is. Local folders are read with plain system
calls; all others are in ``remote_places``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Sequence
from typing import NamedTuple

from pyiceberg.io import FileIO

from aurum_orchestration.errors import BackendUnavailableError, StorageWriteError, UnsupportedError
from aurum_orchestration.maintenance.backends.iceberg.files import Files, in_threads, local_path
from aurum_orchestration.maintenance.backends.iceberg.reachability import normalised
from aurum_orchestration.maintenance.backends.iceberg.storage import LOCAL_THREADS, MISSING, unlink

MOVED = "moved"
OCCUPIED = "there is a file at the place where it would go"
"""What :meth:`Place.move` says; anything else but ``missing`` is another reason why it did not work."""


class Stored(NamedTuple):
    """A file on storage: its location, size in bytes, and when it was last written, in seconds since 1970."""

    location: str
    size: int
    modified: float


class Place(ABC):
    """One folder and what is below it."""

    def __init__(self, root: str) -> None:
        self.root = root.rstrip("/")
        self.listed = 0
        self.unreadable: list[str] = []

    @abstractmethod
    def at(self, location: str) -> Place:
        """A folder below, as a place of its own."""

    @abstractmethod
    def files(self, known: Container[str], skip: Callable[[str, bool], bool]) -> Iterator[Stored]:
        """Files below that are not ``known`` (normalised locations). ``listed`` counts all that were seen.

        ``skip`` is asked with the name of each file and folder that starts with a dot or an underscore, and
        whether it is a folder. Links are never followed nor told. What cannot be listed is in ``unreadable``.
        """

    @abstractmethod
    def stat(self, locations: Sequence[str]) -> Iterator[Stored | None]:
        """The files as they are now; None for one that is gone."""

    @abstractmethod
    def move(self, pairs: Sequence[tuple[Stored, str]]) -> Iterator[str]:
        """Move files to other locations, which must not exist: ``moved``, ``missing``, or why not."""

    @abstractmethod
    def delete(self, locations: Sequence[str]) -> Iterator[str]:
        """Delete files: ``deleted``, ``missing``, or why not."""

    @abstractmethod
    def write(self, location: str, content: bytes) -> Stored:
        """Write a whole file and say when, by the storage's clock. Raises StorageWriteError."""

    @abstractmethod
    def read(self, location: str, most: int | None = None) -> bytes:
        """A file's content, its first ``most`` bytes. Raises FileNotFoundError, BackendUnavailableError."""

    @abstractmethod
    def folders(self, location: str) -> list[str]:
        """Locations of the folders right in a folder; none when it is not there."""

    @abstractmethod
    def remove_folder(self, location: str) -> None:
        """Remove a folder and the folders in it, as far as they are empty."""


def place_of(io: FileIO, root: str) -> Place:
    """The folder at a location. Raises UnsupportedError when it cannot be listed, or its path is ambiguous."""
    if set(root) & set("?#;"):
        raise UnsupportedError(f"the path {root} has a character that readers understand in different ways")
    if Files(io.properties, io).plain and (path := local_path(root)) is not None:
        return LocalPlace(root, path)
    from aurum_orchestration.maintenance.backends.iceberg.vacuum.remote_places import remote_place

    return remote_place(io, root)


class LocalPlace(Place):
    """A folder on a local disk."""

    def __init__(self, root: str, path: str) -> None:
        super().__init__(root)
        self._path = normalised(path).removeprefix("file://")
        self._prefix = root[: len(root) - len(path)] or "file://"
        self._made: set[str] = set()

    def at(self, location: str) -> Place:
        """See :class:`Place`."""
        return LocalPlace(location, self._local(location))

    def files(self, known: Container[str], skip: Callable[[str, bool], bool]) -> Iterator[Stored]:
        """See :class:`Place`."""
        waiting = [self._path]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as entries:
                    found = list(entries)
            except FileNotFoundError:
                continue
            except OSError as error:
                self.unreadable.append(f"{folder}: {error.strerror or error}")
                continue
            start = f"file://{folder}/"
            for entry in found:
                name = entry.name
                is_folder = entry.is_dir(follow_symlinks=False)
                if name[0] in "._" and skip(name, is_folder):
                    continue
                if not name.isascii() and not _printable(name):
                    self.unreadable.append(f"{folder}/{name!a}: its name is no text")
                    continue
                if is_folder:
                    waiting.append(f"{folder}/{name}")
                elif entry.is_file(follow_symlinks=False):
                    self.listed += 1
                    if start + name not in known:
                        with contextlib.suppress(FileNotFoundError):
                            told = entry.stat(follow_symlinks=False)
                            yield Stored(f"{self._prefix}{folder}/{name}", told.st_size, told.st_mtime)

    def stat(self, locations: Sequence[str]) -> Iterator[Stored | None]:
        """See :class:`Place`."""
        for location in locations:
            try:
                told = os.stat(self._local(location), follow_symlinks=False)  # noqa: PTH116 - a million times
            except OSError:
                yield None
            else:
                yield Stored(location, told.st_size, told.st_mtime)

    def move(self, pairs: Sequence[tuple[Stored, str]]) -> Iterator[str]:
        """See :class:`Place`."""
        for source, target in pairs:
            yield self._move(self._local(source.location), self._local(target))

    def _move(self, source: str, target: str) -> str:
        try:
            folder = os.path.dirname(target)  # noqa: PTH120
            if folder not in self._made:
                os.makedirs(folder, exist_ok=True)  # noqa: PTH103
                self._made.add(folder)
            if os.path.lexists(target):
                return OCCUPIED
            _rename(source, target)
        except FileNotFoundError:
            self._made.discard(folder)
            return MISSING
        except OSError as error:
            return error.strerror or str(error)
        return MOVED

    def delete(self, locations: Sequence[str]) -> Iterator[str]:
        """See :class:`Place`."""
        parts = [locations[start : start + 250] for start in range(0, len(locations), 250)]
        for outcomes in in_threads(lambda part: [unlink(self._local(one)) for one in part], parts, LOCAL_THREADS):
            yield from outcomes

    def write(self, location: str, content: bytes) -> Stored:
        """See :class:`Place`."""
        path = self._local(location)
        draft = f"{path}.{uuid.uuid4().hex}"
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
            with open(draft, "xb") as stream:  # noqa: PTH123
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            told = os.stat(draft)  # noqa: PTH116
            os.rename(draft, path)  # noqa: PTH104
        except OSError as error:
            with contextlib.suppress(OSError):
                os.unlink(draft)  # noqa: PTH108
            raise StorageWriteError(f"{location} cannot be written: {error.strerror or error}") from error
        return Stored(location, told.st_size, told.st_mtime)

    def read(self, location: str, most: int | None = None) -> bytes:
        """See :class:`Place`."""
        with answering(location), open(self._local(location), "rb") as stream:  # noqa: PTH123
            return stream.read(most)

    def folders(self, location: str) -> list[str]:
        """See :class:`Place`."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._local(location)) as entries:
            return sorted(f"{location}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False))
        return []

    def remove_folder(self, location: str) -> None:
        """See :class:`Place`."""
        for folder, _, _ in os.walk(self._local(location), topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(folder)  # noqa: PTH106

    def _local(self, location: str) -> str:
        path = local_path(location)
        if path is None:
            raise UnsupportedError(f"{location} is no local path")
        return path


def _printable(name: str) -> bool:
    """False for a name whose bytes are no UTF-8: nothing that we write could name it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _rename(source: str, target: str) -> None:
    """Rename; between file systems copy first, under a name of its own, and delete last."""
    try:
        os.rename(source, target)  # noqa: PTH104
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        draft = f"{target}.{uuid.uuid4().hex}"
        shutil.copy2(source, draft, follow_symlinks=False)
        os.rename(draft, target)  # noqa: PTH104
        os.unlink(source)  # noqa: PTH108


@contextlib.contextmanager
def answering(location: str) -> Iterator[None]:
    """Says BackendUnavailableError of a storage that cannot be read; a file that is not there is left to the caller."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BackendUnavailableError(f"{location} cannot be read: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
