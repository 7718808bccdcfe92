"""Deleting files of a table: plain calls for local ones, by the thousand on S3, else PyIceberg's FileIO in threads.

A path with ``?``, ``#`` or ``;`` is never deleted: readers disagree about which file it means, and one
reading of it is a shorter name.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import chain

from pyiceberg.io import FileIO

from aurum_orchestration.maintenance.backends.iceberg.files import Files, in_threads, local_path
from aurum_orchestration.maintenance.backends.iceberg.objects import Objects, is_object, objects_of

DELETED, MISSING = "deleted", "missing"

LOCAL_THREADS = 4
"""A disk that has to write its journal makes a deletion wait; a thread costs as much as a deletion that need not."""

_PART = 250
_AMBIGUOUS = re.compile(r"[?#;]")


class Storage:
    """The files of one table, below what reading needs. Safe to share between threads."""

    def __init__(self, io: FileIO) -> None:
        self._io = io
        self.files = Files(io.properties, io)

    def local_path(self, location: str) -> str | None:
        """The path of a file on a local disk, None when it has to go through the FileIO."""
        return local_path(location) if self.files.plain else None

    def delete(self, locations: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Delete files, and say of each ``deleted``, ``missing``, or why it could not be deleted.

        S3 does not say what was missing: that is ``deleted`` there.
        """
        local: dict[str, str] = {}
        remote: list[str] = []
        for location in locations:
            if (path := self.local_path(location)) is not None:
                local[location] = path
            else:
                remote.append(location)
        paths = list(local.values())
        parts = [paths[start : start + _PART] for start in range(0, len(paths), _PART)]
        outcomes = in_threads(lambda part: [unlink(path) for path in part], parts, LOCAL_THREADS)
        yield from zip(local, chain.from_iterable(outcomes), strict=True)
        yield from self._delete_remotely(remote)

    @cached_property
    def _objects(self) -> Objects | None:
        return objects_of(self._io)

    def _delete_remotely(self, locations: Sequence[str]) -> Iterator[tuple[str, str]]:
        bulk = [one for one in locations if is_object(one) and not _AMBIGUOUS.search(one)]
        if bulk and self._objects is not None:
            yield from ((one, why or DELETED) for one, why in zip(bulk, self._objects.delete(bulk), strict=True))
            done = set(bulk)
            locations = [one for one in locations if one not in done]
        yield from zip(locations, in_threads(self._delete_remote, locations), strict=True)

    def _delete_remote(self, location: str) -> str:
        if _AMBIGUOUS.search(location):
            return "its path can be read in two ways"
        try:
            self._io.delete(location)
        except FileNotFoundError:
            return MISSING
        except Exception as error:
            return (str(error).splitlines() or [type(error).__name__])[0]
        return DELETED


def unlink(path: str) -> str:
    """Delete a local file, and the checksum file that Hadoop's file system leaves beside it; see ``delete``."""
    try:
        os.unlink(path)  # noqa: PTH108 - some ten thousand times a second
    except FileNotFoundError:
        return MISSING
    except OSError as error:
        return error.strerror or str(error)
    folder, name = os.path.split(path)
    with contextlib.suppress(OSError):
        os.unlink(f"{folder}/.{name}.crc")  # noqa: PTH108
    return DELETED
