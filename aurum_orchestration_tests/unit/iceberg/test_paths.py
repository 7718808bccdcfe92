"""One spelling for paths of the same file."""

from __future__ import annotations

import itertools

import pytest

from aurum_orchestration.maintenance.backends.iceberg.reachability import normalised


@pytest.mark.parametrize(
    "location",
    ["/a/b c%20d/é", "file:/a/b c%20d/é", "file:///a/b c%20d/é", "FILE:////a//b c%20d/é/", "//a/b c%20d//é"],
)
def test_spellings_of_a_local_file(location: str) -> None:
    assert normalised(location) == "file:///a/b c%20d/é"


@pytest.mark.parametrize("location", ["s3://b/k/x", "s3a://b/k/x", "s3n://b//k/x", "S3:///b/k///x", "s3://b/k/x/"])
def test_spellings_of_an_object(location: str) -> None:
    assert normalised(location) == "s3://b/k/x"


def test_other_stores_are_others() -> None:
    found = {normalised(f"{scheme}://b/k") for scheme in ("s3", "gs", "abfss", "hdfs", "file")}
    assert len(found) == 5


@pytest.mark.parametrize("scheme", ["file:///", "file://", "file:/", "/", "s3://", "s3a://", "s3:/", "gs://"])
def test_what_is_normalised_stays_as_it_is(scheme: str) -> None:
    """And nothing that is not is taken for it."""
    for parts in itertools.product(("a", "b", "/", "//"), repeat=4):
        found = normalised(scheme + "".join(parts))
        assert normalised(found) == found
        assert "//" not in found.partition("://")[2]
        assert not found.partition("://")[2].rstrip("/") or not found.endswith("/")
