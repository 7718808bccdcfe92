"""Which tables this engine leaves alone, and why: pure rules, the same for measuring and for planning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pyiceberg.manifest import ManifestEntry

NEWEST_FORMAT = 2
FORMAT_PROPERTY = "write.format.default"


PARQUET = "PARQUET"
_ONLY_PARQUET = "only Parquet can be read, Spark reads ORC and Avro too"


class CandidateFile(Protocol):
    """A data file that a compaction would rewrite; PyIceberg's DataFile is one."""

    @property
    def file_format(self) -> Any:
        """The name of its format, in any case."""
        ...

    @property
    def key_metadata(self) -> Any:
        """Its encryption key, None when it is not encrypted."""
        ...


def compaction_refusal(
    *,
    format_version: int,
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
        return f"the table writes {written.upper()} ({FORMAT_PROPERTY}); only Parquet can be written, Spark writes both"
    return _of_candidates(candidates)


def _of_candidates(candidates: Iterable[CandidateFile]) -> str | None:
    formats: Counter[str] = Counter()
    encrypted = 0
    for file in candidates:
        if (name := format_of(file)) != PARQUET:
            formats[name] += 1
        encrypted += file.key_metadata is not None
    if formats:
        return f"{_counted(formats)} data files are among those to be rewritten; {_ONLY_PARQUET}"
    if encrypted:
        return f"{encrypted:,} of the data files to be rewritten are encrypted"
    return None


GC_ENABLED = "gc.enabled"


def foreign_files_refusal(properties: Mapping[str, str]) -> str | None:
    """Why a table's files may not be deleted, or None: its properties may say that they are not its own."""
    if str(properties.get(GC_ENABLED, "true")).strip().lower() != "false":
        return None
    return f"the table says {GC_ENABLED}: false, so its files may belong to another table"


def format_of(file: CandidateFile) -> str:
    """The name of a file's format in capitals."""
    return str(getattr(file.file_format, "value", file.file_format)).upper()


def parquet_only(entries: Sequence[ManifestEntry]) -> tuple[list[ManifestEntry], str | None]:
    """Parquet files, and what to say of others that are left as they are; all files when none is Parquet."""
    formats = Counter(format_of(item.data_file) for item in entries)
    parquet = formats.pop(PARQUET, 0)
    if not parquet or not formats:
        return list(entries), None
    told = f"{_counted(formats)} data files are left as they are; {_ONLY_PARQUET}"
    return [item for item in entries if format_of(item.data_file) == PARQUET], told


def _counted(formats: Counter[str]) -> str:
    return " and ".join(f"{count:,} {name}" for name, count in sorted(formats.items()))
