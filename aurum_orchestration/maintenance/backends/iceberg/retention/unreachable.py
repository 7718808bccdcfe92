"""Files that only expiring snapshots hold: what may be deleted once they are gone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Snapshot

from aurum_orchestration.maintenance.backends.iceberg.reachability import References, statistics_files, without


@dataclass(frozen=True)
class Unreachable:
    """Files by kind, each by its path as written with its size in bytes. Data files stand for delete files too."""

    data_files: dict[str, int] = field(default_factory=dict)
    manifests: dict[str, int] = field(default_factory=dict)
    manifest_lists: dict[str, int] = field(default_factory=dict)
    statistics_files: dict[str, int] = field(default_factory=dict)

    def in_order(self) -> Iterator[tuple[str, int]]:
        """All of them, a file before what refers to it: whatever is left after an interruption can be found."""
        for files in (self.data_files, self.statistics_files, self.manifests, self.manifest_lists):
            yield from files.items()

    @property
    def count(self) -> int:
        """How many files."""
        return len(self.data_files) + len(self.manifests) + len(self.manifest_lists) + len(self.statistics_files)

    @property
    def bytes(self) -> int:
        """How many bytes."""
        return sum(size for _, size in self.in_order())


def held_only_by(expiring: Sequence[Snapshot], metadata: TableMetadata, references: References) -> Unreachable:
    """What becomes unreachable when ``expiring`` go. Raises CorruptTableError when that cannot be told."""
    gone = {snapshot.snapshot_id for snapshot in expiring}
    kept = [snapshot for snapshot in metadata.snapshots if snapshot.snapshot_id not in gone]
    manifests, lists = references.manifests(expiring)
    kept_manifests, kept_lists = references.manifests(kept)
    own = {path: size for path, size in manifests.items() if path not in kept_manifests}
    found = Unreachable(
        dict(references.content_files(own)),
        {path.decode(): size for path, size in own.items()},
        lists,
        statistics_files(metadata),
    )
    return _less(found, metadata, kept, references, kept_manifests, kept_lists)


def still_unreachable(planned: Unreachable, metadata: TableMetadata, references: References) -> Unreachable:
    """Of files planned to be deleted, those that nothing in ``metadata`` refers to. Raises CorruptTableError."""
    kept_manifests, kept_lists = references.manifests(metadata.snapshots)
    return _less(planned, metadata, metadata.snapshots, references, kept_manifests, kept_lists)


def _less(  # noqa: PLR0917 - what is kept, in the forms in which it was read
    found: Unreachable,
    metadata: TableMetadata,
    kept: Sequence[Snapshot],
    references: References,
    kept_manifests: dict[bytes, int],
    kept_lists: dict[str, int],
) -> Unreachable:
    data_files = found.data_files
    if data_files:
        live = references.content_files(kept_manifests)
        data_files = without(data_files, (path for path, _ in live))
    ids = (snapshot.snapshot_id for snapshot in kept)
    return Unreachable(
        data_files=data_files,
        manifests=without(found.manifests, (path.decode() for path in kept_manifests)),
        manifest_lists=without(found.manifest_lists, kept_lists),
        statistics_files=without(found.statistics_files, statistics_files(metadata, ids)),
    )
