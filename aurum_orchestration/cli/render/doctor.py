"""``aurum doctor`` as a person reads it."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from aurum_orchestration.cli.render import words
from aurum_orchestration.maintenance.findings import Finding, HealthStatus
from aurum_orchestration.maintenance.health_checks import DoctorReport

_STYLES = {HealthStatus.OK: "green", HealthStatus.WARNING: "yellow", HealthStatus.FAILED: "bold red"}


def render_doctor(report: DoctorReport) -> RenderableType:
    """A heading per target with its findings below, then one line that sums up."""
    parts: list[RenderableType] = []
    for target in report.targets:
        heading = Text.assemble((words.safe(target.target), "bold"), f"  {words.duration(target.seconds)}")
        parts += [heading, *(_finding(one) for one in target.findings), Text()]
    findings = [one for target in report.targets for one in target.findings]
    counts = [f"{sum(one.status is status for one in findings)} {status}" for status in HealthStatus]
    return Group(*parts, Text(", ".join(counts) + "."))


def _finding(one: Finding) -> Text:
    line = Text.assemble("  ", (f"{one.status:<8}", _STYLES[one.status]), f"{one.check}: {words.safe(one.detail)}")
    if one.hint:
        line.append(f"\n          {words.safe(one.hint)}")
    return line
