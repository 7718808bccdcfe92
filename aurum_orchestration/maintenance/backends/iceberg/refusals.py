"""Which tables this engine leaves alone, and why: pure rules, the same for measuring and for planning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

NEWEST_FORMAT = 2
FORMAT_PROPERTY = "write.format.default"


class CandidateFile(Protocol):
    """A data file that a compaction would rewrite; PyIceberg's DataFile is one."""

    @property
    def file_format(self) -> Any:
        """The name of its format, in any case."""
        ...

    @property
    def spec_id(self) -> int:
        """The partition spec it was written with."""
        ...

    @property
    def key_metadata(self) -> Any:
        """Its encryption key, None when it is not encrypted."""
        ...


def compaction_refusal(
    *,
    format_version: int,
    default_spec_id: int,
    encrypted: bool = False,
    properties: Mapping[str, str],
    candidates: Iterable[CandidateFile] = (),
) -> str | None:
    """Why a table cannot be compacted, or None. Without ``candidates``: as far as the metadata file tells.

    ``properties`` are the table's, ``candidates`` the data files that
    :func:`~aurum_orchestration.maintenance.planner.binpack.pack` chose.
    """
    if format_version > NEWEST_FORMAT:
        return (
            f"format version {format_version} needs row lineage kept, which rewriting does only up to version 2; "
            "Spark with Iceberg 1.10 or later can"
        )
    if encrypted:
        return "the table is encrypted"
    written = properties.get(FORMAT_PROPERTY, "parquet")
    if written.lower() != "parquet":
        return f"the table writes {written.upper()} ({FORMAT_PROPERTY}); only Parquet can be written"
    return _of_candidates(candidates, default_spec_id)


def _of_candidates(candidates: Iterable[CandidateFile], default_spec_id: int) -> str | None:
    formats: dict[str, int] = {}
    old_spec = encrypted = 0
    for file in candidates:
        format_ = str(getattr(file.file_format, "value", file.file_format)).upper()
        if format_ != "PARQUET":
            formats[format_] = formats.get(format_, 0) + 1
        old_spec += file.spec_id != default_spec_id
        encrypted += file.key_metadata is not None
    if formats:
        counted = " and ".join(f"{count:,} {format_}" for format_, count in sorted(formats.items()))
        return f"{counted} data files are among those to be rewritten; only Parquet can be read"
    if encrypted:
        return f"{encrypted:,} of the data files to be rewritten are encrypted"
    if old_spec:
        return f"{old_spec:,} of the data files to be rewritten have an old partition spec"
    return None


GC_ENABLED = "gc.enabled"


def foreign_files_refusal(properties: Mapping[str, str]) -> str | None:
    """Why a table's files may not be deleted, or None: its properties may say that they are not its own."""
    if str(properties.get(GC_ENABLED, "true")).strip().lower() != "false":
        return None
    return f"the table says {GC_ENABLED}: false, so its files may belong to another table"
