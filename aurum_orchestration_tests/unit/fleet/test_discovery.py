"""What is remembered of discoveries, and choosing among tables."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from aurum_orchestration.errors import RequestError, StorageWriteError, UnknownNameError
from aurum_orchestration.fleet import discovery
from aurum_orchestration.fleet.config import BackendConfig, FleetConfig
from aurum_orchestration.fleet.discovery import DiscoveryCache
from aurum_orchestration.fleet.fleet import Fleet
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.interfaces import DiscoveredTable

Load = Callable[[str], Fleet]


def fleet_of(home: Path, *names: str, discover: list[str] | None = None) -> Fleet:
    backends = {name: BackendConfig(type="sqlite", discover=discover or []) for name in names or ("lake",)}
    return Fleet(FleetConfig(version=1, backends=backends), home=home)


def found(text: str, *columns: tuple[str, str]) -> DiscoveredTable:
    return DiscoveredTable(TableId.parse(text), "iceberg", f"file:///w/{text}", 'a "comment" é', columns)


ODD = found('lake."my.ns"."t""x"', ("größe", "decimal(10, 2)"), ("s", "struct<a: int>"))


def test_what_was_discovered_is_there_again_in_another_process(tmp_path: Path) -> None:
    tables = [ODD, found("lake.flights.planes"), DiscoveredTable(TableId("lake", ("a", "b")), "view")]
    fleet_of(tmp_path).remember("lake", tables)
    assert fleet_of(tmp_path).tables() == tables
    assert [path.name for path in (tmp_path / "discovery").iterdir()] == ["lake.json"]


def test_never_discovered_is_empty_and_creates_nothing(tmp_path: Path) -> None:
    assert fleet_of(tmp_path / "home").tables() == []
    assert not (tmp_path / "home").exists()


def test_a_new_discovery_is_seen_and_replaces_the_old(tmp_path: Path) -> None:
    one, other = fleet_of(tmp_path), fleet_of(tmp_path)
    one.remember("lake", [found("lake.a.b"), found("lake.a.c")])
    assert len(other.tables()) == 2
    one.remember("lake", [found("lake.a.d")])
    assert other.tables() == [found("lake.a.d")]
    one.remember("lake", [])
    assert other.tables() == []


def test_backends_are_kept_apart_and_one_that_left_the_fleet_is_not_read(tmp_path: Path) -> None:
    both = fleet_of(tmp_path, "lake", "pg")
    both.remember("pg", [found("pg.a.b")])
    both.remember("lake", [found("lake.a.b")])
    assert [str(each.table) for each in both.tables()] == ["lake.a.b", "pg.a.b"]
    assert fleet_of(tmp_path, "pg").tables() == [found("pg.a.b")]


def test_tables_that_discover_no_longer_covers_are_left_out(tmp_path: Path) -> None:
    fleet_of(tmp_path).remember("lake", [found("lake.a.b"), found("lake.c.d")])
    assert fleet_of(tmp_path, discover=["c.*"]).tables() == [found("lake.c.d")]


@pytest.mark.parametrize("name", ["../../etc/x", "a/b", "..", "é" * 200, 'q"uote', "CON", " "])
def test_any_backend_name_makes_a_file_inside_the_folder(tmp_path: Path, name: str) -> None:
    table = DiscoveredTable(TableId(name, ("a", "b")), "view")
    fleet_of(tmp_path / "home", name).remember(name, [table])
    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert file.parent == tmp_path / "home" / "discovery"
    assert fleet_of(tmp_path / "home", name).tables() == [table]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[]", b"{}", b'{"format": 99, "tables": []}', b'{"format": 1, "tables": [[["a"], "k"]]}',
     b'{"format": 1, "tables": 5}', b'{"format": 1, "tables": [[["a", "b"], "k", "", "", [1]]]}', b"\xff\x00"],
)  # fmt: skip
def test_a_file_that_cannot_be_understood_counts_as_never_discovered_and_is_logged_once(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    fleet = fleet_of(tmp_path, "lake", "pg")
    fleet.remember("pg", [found("pg.a.b")])
    file = tmp_path / "discovery" / "lake.json"
    file.write_bytes(content)
    assert fleet.tables() == [found("pg.a.b")]
    assert fleet.tables() == [found("pg.a.b")]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert str(file) in record.getMessage()
    fleet.remember("lake", [found("lake.a.b")])
    assert fleet.tables() == [found("lake.a.b"), found("pg.a.b")]


def test_a_file_that_cannot_be_read_counts_as_never_discovered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "discovery" / "lake.json").mkdir(parents=True)
    assert fleet_of(tmp_path).tables() == []
    assert "IsADirectoryError" in caplog.text


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file stands where the folder should be")
    with pytest.raises(StorageWriteError, match="lake") as caught:
        fleet_of(tmp_path / "home").remember("lake", [])
    assert "AURUM_HOME" in str(caught.value.hint)


def test_a_write_that_fails_leaves_the_old_list_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = fleet_of(tmp_path)
    fleet.remember("lake", [ODD])

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aurum_orchestration.fleet.discovery.os.fsync", full)
    with pytest.raises(StorageWriteError, match="No space left"):
        fleet.remember("lake", [])
    assert fleet_of(tmp_path).tables() == [ODD]
    assert [path.name for path in (tmp_path / "discovery").iterdir()] == ["lake.json"]


def test_concurrent_writers_and_readers_see_whole_lists_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists = {size: [found(f"lake.n.t{size}_{number}") for number in range(size)] for size in (1, 300, 900)}
    fleet_of(tmp_path).remember("lake", lists[1])
    done = threading.Event()
    torn: list[int] = []

    def write(size: int) -> None:
        cache = DiscoveryCache(tmp_path / "discovery")
        for _ in range(20):
            cache.save("lake", lists[size])

    def read() -> None:
        while not done.is_set():
            seen = DiscoveryCache(tmp_path / "discovery").load("lake")
            if seen != lists.get(len(seen)):
                torn.append(len(seen))

    readers = [threading.Thread(target=read) for _ in range(2)]
    writers = [threading.Thread(target=write, args=(size,)) for size in lists]
    for thread in [*readers, *writers]:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    for thread in readers:
        thread.join()
    assert torn == []
    assert caplog.records == []
    assert [path.name for path in (tmp_path / "discovery").iterdir()] == ["lake.json"]


def test_the_file_of_ten_thousand_tables_is_read_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [DiscoveredTable(TableId("lake", ("n", f"t{number}")), "iceberg") for number in range(10_000)]
    fleet = fleet_of(tmp_path)
    fleet.remember("lake", tables)
    parsed: list[str] = []
    decode = discovery._decode

    def tells(backend: str, data: object) -> list[DiscoveredTable]:
        parsed.append(backend)
        return decode(backend, data)

    monkeypatch.setattr(discovery, "_decode", tells)
    assert fleet.tables() == fleet.tables() == tables
    assert len(parsed) == 1
    fleet.remember("lake", tables[:5])
    assert fleet.tables() == tables[:5]
    assert len(parsed) == 2


def test_rules_that_no_table_needs_are_logged_with_their_line(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    fleet = load("""
        version: 1
        backends: {lake: {type: iceberg}, pg: {type: postgres}}
        tables:
          - match: lake.flights.*
          - match: lake.flihgts.*
          - match: pg.public.*
          - match: "**"
    """)
    fleet.remember("lake", [found("lake.flights.planes")])
    [record] = caplog.records
    assert "fleet.yaml:5: no table of lake matches lake.flihgts.*" in record.getMessage()


TABLES = [TableId.parse(text) for text in ("lake.flights.planes", "lake.flights.weather", 'lake."my.ns".t', "pg.a.b")]


@pytest.mark.parametrize(
    ("globs", "expected"),
    [
        ([], [0, 1, 2, 3]),
        (["**"], [0, 1, 2, 3]),
        (["lake.*.*"], [0, 1, 2]),
        (["pg.**", "lake.flights.weather"], [1, 3]),
        (["lake.flights.*", "lake.flights.planes"], [0, 1]),
        (['lake."my.ns".*'], [2]),
    ],
)
def test_select(tmp_path: Path, globs: list[str], expected: list[int]) -> None:
    fleet = fleet_of(tmp_path)
    assert fleet.select(globs, TABLES) == [TABLES[number] for number in expected]
    assert fleet.select(globs, iter([*TABLES, *TABLES])) == [TABLES[number] for number in expected]


@pytest.mark.parametrize(
    ("glob", "hint"),
    [
        ("lake.flights.plane", "Did you mean 'lake.flights.planes'?"),
        ("lake.flight.*", "Did you mean 'lake.flights.*'?"),
        ("lake.my.ns.*", "Did you mean 'lake.\"my.ns\".*'?"),
        ("pg.a", "Did you mean 'pg.a.b'?"),
    ],
)
def test_a_glob_that_matches_nothing_is_an_error_with_the_nearest(tmp_path: Path, glob: str, hint: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        fleet_of(tmp_path).select(["lake.**", glob], TABLES)
    assert glob in caught.value.detail
    assert caught.value.hint == hint


def test_select_of_nothing_known(tmp_path: Path) -> None:
    fleet = fleet_of(tmp_path)
    assert fleet.select([], []) == []
    with pytest.raises(UnknownNameError) as caught:
        fleet.select(["lake.*.*"], [])
    assert "no discovery" in str(caught.value.hint)
    with pytest.raises(UnknownNameError) as caught:
        fleet.select(["lakes.flights.*"], [])
    assert caught.value.hint == "A table's id begins with its backend. Did you mean 'lake'?"
    with pytest.raises(RequestError):
        fleet.select(["lake..x"], TABLES)


def test_a_long_list_of_names_is_not_offered_whole(tmp_path: Path) -> None:
    many = [TableId("lake", (f"n{number}", "t")) for number in range(500)]
    with pytest.raises(UnknownNameError) as caught:
        fleet_of(tmp_path).select(["completely.different"], many)
    assert len(str(caught.value.hint)) < 400
