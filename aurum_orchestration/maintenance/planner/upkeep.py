"""Triggers of what keeps metadata in order, and of what is done by the calendar where a policy says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from pydantic import BaseModel

from aurum_orchestration.maintenance.interfaces import Cost, Gain
from aurum_orchestration.maintenance.operations.manifests import ManifestsPolicy
from aurum_orchestration.maintenance.planner.assessment import Assessment
from aurum_orchestration.maintenance.planner.debt import PENALTIES, number
from aurum_orchestration.maintenance.planner.facts import RunFacts
from aurum_orchestration.maintenance.planner.words import count

SECONDS_PER_MANIFEST = 0.002
START_SECONDS = 0.2
"""What a rewrite of manifests is taken to cost (measured: 500 in less than a second, all in)."""


def by_the_calendar(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:  # noqa: ARG001 - a trigger's signature
    """Always due, once per cooldown: for backups and reports, which a policy has to enable."""
    return Assessment(True, "it is due by its policy", routine=True)


def manifests(metrics: Mapping[str, float], policy: BaseModel, facts: RunFacts) -> Assessment | None:  # noqa: ARG001 - a trigger's signature
    """Acts at ``trigger_excess_manifests`` manifests that could be saved.

    They are counted where the manifest list was read. Where it was not, there are at most as many as files.
    """
    threshold = cast(ManifestsPolicy, policy).trigger_excess_manifests
    if metrics.get("excess_manifests") is None:
        if metrics.get("data_files") is None:
            return None
        most = number(metrics, "data_files") + number(metrics, "delete_files")
        known = f"at most {count(most, 'manifest')}" if most <= threshold else "manifests not counted yet"
        return Assessment(False, f"{known}, acts at {threshold:,} that could be saved")
    excess = number(metrics, "excess_manifests")
    total = max(excess, number(metrics, "manifests"))
    size = number(metrics, "manifest_bytes")
    points = PENALTIES["manifests"].points(total) - PENALTIES["manifests"].points(total - excess)
    gain = Gain(debt_score=round(points, 2), files=excess)
    cost = Cost(seconds=START_SECONDS + SECONDS_PER_MANIFEST * total, bytes=2 * size) if excess else Cost()
    if excess < threshold:
        return Assessment(False, f"{count(excess, 'manifest')} could be saved, acts at {threshold:,}", gain, cost)
    return Assessment(True, f"{total:,.0f} manifests, of which {excess:,.0f} could be saved", gain, cost)
