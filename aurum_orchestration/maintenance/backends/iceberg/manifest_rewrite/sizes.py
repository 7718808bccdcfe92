"""Which manifests are worth rewriting, by their sizes alone. Pure; the same for measuring and for planning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

TARGET_PROPERTY = "commit.manifest.target-size-bytes"
DEFAULT_TARGET = 8 * 1024 * 1024

NEWEST_FORMAT = 2
ENCRYPTED = "the table is encrypted"
"""Why no engine rewrites the manifests of such a table."""

SMALL_SHARE = 0.75
"""Below this share of the target a manifest is small."""

LARGE_SHARE, LARGE_BYTES = 2.0, 256 * 1024
"""Above this share of the target a manifest is split, so that readers share the work of planning; not below so many
bytes, where most of a manifest is its header.
"""

TOLERANCE = 0.1
"""A manifest may exceed the target by this share rather than leave a tiny one beside it."""


def ideal(total: float, target: float) -> int:
    """How few manifests of about ``target`` bytes hold ``total`` bytes."""
    return max(1, math.ceil(total / target - TOLERANCE)) if total > 0 else 0


def candidates(sizes: Sequence[int], target: int, *, everything: bool = False) -> list[int]:
    """Positions of the manifests to rewrite together: small and very large ones, or all; none if that gains nothing.

    What comes out of a rewrite is not chosen again: manifests of one rewrite are all of about the same size,
    as near to the target as their number allows.
    """
    large = [position for position, size in enumerate(sizes) if size > max(LARGE_SHARE * target, LARGE_BYTES)]
    small = [position for position, size in enumerate(sizes) if size < SMALL_SHARE * target]
    chosen = list(range(len(sizes))) if everything else sorted([*small, *large])
    fewer = excess([sizes[position] for position in chosen], target)
    return chosen if large or fewer > 0 or (everything and len(chosen) > 1) else []


def excess(sizes: Sequence[int], target: int) -> int:
    """How many manifests fewer there would be, at most: what is written together takes less than what was apart."""
    return len(sizes) - ideal(sum(sizes), target)


def excess_of(sizes: Sequence[int], target: int) -> int:
    """How many manifests fewer a rewrite of those worth it would leave."""
    chosen = [sizes[position] for position in candidates(sizes, target)]
    return max(0, excess(chosen, target))


def manifests_refusal(format_version: int, *, encrypted: bool) -> str | None:
    """Why a table's manifests cannot be rewritten, or None."""
    if format_version > NEWEST_FORMAT:
        return (
            f"format version {format_version} keeps row ids in its manifests, which rewriting does only up to version "
            f"{NEWEST_FORMAT}; Spark's rewrite_manifests keeps them"
        )
    return ENCRYPTED if encrypted else None


def target_of(properties: Mapping[str, str], wanted_mb: float | None = None) -> int:
    """The size manifests aim at, in bytes: what is wanted, else the table's property, else 8 MiB."""
    if wanted_mb is not None:
        return int(wanted_mb * 1024 * 1024)
    try:
        return max(1, int(properties.get(TARGET_PROPERTY, DEFAULT_TARGET)))
    except ValueError:
        return DEFAULT_TARGET
