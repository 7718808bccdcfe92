"""Backups of a real database: made, verified, published whole, pruned, and what goes wrong."""

from __future__ import annotations

import getpass
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import pytest

from aurum_orchestration.errors import CorruptTableError, OperationCancelledError, UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.local.engines.background import free_port
from aurum_orchestration.maintenance.backends.backup_place import Place
from aurum_orchestration.maintenance.backends.postgres.backup import execute, tools
from aurum_orchestration.maintenance.backends.postgres.backup.execute import DumpUnit
from aurum_orchestration.maintenance.backends.postgres.backup.tools import Caller, Tools, find_tools
from aurum_orchestration.maintenance.interfaces import MaintenanceResult
from aurum_orchestration.maintenance.operations.backup import BackupParameters
from aurum_orchestration_tests.integration.postgres.support import ROWS, Pg, a_run, opened
from aurum_orchestration_tests.servers.object_store import ObjectStore
from aurum_orchestration_tests.servers.sshd import sftp


def backup(pg: Pg, folder: Path | str, **given: Any) -> MaintenanceResult:
    return pg.run("backup", f"pg.{pg.name}", path=str(folder), **given)


def names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir()) if folder.exists() else []


def scratch_databases(pg: Pg) -> int:
    return int(pg.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'aurum_scratch_%'")[0][0])


def unit(pg: Pg, folder: Path, **given: Any) -> Any:
    with opened(pg.backend()) as backend:
        plan = backend.plan(TableId("pg", (pg.name,)), "backup", BackupParameters(path=str(folder), **given))
        yield from backend.open(plan, a_run()).units()


def test_a_backup_is_one_verified_file_and_a_dry_run_writes_nothing(pg: Pg, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    planned = backup(pg, folder, dry_run=True)
    assert planned.status == "planned"
    assert (planned.steps or [])[0].detail["path"] == str(folder)
    assert not folder.exists()
    done = backup(pg, folder)
    assert (done.status, done.problem) == ("completed", None)
    name, note = names(folder)
    assert name.startswith(f"backup_{pg.name}_20")
    assert name.endswith("Z.dump")
    told = json.loads((folder / note).read_text())
    assert told["verified"] == "every-byte-read"
    assert (folder / name).stat().st_mode & 0o077 == 0, "it holds all rows"
    assert done.metrics["backup_bytes"] == (folder / name).stat().st_size == told["files"][""][0]
    assert done.metrics["backup_objects"] > 3
    assert pg.dsn.split("@")[-1].split("/")[0] not in str(done.steps)


@pytest.mark.parametrize("form", ["directory", "plain"])
def test_other_formats_are_restored_and_counted(pg: Pg, tmp_path: Path, form: str) -> None:
    pg.sql('CREATE TABLE "odd ""name" (x int)', 'INSERT INTO "odd ""name" SELECT generate_series(1, 7)')
    done = backup(pg, tmp_path / "backups", format=form, verify="restore")
    assert (done.status, done.problem) == ("completed", None)
    assert done.verification is not None
    assert done.verification.ok
    assert done.verification.rows_after == ROWS + 7
    name, note = names(tmp_path / "backups")
    assert (tmp_path / "backups" / name).is_dir() == (form == "directory")
    assert json.loads((tmp_path / "backups" / note).read_text())["tables"]['"public"."odd ""name"'] == 7
    assert scratch_databases(pg) == 0
    if form == "plain":
        assert "COPY public.trades" in (tmp_path / "backups" / name).read_text()


def test_older_ones_go_only_after_a_newer_one_and_only_our_own(pg: Pg, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    made = []
    for _ in range(2):
        backup(pg, folder, keep_last=2)
        made = [one for one in names(folder) if one.endswith(".dump")]
        time.sleep(1.1)  # names tell seconds
    foreign = folder / made[0].replace("_20", "_19")
    foreign.write_text("somebody else's")
    third = backup(pg, folder, keep_last=2)
    assert third.metrics["backups_removed"] == 1
    left = [one for one in names(folder) if one.endswith(".dump")]
    assert foreign.name in left
    assert made[0] not in left
    assert made[1] in left
    assert len(left) == 3


def test_a_restore_that_loses_rows_fails_and_publishes_nothing(
    pg: Pg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "restored", lambda *_args, **_options: {'"public"."trades"': ROWS - 1})
    done = backup(pg, tmp_path / "backups", verify="restore")
    assert (done.status, done.problem and done.problem.type) == ("failed", "verification-failed")
    assert names(tmp_path / "backups") == []


def test_what_a_killed_publishing_left_is_removed_and_nothing_of_another_database(pg: Pg, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    backup(pg, folder)
    name, note = names(folder)
    told = json.loads((folder / note).read_text())
    for year, changed in (("1999", {"verified": None}), ("1998", {"verified": None, "source": "elsewhere:5432/x"})):
        other = name.replace("_20", f"_{year}", 1).replace(f"_{year}26", f"_{year}")
        (folder / other).write_bytes((folder / name).read_bytes())
        (folder / f"{other}.json").write_text(json.dumps({**told, **changed}))
    place = Place(str(folder), "backup_{db}_{timestamp}", pg.name, told["source"])
    (folder / f"{place._partial('x.json')}.partial").write_text("{")
    time.sleep(1.1)
    done = backup(pg, folder)
    assert done.metrics["leftovers_dropped"] == 2
    assert not [one for one in names(folder) if one.startswith(".")]
    assert not [one for one in names(folder) if "_1999" in one]
    assert len([one for one in names(folder) if "_1998" in one]) == 2


def test_secrets_go_by_the_environment_and_not_by_argument() -> None:
    caller = Caller("host=db.example user=aurum password='a b c' sslpassword=x dbname=market", a_run(), 60)
    assert "a b c" not in caller.database("other")
    assert "sslpassword" not in caller.database()
    assert "dbname=other" in caller.database("other")
    assert caller.call(["/bin/sh", "-c", 'printf "%s %s" "$PGPASSWORD" "$PGAPPNAME"']) == "a b c aurum:pg_dump:test"


def test_a_damaged_dump_is_found_before_it_is_published(pg: Pg, tmp_path: Path) -> None:
    for one in unit(pg, tmp_path / "backups"):
        assert isinstance(one, DumpUnit)
        one.stage(a_run())
        data = one._staging.data
        content = bytearray(data.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 64] = bytes(64)  # the table of contents, at the start, is whole
        data.write_bytes(content)
        with pytest.raises(CorruptTableError, match="cannot be read"):
            one.verify(a_run())
        one.discard()
    assert names(tmp_path / "backups") == []


def test_no_path_and_no_program_are_told(pg: Pg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no path is set" in pg.run("backup", f"pg.{pg.name}").reason
    monkeypatch.setattr(tools, "_installed", lambda: iter([Tools(Path("/old"), 13)]))
    done = backup(pg, tmp_path / "backups")
    assert done.status == "skipped"
    assert "/old/pg_dump is version 13" in done.reason
    secret = backup(pg, "s3://key:secret@bucket/x")
    assert (secret.status, secret.problem and secret.problem.type) == ("failed", "validation-error")


def test_the_oldest_programs_that_can_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [Tools(Path("/b"), 18), Tools(Path("/a"), 15), Tools(Path("/c"), 17)]
    monkeypatch.setattr(tools, "_installed", lambda: iter(there))
    assert [find_tools(major).major for major in (14, 15, 16, 18)] == [15, 15, 17, 18]
    with pytest.raises(UnsupportedError, match="of version 19 or newer"):
        find_tools(19)


def test_programs_that_are_missing_too_old_or_do_not_run_are_told_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "_DEBIAN", tmp_path / "none")
    monkeypatch.setattr(tools, "_embedded", list)
    monkeypatch.setenv("PATH", str(tmp_path))
    for text, told in (
        (None, "there is none"),
        ("#!/bin/sh\necho 'pg_dump (PostgreSQL) 15.3'", f"{tmp_path}/pg_dump is version 15"),
        ("#!/no/such/loader\n", "there is none"),
    ):
        for name in ("pg_dump", "pg_restore", "psql"):
            if text is not None:
                (tmp_path / name).write_text(text)
                (tmp_path / name).chmod(0o755)
        with pytest.raises(UnsupportedError, match=re.escape(told)) as refused:
            find_tools(17)
        assert "postgresql-client-17" in (refused.value.hint or "")
    (tmp_path / "pg_restore").unlink()
    (tmp_path / "pg_dump").write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 17.1'")
    with pytest.raises(UnsupportedError, match="there is none"):
        find_tools(17)


def test_a_full_disk_is_told_and_leaves_nothing(pg: Pg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = DumpUnit._call

    def on_a_full_disk(self: DumpUnit, *arguments: Any) -> None:
        self._staging.data.symlink_to("/dev/full")  # the kernel says ENOSPC to every write
        real(self, *arguments)

    monkeypatch.setattr(DumpUnit, "_call", on_a_full_disk)
    done = backup(pg, tmp_path / "backups")
    assert (done.status, done.problem and done.problem.type) == ("failed", "storage-write")
    assert "No space left on device" in str(done.problem)
    assert names(tmp_path / "backups") == []


def test_a_killed_backup_is_cleared_by_the_next_with_its_program_and_scratch_database(pg: Pg, tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    script = (
        "from aurum_orchestration_tests.integration.postgres.support import Pg; from pathlib import Path;"
        f"pg = Pg({pg.dsn!r}, {pg.name!r}, Path({str(tmp_path / 'other')!r}));"
        f"pg.run('backup', 'pg.{pg.name}', path={str(folder)!r}, extra='    lock_timeout: 60\\n')"
    )
    with pg.connect() as locker:
        locker.execute("BEGIN")
        locker.execute("LOCK TABLE trades")  # pg_dump waits for it
        with subprocess.Popen([sys.executable, "-c", script]) as victim:
            deadline = time.monotonic() + 60
            while not (waiting := _dumps(pg)) and time.monotonic() < deadline:
                time.sleep(0.1)
            assert waiting
            victim.send_signal(signal.SIGKILL)
        pg.sql(f"CREATE DATABASE aurum_scratch_{_oid(pg)}_0123456789ab")
        assert _dumps(pg), "pg_dump outlives us"
        assert [one for one in names(folder) if one.endswith(".partial")]
    done = backup(pg, folder)
    assert (done.status, done.problem) == ("completed", None)
    assert done.metrics["leftovers_dropped"] >= 1
    assert len(names(folder)) == 2
    assert _dumps(pg) == 0
    assert scratch_databases(pg) == 0


def _dumps(pg: Pg) -> int:
    return int(pg.sql(f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{pg.name}'"
                      " AND application_name LIKE 'aurum:pg_dump:%'")[0][0])  # fmt: skip


def _oid(pg: Pg) -> int:
    return int(pg.sql("SELECT oid FROM pg_database WHERE datname = current_database()")[0][0])


def test_a_cancelled_backup_ends_its_program(pg: Pg, tmp_path: Path) -> None:
    run = a_run()
    with pg.connect() as locker:
        locker.execute("BEGIN")
        locker.execute("LOCK TABLE trades")
        for one in unit(pg, tmp_path / "backups"):
            threading.Timer(0.7, run.cancelled.set).start()
            with pytest.raises(OperationCancelledError):
                one.stage(run)
            one.discard()
    assert _dumps(pg) == 0
    assert names(tmp_path / "backups") == []


def test_a_dump_whose_session_is_ended_is_made_again(pg: Pg, tmp_path: Path) -> None:
    ended = threading.Event()

    def end_it() -> None:
        while not ended.is_set() and not _dumps(pg):
            time.sleep(0.05)
        ended.set()
        pg.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'aurum:pg_dump:%'")
        locker.execute("COMMIT")

    with pg.connect() as locker:
        locker.execute("BEGIN")
        locker.execute("LOCK TABLE trades")
        killer = threading.Thread(target=end_it)
        killer.start()
        done = backup(pg, tmp_path / "backups", extra="    lock_timeout: 60\n")
        ended.set()
        killer.join()
    assert (done.status, done.problem) == ("completed", None)
    assert any("backend-unavailable" in warning for warning in done.warnings)
    assert len(names(tmp_path / "backups")) == 2


def test_a_lock_that_is_not_had_is_waited_for_briefly_and_told(
    pg: Pg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execute, "patiently", lambda work, _run: work())
    with pg.connect() as locker:
        locker.execute("BEGIN")
        locker.execute("LOCK TABLE trades")
        with opened(pg.backend(lock_timeout=0.2)) as backend:
            plan = backend.plan(TableId("pg", (pg.name,)), "backup", BackupParameters(path=str(tmp_path / "b")))
            assert "has trades locked for itself" in plan.warnings[0]
            (one,) = backend.open(plan, a_run()).units()
            with pytest.raises(Exception, match="timeout") as caught:
                one.stage(a_run())
            one.discard()
    assert type(caught.value).__name__ == "LockTimeoutError"


def test_a_role_that_may_not_read_all_is_refused_before_anything(pg: Pg, tmp_path: Path) -> None:
    role = f"reader_{pg.name}"
    pg.sql(f"CREATE ROLE {role} LOGIN")
    try:
        with opened(pg.backend()) as backend:
            dsn = backend.settings.dsn or ""
        weak = Pg(f"{dsn} user={role}", pg.name, pg.home)
        done = backup(weak, tmp_path / "backups")
        assert (done.status, done.problem and done.problem.type) == ("failed", "access-denied")
        assert done.problem is not None
        assert f"GRANT pg_read_all_data TO {role}" in (done.problem.hint or "")
        pg.sql(f"GRANT pg_read_all_data TO {role}")
        assert backup(weak, tmp_path / "backups").status == "completed"
    finally:
        pg.sql(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def test_object_storage_holds_whole_backups(
    pg: Pg, s3: ObjectStore, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    properties = s3.properties
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", properties["s3.access-key-id"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", properties["s3.secret-access-key"])
    scheme, _, host = properties["s3.endpoint"].partition("://")
    root = f"s3://{bucket}/nightly?endpoint_override={host}&scheme={scheme}"
    for form in ("custom", "directory"):
        done = backup(pg, root, format=form, keep_last=1)
        assert (done.status, done.problem) == ("completed", None)
        time.sleep(1.1)
    system, path = pafs.FileSystem.from_uri(root)
    found = sorted(info.base_name for info in system.get_file_info(pafs.FileSelector(path)))
    assert len(found) == 2
    assert found[0].endswith("Z.tar")
    assert done.metrics["backups_removed"] == 1


def test_sftp_holds_whole_backups_and_a_connection_that_ended_is_made_anew(
    pg: Pg, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec opens SFTP")
    pytest.importorskip("paramiko", reason="paramiko opens SFTP: pip install 'aurum-orchestration[sftp]'")
    home = tmp_path / "user"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with sftp(home) as root:
        folder = Path("/" + root.split("://")[1].partition("/")[2])
        for form in ("custom", "directory"):
            done = backup(pg, root, format=form, keep_last=1)
            assert (done.status, done.problem) == ("completed", None)
            fsspec.url_to_fs(root)[0].client.close()
            time.sleep(1.1)
        assert done.metrics["backups_removed"] == 1
        tar, note = sorted(one.name for one in folder.iterdir())
        assert tar.endswith("Z.tar")
        assert note == f"{tar}.json"
        with_password = backup(pg, root.replace("@", ":word@"))
        assert "path holds a secret" in str(with_password.problem and with_password.problem.detail)
    # another port than the server had: a session that it let in outlives it
    gone = backup(pg, f"sftp://{getpass.getuser()}@127.0.0.1:{free_port()}{folder}")
    assert gone.problem is not None
    assert gone.problem.type == "backend-unavailable"
