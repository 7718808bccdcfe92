"""What is made of metadata files, and where files are taken to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aurum_orchestration.errors import BackendUnavailableError, CorruptTableError
from aurum_orchestration.maintenance.backends.iceberg.files import Files, local_path
from aurum_orchestration.maintenance.backends.iceberg.layout import Rules, estimate, suspicion
from aurum_orchestration.maintenance.backends.iceberg.metadata import (
    MOST_COMMITS,
    TableState,
    columns_of,
    parse_metadata,
    table_state,
)

MIB = 1024 * 1024
RULES = Rules(target=100 * MIB, min_input_files=5, max_group=2048 * MIB, clear=5)


def state_of(commits: list[tuple[int, int]], **more: Any) -> TableState:
    """The state after commits that each added (files, bytes), or removed them when negative."""
    snapshots: list[dict[str, Any]] = []
    files = size = 0
    for number, (added, added_size) in enumerate(commits, 1):
        files, size = files + added, size + added_size
        verbs = ("added-data-files", "added-files-size") if added >= 0 else ("deleted-data-files", "removed-files-size")
        summary = {"operation": "append", verbs[0]: str(abs(added)), verbs[1]: str(abs(added_size))}
        summary |= {"total-data-files": str(files), "total-files-size": str(size)}
        snapshots.append({"snapshot-id": number, "timestamp-ms": number, "summary": summary})
        if number > 1:
            snapshots[-1]["parent-snapshot-id"] = number - 1
    metadata = {
        "format-version": 2,
        "last-updated-ms": 99,
        "current-snapshot-id": len(commits) or -1,
        "snapshots": snapshots,
        **more,
    }
    return table_state("file:///m.json", parse_metadata(orjson.dumps(metadata)), None)


def test_the_latest_commits_are_looked_at_by_themselves() -> None:
    state = state_of([(10, 10_000 * MIB), (3, 3), (4, 4), (5, 5)])
    whole = (22, 10_000 * MIB + 12)
    assert state.windows == ((5, 5), (9, 9), whole, whole)
    assert (state.files, state.token, state.committed_ms) == (22, "4", 4)
    assert suspicion(state, RULES) == 8
    assert estimate(state, RULES) == (9, 8)


def test_what_later_commits_removed_is_not_counted() -> None:
    state = state_of([(10, 10_000 * MIB), (50, 50), (-49, -49)])
    assert suspicion(state, RULES) <= 1
    assert estimate(state, RULES) == (0, 0)


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 10**11)), min_size=1, max_size=20))
def test_an_estimate_never_exceeds_what_files_there_are(commits: list[tuple[int, int]]) -> None:
    state = state_of(commits)
    small, excess = estimate(state, RULES)
    assert 0 <= excess <= small <= (state.files or 0)
    assert excess < max(1, small)
    assert excess <= max(0, suspicion(state, RULES))


def test_another_branchs_commits_are_not_the_tables() -> None:
    state = state_of([(1, 1)])
    metadata = {
        "format-version": 2,
        "last-updated-ms": 1,
        "current-snapshot-id": 3,
        "snapshots": [
            {"snapshot-id": number, "timestamp-ms": 1, "summary": summary}
            | ({"parent-snapshot-id": 1} if number > 1 else {})
            for number, summary in [
                (1, {"added-data-files": "2", "added-files-size": "2"}),
                (2, {"added-data-files": "90", "added-files-size": "90"}),
                (
                    3,
                    {
                        "added-data-files": "3",
                        "added-files-size": "3",
                        "total-data-files": "5",
                        "total-files-size": "5",
                    },
                ),
            ]
        ],
    }
    state = table_state("file:///m.json", parse_metadata(orjson.dumps(metadata)), None)
    assert state.windows == ((3, 3), (5, 5), (5, 5))


def test_a_long_history_is_looked_at_in_part() -> None:
    state = state_of([(2, 2)] * (3 * MOST_COMMITS))
    assert state.windows[-2:] == ((2 * MOST_COMMITS, 2 * MOST_COMMITS), (6 * MOST_COMMITS, 6 * MOST_COMMITS))
    assert len(state.windows) == 9


def test_minus_one_is_no_snapshot() -> None:
    state = state_of([], **{"current-snapshot-id": -1})
    assert (state.token, state.files, state.committed_ms) == ("empty", 0, 99)


def test_encryption_is_seen_in_keys_and_in_properties() -> None:
    assert not state_of([(1, 1)]).encrypted
    assert not state_of([(1, 1)], **{"encryption-keys": []}).encrypted
    assert state_of([(1, 1)], **{"encryption-keys": [{"key-id": "k"}]}).encrypted
    assert state_of([(1, 1)], properties={"encryption.key-id": "k"}).encrypted


def test_columns_of_a_v1_file_and_of_one_without_a_schema() -> None:
    base = {"format-version": 1, "last-updated-ms": 1}
    schema = {"type": "struct", "fields": [{"id": 1, "name": "a", "type": "long"}]}
    assert columns_of(parse_metadata(orjson.dumps({**base, "schema": schema}))) == (("a", "long"),)
    assert columns_of(parse_metadata(orjson.dumps(base))) == ()
    assert columns_of(parse_metadata(orjson.dumps({**base, "schemas": [{"fields": 7}]}))) == ()


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"{}", b"\xff\xfe", b'{"format-version": "two"}', b"null"])
def test_what_is_no_metadata_is_an_error(content: bytes) -> None:
    with pytest.raises(CorruptTableError):
        parse_metadata(content)


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("file:///a/b.json", "/a/b.json"),
        ("file:/a/b.json", "/a/b.json"),
        ("/a/b.json", "/a/b.json"),
        ("file:///a%20b/ö", "/a%20b/ö"),
        ("file://host/a", None),
        ("s3://bucket/a", None),
        ("a/b", None),
        ("file:///a#b", None),
        ("file:///a?b", None),
    ],
)
def test_what_is_local(location: str, path: str | None) -> None:
    assert local_path(location) == path


def test_a_place_that_cannot_be_reached_is_not_a_broken_table(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailableError, match="weird://x/y"):
        Files({}).read("weird://x/y")
    with pytest.raises(CorruptTableError, match="missing"):
        Files({}).read(f"file://{tmp_path}/none")
    with pytest.raises(CorruptTableError):
        Files({}).read(f"file://{tmp_path}")
    (tmp_path / "f").write_bytes(b"x" * 70_000)
    assert Files({}).read(f"file://{tmp_path}/f") == b"x" * 70_000


def test_io_settings_of_a_table_are_its_own() -> None:
    files = Files({"s3.region": "x"})
    assert files.for_table({"write.format.default": "parquet"}) is files
    assert files.for_table({"s3.region": "y"}).properties == {"s3.region": "y"}
