"""Parquet files that take rows before these are deleted, so that a kill at any moment loses none and doubles none.

A file is written under ``_pending`` (which readers of datasets pass over), durable, before its rows' deletion is
committed, and moved to its place after that. Its name holds a token by which the database can tell later whether that
transaction was committed: a pending file of a killed run is then put in its place, or removed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from aurum_orchestration.errors import (
    BackendUnavailableError,
    ConfigurationError,
    MissingExtraError,
    StorageWriteError,
    VerificationError,
    redact,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import fs as pafs

PENDING = "_pending"
Outcome = Literal["committed", "aborted", "running", "unknown"]
"""How the transaction of a token ended."""

_NAME = re.compile(r"^(?P<stem>.+)\.(?P<token>[A-Za-z0-9]+)\.parquet$")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")


class ParquetArchive:
    """The files of one table, under ``<root>/<table>``. ``root``: a local folder, or a URL such as s3://bucket/x.

    Nothing is opened or made before the first write. Raises ConfigurationError, MissingExtraError, StorageWriteError.
    """

    def __init__(self, root: str, table: str) -> None:
        self._root, self._table = root, _UNSAFE.sub("_", table)
        self._opened: tuple[pafs.FileSystem, str] | None = None

    @property
    def _place(self) -> tuple[pafs.FileSystem, str]:
        if self._opened is None:
            system, path = open_folder(self._root)
            self._opened = system, str(PurePosixPath(path) / self._table)
        return self._opened

    def write(self, rows: pa.Table, run: str, number: int, token: str) -> str:
        """Write rows, durable and read back, as a pending file; its path.

        Raises VerificationError when the file does not have the rows, StorageWriteError.
        """
        import pyarrow.parquet as pq

        system, folder = self._place
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{_UNSAFE.sub('_', run)[:12]}-{number:06d}.{token}.parquet"
        path = f"{folder}/{PENDING}/{name}"
        try:
            system.create_dir(f"{folder}/{PENDING}", recursive=True)
            with system.open_output_stream(path) as output:
                pq.write_table(rows, output, compression="zstd")
            _make_durable(system, path)
            with system.open_input_file(path) as stored:
                written = pq.ParquetFile(stored).metadata.num_rows
        except OSError as error:
            raise StorageWriteError(f"{path} cannot be written: {error}") from error
        if written != rows.num_rows:
            raise VerificationError(f"{path} has {written} rows instead of {rows.num_rows}; none was deleted")
        return path

    def confirm(self, path: str) -> None:
        """Put a pending file in its place: the deletion of its rows is committed."""
        system, folder = self._place
        target = f"{folder}/{PurePosixPath(path).name}"
        try:
            system.move(path, target)
            _make_durable(system, target)
        except FileNotFoundError:
            return  # another run has settled it already
        except OSError as error:
            raise StorageWriteError(f"{path} cannot be moved to its place: {error}") from error

    def drop(self, path: str) -> None:
        """Remove a pending file: its rows are still in the table."""
        system, _ = self._place
        try:
            system.delete_file(path)
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageWriteError(f"{path} cannot be removed: {error}") from error

    def settle(self, outcome: Callable[[str], Outcome]) -> list[str]:
        """Put pending files of killed runs in their place, or remove them; sentences about what could not be told.

        ``outcome`` tells from a token how its transaction ended. Files of runs that are still at it stay.
        """
        told = []
        for path in self.pending():
            name = _NAME.match(PurePosixPath(path).name)
            match outcome(name["token"]) if name else "unknown":
                case "committed":
                    self.confirm(path)
                case "aborted":
                    self.drop(path)
                case "unknown":
                    told.append(f"nobody can tell any more whether the rows of {path} were deleted; look yourself")
        return told

    def pending(self) -> list[str]:
        """Files that wait for :meth:`settle`, or belong to a run that is at work."""
        from pyarrow import fs as pafs

        system, folder = self._place
        try:
            found = system.get_file_info(pafs.FileSelector(f"{folder}/{PENDING}", allow_not_found=True))
        except OSError as error:
            raise BackendUnavailableError(f"{self._root} cannot be listed: {error}") from error
        return sorted(info.path for info in found if info.is_file)


def open_folder(root: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a folder or URL, and the path in it: pyarrow's own where it has one, else fsspec's."""
    import pyarrow as pa
    from pyarrow import fs as pafs

    if "://" not in root:
        return pafs.LocalFileSystem(), str(Path(root).expanduser().resolve())
    try:
        system, path = pafs.FileSystem.from_uri(root)
    except pa.ArrowInvalid:
        return _open_with_fsspec(root)
    return system, path


def _open_with_fsspec(root: str) -> tuple[pafs.FileSystem, str]:
    from pyarrow import fs as pafs

    class Handler(pafs.FSSpecHandler):  # type: ignore[misc]
        def move(self, src: str, dest: str) -> None:
            self.fs.mv(src, dest)  # the base asks for folders, too, which not every file system takes

    try:
        import fsspec  # type: ignore[import-untyped]

        system, path = fsspec.url_to_fs(root)
        if not _answers(system, path):
            # it is kept for the whole process: its connection may have ended long ago
            type(system).clear_instance_cache()
            system, path = fsspec.url_to_fs(root)
    except ImportError as error:
        raise MissingExtraError(f"nothing installed can open {root.split('://', maxsplit=1)[0]}://: {error}") from error
    except ValueError as error:
        raise ConfigurationError(f"{redact(root)}: {error}") from error
    except Exception as error:  # each file system has errors of its own library
        raise BackendUnavailableError(f"{redact(root)}: {redact(str(error)) or type(error).__name__}") from error
    return pafs.PyFileSystem(Handler(system)), path


def _answers(system: Any, path: str) -> bool:
    try:
        system.info(path)
    except FileNotFoundError:
        return True
    except Exception:  # as above
        return False
    return True


def _make_durable(system: pafs.FileSystem, path: str) -> None:
    """A local file survives a power cut only after this; object stores acknowledge nothing earlier."""
    from pyarrow import fs as pafs

    if not isinstance(system, pafs.LocalFileSystem):
        return
    for one in (path, str(Path(path).parent)):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
