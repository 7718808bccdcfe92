"""The rules of what this engine leaves alone, over PyIceberg's own files as the planner passes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from pyiceberg.manifest import DataFile, FileFormat

from aurum_orchestration.maintenance.backends.iceberg.refusals import compaction_refusal


@dataclass
class File:
    file_format: Any = "PARQUET"
    key_metadata: bytes | None = None


def refusal(*candidates: Any, **given: Any) -> str | None:
    facts = {"format_version": 2, "properties": {}, **given}
    return compaction_refusal(**facts, candidates=candidates)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"format_version": 1}, None),
        ({"format_version": 3}, "format version 3"),
        ({"format_version": 4}, "format version 4"),
        ({"encrypted": True}, "encrypted"),
        ({"properties": {"write.format.default": "PARQUET"}}, None),
        ({"properties": {"write.format.default": "avro"}}, "writes AVRO"),
        ({"properties": {"write.delete.format.default": "orc"}}, None),
    ],
)
def test_what_the_metadata_tells(given: dict[str, Any], words: str | None) -> None:
    reason = refusal(**given)
    assert (reason is None) if words is None else (reason is not None and words in reason)


def test_what_the_files_tell() -> None:
    assert refusal(File(), File("parquet")) is None
    assert refusal(File(), File("orc"), File("ORC"), File("AVRO")) == (
        "1 AVRO and 2 ORC data files are among those to be rewritten; "
        "only Parquet can be read, Spark reads ORC and Avro too"
    )
    assert refusal(File(key_metadata=b"k")) == "1 of the data files to be rewritten are encrypted"


def test_pyicebergs_own_files_are_understood() -> None:
    file = DataFile.from_args(file_format=FileFormat.PARQUET, key_metadata=None)
    file.spec_id = 0
    assert refusal(file) is None
    file = DataFile.from_args(file_format=FileFormat.ORC, key_metadata=None)
    file.spec_id = 0
    assert refusal(file) == (
        "1 ORC data files are among those to be rewritten; only Parquet can be read, Spark reads ORC and Avro too"
    )
