"""Reading whole metadata files: plain reads for local ones, PyIceberg's FileIO for all others."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar
from urllib.parse import urlsplit

from pyiceberg.io import FileIO, load_file_io

from aurum_orchestration.errors import AurumError, BackendUnavailableError, CorruptTableError

T = TypeVar("T")
R = TypeVar("R")

REMOTE_THREADS = 16
_OWN_IO = re.compile(r"py-io-impl$|(?:s3|gcs|adls|hdfs|hf|client)\.")
_LOCAL = re.compile(r"(?:file:(?://)?)?(/[^?#;]*)")


def local_path(location: str) -> str | None:
    """The path of a local file, or None when the location needs a FileIO.

    ``file:///x``, ``file:/x`` (as Java writes it) and ``/x`` are local. Paths are never decoded. A path
    with ``?``, ``#`` or ``;`` is left to PyIceberg, which takes these for parts of a URL.
    """
    match = _LOCAL.fullmatch(location)
    return match.group(1) if match and not match.group(1).startswith("//") else None


class Files:
    """Reads files of one catalog. Safe to share between threads."""

    def __init__(self, properties: Mapping[str, str], io: FileIO | None = None) -> None:
        self.properties = dict(properties)
        self._given = io
        self._ios: dict[tuple[str, str], FileIO] = {}

    def for_table(self, properties: Mapping[str, str]) -> Files:
        """How to read the files of a table with these properties of its own."""
        own = {key: value for key, value in properties.items() if _OWN_IO.match(key)}
        return self if self._given is not None or not own else Files({**self.properties, **own})

    @cached_property
    def plain(self) -> bool:
        """True when local files may be read without PyIceberg: no FileIO of the user's own is configured."""
        return "py-io-impl" not in self.properties

    def is_local(self, location: str) -> bool:
        """True when reading the file costs no request."""
        return self.plain and local_path(location) is not None

    def read(self, location: str) -> bytes:
        """The file's content. Raises CorruptTableError when it is missing or refused, else BackendUnavailableError."""
        path = local_path(location) if self.plain else None
        try:
            if path is not None:
                descriptor = os.open(path, os.O_RDONLY)
                try:
                    return _read_all(descriptor)
                finally:
                    os.close(descriptor)
            with self._io(location).new_input(location).open() as stream:
                return bytes(stream.read())
        except (FileNotFoundError, NotADirectoryError) as error:
            raise CorruptTableError(f"{location} is missing") from error
        except (PermissionError, IsADirectoryError) as error:
            raise CorruptTableError(f"{location} cannot be read: {error.strerror or error}") from error
        except AurumError:
            raise
        except Exception as error:
            first = (str(error).splitlines() or [""])[0]
            raise BackendUnavailableError(f"{location} cannot be read: {first or type(error).__name__}") from error

    def _io(self, location: str) -> FileIO:
        if self._given is not None:
            return self._given
        parts = urlsplit(location)
        key = (parts.scheme, parts.netloc)
        if key not in self._ios:
            self._ios[key] = load_file_io(self.properties, location)
        return self._ios[key]


def _read_all(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    content = os.read(descriptor, size + 1)
    if len(content) == size:
        return content
    parts = [content]
    while part := os.read(descriptor, 1 << 20):
        parts.append(part)
    return b"".join(parts)


def in_threads(work: Callable[[T], R], items: Sequence[T], threads: int = REMOTE_THREADS) -> Iterator[R]:
    """``work`` over the items, in order, several at a time: for requests that wait on a network."""
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="iceberg-read") as pool:
        yield from pool.map(work, items)
