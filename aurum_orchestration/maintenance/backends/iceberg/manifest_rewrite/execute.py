"""Rewriting manifests: their entries, unchanged, in new manifests that one ``replace`` snapshot swaps in.

What could lose a row, block a writer or leave debris, and what prevents it:

* an entry is lost, doubled or comes back deleted, or takes a new sequence number, so that deletes apply to
  it that did not, or no longer do: what was written is read back, and its entries are compared with those
  of the replaced manifests, one by one with their snapshot ids and both sequence numbers;
* a field is lost that this program does not know: data files are copied as bytes; only those written with
  another schema than the newest are encoded anew, into one that has the fields of all;
* a concurrent commit: manifests that others add are kept as they are. One that they replaced is no longer
  listed, so the rewrite is given up and planned anew;
* files stay behind: new manifests are deleted when anything fails before the commit; after a kill they are
  unreferenced files for the next vacuum. Old ones stay for the snapshots that list them.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pyiceberg.manifest import UNASSIGNED_SEQ, ManifestContent, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from aurum_orchestration.errors import CommitConflictError, CorruptTableError, StateDriftedError
from aurum_orchestration.maintenance.backends.iceberg.avro import avro_codec
from aurum_orchestration.maintenance.backends.iceberg.entries import manifests_of
from aurum_orchestration.maintenance.backends.iceberg.failures import writing
from aurum_orchestration.maintenance.backends.iceberg.files import Files
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.cluster import Partitions, partition_types
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.plan import has_live_files, head_of
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.raw import (
    RawEntry,
    RawManifest,
    in_schema,
    read_manifests,
)
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.schemas import FileSchema, target_schema
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.write import (
    Packed,
    dealt,
    entry_schema,
    manifest_bytes,
    packed,
)
from aurum_orchestration.maintenance.backends.iceberg.publish import SnapshotBuilder, delete_quietly, publish
from aurum_orchestration.maintenance.backends.iceberg.rollback import OPERATION_ID, undo_data, undo_text
from aurum_orchestration.maintenance.interfaces import (
    MaintenancePlan,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)

METHOD = "manifest-entries"

_TOTALS = (
    "total-data-files",
    "total-delete-files",
    "total-records",
    "total-files-size",
    "total-position-deletes",
    "total-equality-deletes",
)


class ManifestsExecution:
    """The units of a plan, on the table as it is now, which may be later than the plan."""

    workers = 1

    def __init__(self, plan: MaintenancePlan, table: Table) -> None:
        self.plan, self.table = plan, table
        self.files = Files(table.io.properties, table.io)
        self.partitions = Partitions()

    def units(self) -> Iterator[Unit]:
        """One unit per step. Raises StateDriftedError when a planned manifest is gone."""
        _, listed = head_of(self.table)
        here = {manifest.manifest_path: manifest for manifest in listed}
        if str(self.table.metadata.table_uuid) != self.plan.fingerprint["table_uuid"]:
            raise StateDriftedError("the table was created anew", table=self.plan.table)
        for step in self.plan.steps:
            gone = [path for group in step.detail["groups"] for path in group["files"] if path not in here]
            if gone:
                raise StateDriftedError(
                    f"{len(gone):,} planned manifests are gone, e.g. {gone[0]}", table=self.plan.table
                )
            yield ManifestsUnit(
                step, self, [[here[path] for path in group["files"]] for group in step.detail["groups"]]
            )


class _Written(NamedTuple):
    """A manifest just written, as the manifest list names it, and how its data files are laid out."""

    listed: ManifestFile
    schema: FileSchema


class ManifestsUnit(Unit):
    """Groups of manifests, each replaced by few, in one ``replace`` snapshot."""

    def __init__(self, step: PlanStep, execution: ManifestsExecution, groups: Sequence[Sequence[ManifestFile]]) -> None:
        super().__init__(step)
        self._execution, self._groups = execution, groups
        self._snapshot_id = execution.table.metadata.new_snapshot_id()
        self._uuid = uuid.uuid4()
        self._written: list[_Written] = []
        self._locations: list[str] = []
        self._before: Counter[tuple[Any, ...]] = Counter()
        self._rows = 0

    def stage(self, run: RunContext) -> None:
        """Write the new manifests."""
        for number, group in enumerate(self._groups):
            run.check()
            run.progress(number, len(self._groups), "groups")
            self._rewrite(list(read_manifests(group, self._execution.files)))

    def verify(self, run: RunContext) -> Verification | None:
        """Read the new manifests back and compare entry by entry."""
        run.check()
        after: Counter[tuple[Any, ...]] = Counter()
        rows = 0
        again = read_manifests([written.listed for written in self._written], self._execution.files)
        for written, manifest in zip(self._written, again, strict=True):
            if manifest.schema.layout != written.schema.layout:
                raise CorruptTableError(f"manifest {written.listed.manifest_path} has another schema than was written")
            after.update(map(RawEntry.fact, manifest.entries))
            rows += _data_rows(manifest.entries)
        return Verification(
            method=METHOD, rows_before=self._rows, rows_after=rows, checksum_equal=after == self._before
        )

    def commit(self, run: RunContext) -> UnitOutcome:
        """Swap the manifests in one snapshot, on top of whatever was committed meanwhile."""
        execution = self._execution
        replaced = {manifest.manifest_path for group in self._groups for manifest in group}
        new = [written.listed for written in self._written]
        said = {
            OPERATION_ID: run.operation_id,
            "aurum.plan-id": execution.plan.plan_id,
            "entries-processed": str(self._before.total()),
        }
        done = publish(
            execution.table,
            self._snapshot_id,
            lambda table, head: _Builder(table, head, self._snapshot_id, replaced=replaced, new=new, said=said),
        )
        execution.table = done.table
        return UnitOutcome(
            metrics={
                "manifests_rewritten": len(replaced),
                "manifests_added": len(new),
                "manifest_bytes_rewritten": self.step.detail["bytes"],
                "manifest_bytes_added": sum(manifest.manifest_length for manifest in new),
                "entries": self._before.total(),
                "commit_retries": done.retries,
            },
            undo=undo_text(run.operation_id, done),
            undo_data=undo_data(done),
        )

    def discard(self) -> None:
        """Delete the manifests written; nothing references them."""
        for location in self._locations:
            delete_quietly(self._execution.table, location)

    def _rewrite(self, manifests: Sequence[RawManifest]) -> None:
        table = self._execution.table
        version = table.metadata.format_version
        newest = max(manifests, key=lambda manifest: manifest.listed.sequence_number or 0)
        schemas = list({one.schema.layout: one.schema for one in (newest, *manifests)}.values())
        target = target_schema(schemas, version)
        clustered = self._execution.partitions.clustered(entry for one in manifests for entry in one.entries)
        entries = [in_schema(entry, target) for entry in clustered]
        self._before.update(map(RawEntry.fact, entries))
        self._rows += _data_rows(entries)
        codec = avro_codec(table.metadata.properties)
        size = self.step.detail["target_bytes"]
        for part in dealt(list(packed(entries, version, codec, size)), size):
            content = manifest_bytes(part, _header(newest, version), codec, entry_schema(target, version))
            self._write(content, part, newest, target)

    def _write(self, content: bytes, part: Sequence[Packed], newest: RawManifest, target: FileSchema) -> None:
        table = self._execution.table
        location = table.location_provider().new_metadata_location(f"{self._uuid}-m{len(self._locations)}.avro")
        self._locations.append(location)
        with writing("a manifest"), table.io.new_output(location).create(overwrite=False) as stream:
            stream.write(content)
        entries = [entry for block in part for entry in block.entries]
        numbers = [entry.sequence_number for entry in entries if entry.sequence_number is not None]
        listed = ManifestFile.from_args(
            manifest_path=location,
            manifest_length=len(content),
            partition_spec_id=newest.listed.partition_spec_id,
            content=newest.listed.content,
            sequence_number=UNASSIGNED_SEQ if table.metadata.format_version > 1 else 0,
            min_sequence_number=min(numbers, default=0),
            added_snapshot_id=self._snapshot_id,
            added_files_count=0,
            existing_files_count=len(entries),
            deleted_files_count=0,
            added_rows_count=0,
            existing_rows_count=sum(entry.rows for entry in entries),
            deleted_rows_count=0,
            partitions=self._summaries(entries, newest, target),
            key_metadata=None,
        )
        self._written.append(_Written(listed, target))

    def _summaries(self, entries: Sequence[RawEntry], newest: RawManifest, target: FileSchema) -> list[Any]:
        try:
            return self._execution.partitions.summaries(entries, partition_types(newest.header, target))
        except (KeyError, ValueError) as error:
            raise CorruptTableError(f"manifest {newest.listed.manifest_path}: {error}") from error


def _data_rows(entries: Sequence[RawEntry]) -> int:
    return sum(entry.rows for entry in entries if not entry.content)


def _header(newest: RawManifest, version: int) -> dict[str, bytes]:
    """Iceberg's keys as the newest of the replaced manifests has them: schema and spec fit its partitions."""
    kept = {key: value for key, value in newest.header.items() if not key.startswith("avro.")}
    content = b"deletes" if newest.listed.content == ManifestContent.DELETES else b"data"
    return {
        **kept,
        "partition-spec-id": str(newest.listed.partition_spec_id).encode(),
        "format-version": str(version).encode(),
        **({"content": content} if version > 1 else {}),
    }


class _Builder(SnapshotBuilder):
    """One attempt: the new manifests beside those that the head has and nobody replaces."""

    def __init__(
        self,
        table: Table,
        head: Snapshot,
        snapshot_id: int,
        *,
        replaced: set[str],
        new: Sequence[ManifestFile],
        said: Mapping[str, str],
    ) -> None:
        super().__init__(table, head, snapshot_id)
        self._replaced, self._new, self._said = replaced, new, said
        self._kept = 0

    def manifests(self) -> Sequence[ManifestFile]:
        """Raises CommitConflictError when another commit replaced one of the manifests meanwhile."""
        listed = manifests_of(self.head, self.table.io)
        gone = self._replaced - {manifest.manifest_path for manifest in listed}
        if gone:
            raise CommitConflictError(
                f"{len(gone):,} of {len(self._replaced):,} manifests were replaced by another commit meanwhile"
            )
        kept = [
            manifest for manifest in listed if manifest.manifest_path not in self._replaced and has_live_files(manifest)
        ]
        self._kept = len(kept)
        return [*self._new, *kept]

    def summary(self) -> Mapping[str, str]:
        """What Apache Iceberg says of such a commit, and the totals, which stay as they are."""
        before = self.head.summary.additional_properties if self.head.summary else {}
        return {
            "manifests-created": str(len(self._new)),
            "manifests-kept": str(self._kept),
            "manifests-replaced": str(len(self._replaced)),
            "changed-partition-count": "0",
            **{name: before[name] for name in _TOTALS if name in before},
            **self._said,
        }
