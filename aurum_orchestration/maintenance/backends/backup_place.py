"""Where backups lie: a local folder, or one of any filesystem that pyarrow or fsspec opens.

A backup is its file (or folder) and a note beside it, ``<name>.json``: what it is of, its files with sizes and
checksums, and whether it was verified. The note is written first, unverified, and again when everything is there; so
what a killed run left can be told from a backup, and from somebody else's file.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
from pyarrow import fs as pafs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aurum_orchestration.errors import CorruptTableError, RequestError, StorageWriteError
from aurum_orchestration.maintenance.backends.rules.archive import open_folder
from aurum_orchestration.maintenance.operations.backup import TIMESTAMP

NOTE = ".json"
PREFIX, PARTIAL = ".aurum_", ".partial"
"""What is not finished is named so."""

CHUNK = 8 * 2**20
_YOUNG_SECONDS = 60.0
"""A staging folder without a lock that is younger may be about to get one."""

_WHOLE = frozenset({"s3", "gcs", "abfs"})
"""Filesystems on which an object appears only once it is complete."""


_WITH_USER = frozenset({"sftp", "ssh", "hdfs"})
"""Schemes whose URLs name a user; elsewhere what stands before the @ is a key."""


class Note(BaseModel):
    """What stands beside a backup. ``files``: path within it -> bytes and SHA-256."""

    model_config = ConfigDict(frozen=True)

    source: str = Field(description="Server and database that it is of: host:port/database.")
    format: str
    made_at: str
    server_version: str
    tool_version: int
    verified: str | None = Field(default=None, description="How it was verified; null while it is not.")
    tables: dict[str, int] = Field(default_factory=dict, description="Rows by table, where a restore compared them.")
    files: dict[str, tuple[int, str]] = Field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all its files."""
        return sum(size for size, _ in self.files.values())


@dataclass(frozen=True, slots=True)
class Kept:
    """A backup that is there, with its note."""

    name: str
    note: Note


class Staging:
    """A folder for what is not finished, held by a lock until we and the programs that inherited it have ended."""

    def __init__(self, parent: Path, name: str) -> None:
        self.path = parent / f"{PREFIX}{name}{PARTIAL}"
        parent.mkdir(parents=True, exist_ok=True)
        self.path.mkdir(mode=0o700)
        self.lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.data = self.path / "data"

    def remove(self) -> None:
        """Take it away. Twice is no harm."""
        if self.lock >= 0:
            os.close(self.lock)
            self.lock = -1
        shutil.rmtree(self.path, ignore_errors=True)


class Place:
    """The folder of backups of one database. ``source`` tells them from those of others in the same folder."""

    def __init__(self, root: str, template: str, database: str, source: str) -> None:
        self.root, self.source = root.rstrip("/") or "/", source
        self._template, self._database = template, re.sub(r"[^\w.-]", "_", database)
        self._opened: tuple[pafs.FileSystem, str] | None = None

    def name(self, stamp: str) -> str:
        """Name of the backup made at a time, without ending."""
        return self._template.replace("{db}", self._database).replace(TIMESTAMP, stamp)

    def new_name(self, moment: datetime, ending: str) -> str:
        """Name of a backup made at a moment; that of the next second while there is one of that name."""
        while self._exists(name := self.name(moment.strftime("%Y%m%dT%H%M%SZ")) + ending):
            moment += timedelta(seconds=1)
        return name

    @property
    def _place(self) -> tuple[pafs.FileSystem, str]:
        if self._opened is None:
            self._opened = open_folder(self.root)
        return self._opened

    @property
    def local(self) -> Path | None:
        """The folder when it is one of this machine."""
        system, path = self._place
        return Path(path) if isinstance(system, pafs.LocalFileSystem) else None

    def staging(self, name: str) -> Staging:
        """A place for what is not finished: where the backup will lie, or this machine's TMPDIR."""
        with _writing(self.root):
            return Staging(self.local or Path(tempfile.gettempdir()), name)

    def kept(self) -> list[Kept]:
        """Our verified backups, the newest first."""
        return [one for one in self._ours() if one.note.verified]

    def clear(self) -> int:
        """Remove what killed runs left; how many. What is still being written stays."""
        removed = sum(
            _remove_if_dead(one) for one in (self.local or Path(tempfile.gettempdir())).glob(f"{PREFIX}*{PARTIAL}")
        )
        for one in self._ours():
            if not one.note.verified:
                self.remove(one.name)
                removed += 1
        system, folder = self._place
        for info in system.get_file_info(pafs.FileSelector(folder, allow_not_found=True)):
            if info.type == pafs.FileType.File and info.base_name.startswith(self._partial("")):
                system.delete_file(info.path)
                removed += 1
        return removed

    def publish(self, staging: Staging, name: str, note: Note) -> Note:
        """Make what is staged visible under its name, whole. Gives the verified note. Raises StorageWriteError."""
        with _writing(self.root):
            if self._exists(name):
                raise StorageWriteError(f"{self.root}/{name} is there already", hint="Run again: it takes a new name.")
            self._write_note(name, note.model_copy(update={"verified": None}))
            if self.local is not None:
                _sync(staging.data)
                staging.data.rename(self.local / name)
                _sync_one(self.local)
            else:
                note = self._upload(staging.data, name, note)
            self._write_note(name, note)
        return note

    def check(self, one: Kept) -> None:
        """Raise CorruptTableError when a backup is not there as its note says: presence and size."""
        system, folder = self._place
        for part, (size, _) in one.note.files.items():
            info = system.get_file_info(f"{folder}/{one.name}/{part}" if part else f"{folder}/{one.name}")
            if info.type != pafs.FileType.File or info.size != size:
                raise CorruptTableError(
                    f"{self.root}/{one.name} is not as it was written", hint="Look for it; older ones were kept."
                )

    def remove(self, name: str) -> int:
        """Delete a backup, its note last, so that a killed run can go on; bytes."""
        system, folder = self._place
        path = f"{folder}/{name}"
        with _writing(self.root):
            info = system.get_file_info(path)
            size = info.size or 0
            if info.type == pafs.FileType.Directory:
                parts = system.get_file_info(pafs.FileSelector(path, recursive=True))
                size = sum(part.size or 0 for part in parts)
                system.delete_dir(path)
            elif info.type == pafs.FileType.File:
                system.delete_file(path)
            if system.get_file_info(path + NOTE).type == pafs.FileType.File:
                system.delete_file(path + NOTE)
        return size

    def _ours(self) -> list[Kept]:
        before, after = (re.escape(part) for part in self.name("\0").split("\0"))
        pattern = re.compile(rf"({before}\d{{8}}T\d{{6}}Z{after}[.\w]*){re.escape(NOTE)}")
        system, folder = self._place
        found = []
        for info in system.get_file_info(pafs.FileSelector(folder, allow_not_found=True)):
            named = pattern.fullmatch(info.base_name)
            note = self._read_note(info.path) if named else None
            if named and note is not None and note.source == self.source:
                found.append(Kept(named[1], note))
        return sorted(found, key=lambda one: (one.note.made_at, one.name), reverse=True)

    def _read_note(self, path: str) -> Note | None:
        try:
            with self._place[0].open_input_stream(path) as stream:
                return Note.model_validate_json(stream.read())
        except (OSError, ValidationError):
            return None  # nobody's, or on its way out

    def _write_note(self, name: str, note: Note) -> None:
        text = json.dumps(note.model_dump(), indent=1).encode()
        self._write(f"{name}{NOTE}", lambda stream: stream.write(text))

    def _exists(self, name: str) -> bool:
        system, folder = self._place
        return bool(system.get_file_info(f"{folder}/{name}").type != pafs.FileType.NotFound)

    def _partial(self, name: str) -> str:
        return f"{PREFIX}{hashlib.sha256(self.source.encode()).hexdigest()[:10]}_{name}"

    def _write(self, name: str, fill: Any) -> None:
        """A file that appears whole. On failure nothing is left."""
        system, folder = self._place
        final = f"{folder}/{name}"
        whole = system.type_name in _WHOLE
        written = final if whole else f"{folder}/{self._partial(name)}{PARTIAL}"
        if not whole:
            system.create_dir(folder, recursive=True)
        try:
            with system.open_output_stream(written) as stream:
                fill(stream)
        except BaseException:
            with contextlib.suppress(OSError):
                system.delete_file(written)  # closing it made it visible
            raise
        if not whole:
            system.move(written, final)

    def _upload(self, staged: Path, name: str, note: Note) -> Note:
        """One object: a folder goes as a tar. Read back, it has to be what was sent."""
        sent = hashlib.sha256()
        size = 0

        class Hashing:
            def __init__(self, stream: Any) -> None:
                self._stream = stream

            def write(self, data: bytes) -> int:
                nonlocal size
                sent.update(data)
                size += len(data)
                self._stream.write(data)
                return len(data)

        def fill(stream: Any) -> None:
            target: Any = Hashing(stream)
            if staged.is_dir():
                with tarfile.open(fileobj=target, mode="w|") as tar:
                    tar.add(staged, arcname=name.removesuffix(".tar"))
            else:
                with staged.open("rb") as source:
                    shutil.copyfileobj(source, target, CHUNK)

        self._write(name, fill)
        system, folder = self._place
        with system.open_input_stream(f"{folder}/{name}") as stream:
            back = _digest(stream)
        if back != (size, sent.hexdigest()):
            self.remove(name)
            raise StorageWriteError(f"{self.root}/{name} reads back differently from what was sent")
        return note.model_copy(update={"files": {"": back}})


def refuse_secret(root: str) -> None:
    """Raise RequestError when a URL holds a password or key: it would stand in every plan and result."""
    scheme, _, rest = root.partition("://")
    user = rest.partition("/")[0].rpartition("@")[0]
    if ":" in user or (user and scheme not in _WITH_USER):
        raise RequestError("path holds a secret", hint="Leave keys to the environment, such as AWS_ACCESS_KEY_ID.")


def files_of(staged: Path) -> dict[str, tuple[int, str]]:
    """Size and SHA-256 of a file (under the empty name), or of those of a folder."""
    names = sorted(one for one in staged.rglob("*") if one.is_file()) if staged.is_dir() else [staged]
    told = {}
    for one in names:
        with one.open("rb") as stream:
            told["" if one == staged else str(one.relative_to(staged))] = _digest(stream)
    return told


def _digest(stream: IO[bytes] | Any) -> tuple[int, str]:
    sha, size = hashlib.sha256(), 0
    while chunk := stream.read(CHUNK):
        sha.update(chunk)
        size += len(chunk)
    return size, sha.hexdigest()


def _remove_if_dead(path: Path) -> bool:
    """Remove a staging folder of ours that nobody holds any more."""
    try:
        if path.is_symlink() or path.stat().st_uid != os.geteuid():
            return False
        descriptor = os.open(path / "lock", os.O_RDWR)
    except FileNotFoundError:
        if time.time() - path.stat().st_mtime < _YOUNG_SECONDS:
            return False  # about to be locked
        descriptor = -1
    except OSError:
        return False
    try:
        if descriptor >= 0:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    shutil.rmtree(path, ignore_errors=True)
    return True


def _sync(staged: Path) -> None:
    """It survives a power cut only after this."""
    for one in (*staged.rglob("*"), staged) if staged.is_dir() else (staged,):
        _sync_one(one)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writing(root: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise StorageWriteError(f"{root}: {error}") from error
