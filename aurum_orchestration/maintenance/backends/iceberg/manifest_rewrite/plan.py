"""Which manifests are rewritten together: one step, and one commit, per group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from pyiceberg.manifest import ManifestContent, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Snapshot

from aurum_orchestration.errors import UnsupportedError
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.maintenance.backends.iceberg.entries import manifests_of
from aurum_orchestration.maintenance.backends.iceberg.manifest_rewrite.sizes import (
    candidates,
    ideal,
    manifests_refusal,
    target_of,
)
from aurum_orchestration.maintenance.interfaces import MaintenancePlan, OperationType, PlanStep
from aurum_orchestration.maintenance.operations.manifests import ManifestsParameters
from aurum_orchestration.maintenance.planner.words import count

MIB = 1024 * 1024

_RISK = "None for readers and writers: no data file changes, and manifests that others add meanwhile are kept."


def head_of(table: Table) -> tuple[Snapshot | None, Sequence[ManifestFile]]:
    """The head of main and its manifests. Raises CorruptTableError."""
    snapshot = table.metadata.snapshot_by_name(MAIN_BRANCH)
    if snapshot is None:
        return None, ()
    return snapshot, manifests_of(snapshot, table.io)


def plan_manifests(table: Table, table_id: TableId, parameters: ManifestsParameters) -> MaintenancePlan:
    """The plan for the table as it is. Raises UnsupportedError with the reason when it cannot be done safely."""
    snapshot, listed = head_of(table)
    metadata = table.metadata
    encrypted = "encryption.key-id" in metadata.properties or any(one.key_metadata for one in listed)
    if reason := manifests_refusal(metadata.format_version, encrypted=encrypted):
        raise UnsupportedError(reason, table=str(table_id), operation=OperationType.MANIFESTS)
    target = target_of(metadata.properties, parameters.target_manifest_size_mb)
    groups = list(_groups(listed, target, parameters))
    steps = [
        _step(number, group, target)
        for number, group in enumerate(_in_steps(groups, parameters.max_group_size_mb * MIB), 1)
    ]
    return MaintenancePlan(
        table=str(table_id),
        backend=table_id.backend,
        operation=OperationType.MANIFESTS,
        parameters=parameters.model_dump(),
        reason=_reason(listed, groups, target),
        fingerprint={
            "table_uuid": str(metadata.table_uuid),
            "snapshot_id": snapshot.snapshot_id if snapshot else None,
        },
        steps=steps,
    )


def has_live_files(manifest: ManifestFile) -> bool:
    """False only when the manifest list says that none is left."""
    return manifest.has_added_files() or manifest.has_existing_files()


def _kinds(listed: Sequence[ManifestFile]) -> dict[tuple[ManifestContent, int], list[ManifestFile]]:
    """Manifests with live files by what may share a manifest: data or deletes, and the partition spec."""
    kinds: dict[tuple[ManifestContent, int], list[ManifestFile]] = {}
    for manifest in listed:
        if has_live_files(manifest):
            kinds.setdefault((manifest.content, manifest.partition_spec_id), []).append(manifest)
    return kinds


def _groups(
    listed: Sequence[ManifestFile], target: int, parameters: ManifestsParameters
) -> Iterator[list[ManifestFile]]:
    """Manifests that are rewritten into each other, at most ``max_group_size_mb`` of them, neighbours by partition."""
    most = max(parameters.max_group_size_mb * MIB, target)
    for manifests in _kinds(listed).values():
        sizes = [manifest.manifest_length for manifest in manifests]
        chosen = [manifests[position] for position in candidates(sizes, target, everything=parameters.everything)]
        group: list[ManifestFile] = []
        size = 0
        for manifest in sorted(chosen, key=_lowest) if sum(sizes) > most else chosen:
            if group and size + manifest.manifest_length > most:
                yield from _worth_it(group, target, parameters)
                group, size = [], 0
            group.append(manifest)
            size += manifest.manifest_length
        yield from _worth_it(group, target, parameters)


def _worth_it(group: list[ManifestFile], target: int, parameters: ManifestsParameters) -> Iterator[list[ManifestFile]]:
    sizes = [manifest.manifest_length for manifest in group]
    if group and candidates(sizes, target, everything=parameters.everything):
        yield group


def _lowest(manifest: ManifestFile) -> list[tuple[bool, bytes]]:
    """Where a manifest's partitions begin, in an order that puts neighbours together; numbers are little-endian."""
    bounds = [field.lower_bound for field in manifest.partitions or ()]
    return [(bound is not None, (bound or b"")[:: -1 if len(bound or b"") in {4, 8} else 1]) for bound in bounds]


def _in_steps(groups: Sequence[list[ManifestFile]], most: int) -> Iterator[list[list[ManifestFile]]]:
    """Groups that fit into one commit together."""
    step: list[list[ManifestFile]] = []
    size = 0
    for group in groups:
        length = sum(manifest.manifest_length for manifest in group)
        if step and size + length > most:
            yield step
            step, size = [], 0
        step.append(group)
        size += length
    if step:
        yield step


def _step(number: int, groups: Sequence[list[ManifestFile]], target: int) -> PlanStep:
    files = sum(len(group) for group in groups)
    size = sum(manifest.manifest_length for group in groups for manifest in group)
    out = sum(_files_out(group, target) for group in groups)
    return PlanStep(
        number=number,
        action="rewrite-manifests",
        summary=f"Rewrite {files:,} manifests ({size / MIB:.1f} MiB) into {out:,}, clustered by partition.",
        risk=_RISK,
        detail={
            "files_out": out,
            "bytes": size,
            "target_bytes": target,
            "groups": [_group_detail(group) for group in groups],
        },
    )


def _group_detail(group: Sequence[ManifestFile]) -> dict[str, Any]:
    return {
        "content": "deletes" if group[0].content == ManifestContent.DELETES else "data",
        "spec_id": group[0].partition_spec_id,
        "files": [manifest.manifest_path for manifest in group],
    }


def _files_out(group: Sequence[ManifestFile], target: int) -> int:
    return ideal(sum(manifest.manifest_length for manifest in group), target)


def _reason(listed: Sequence[ManifestFile], groups: Sequence[list[ManifestFile]], target: int) -> str:
    if not groups:
        if not listed:
            return "nothing to do: the table has no manifest"
        return f"nothing to do: {count(len(listed), 'manifest')}, and no fewer at {target / MIB:g} MiB each"
    files = sum(len(group) for group in groups)
    out = sum(_files_out(group, target) for group in groups)
    return f"{files:,} of {len(listed):,} manifests become {out:,}"
