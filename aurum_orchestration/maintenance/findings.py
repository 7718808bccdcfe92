"""One thing that was looked at, and how it is: what checkups of backends and ``aurum doctor`` are made of."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from aurum_orchestration.errors import AurumError, MissingExtraError, redact

CLOCK_TOLERANCE_SECONDS = 30.0
"""Clocks further apart are told: leases and ages of files go by them."""

LEAST_FREE = 0.05
LEAST_FREE_BYTES = 2 * 1024**3
"""Less free space than this is told: a rewrite writes anew what it reads before the old files may go."""


class HealthStatus(StrEnum):
    """How a check ended. ``warning``: works, but a person should look at it."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


class Finding(BaseModel):
    """One thing that was looked at."""

    model_config = ConfigDict(frozen=True)

    check: str = Field(description="What was looked at: `reachable`, `version`, `rights`, `clock`, `space`, ...")
    status: HealthStatus
    detail: str = Field(description="What was found, in a sentence.")
    hint: str | None = Field(default=None, description="What to do about it.")


def ok(check: str, detail: str) -> Finding:
    """A finding that needs nothing."""
    return Finding(check=check, status=HealthStatus.OK, detail=detail)


def warning(check: str, detail: str, hint: str | None = None) -> Finding:
    """A finding that a person should look at."""
    return Finding(check=check, status=HealthStatus.WARNING, detail=detail, hint=hint)


def failure(check: str, error: AurumError) -> Finding:
    """What went wrong, as a finding."""
    check = "driver" if isinstance(error, MissingExtraError) else check
    return Finding(check=check, status=HealthStatus.FAILED, detail=redact(str(error)), hint=error.hint)


def clock(theirs: datetime, whose: str) -> Finding:
    """How far another clock is from this machine's."""
    apart = (theirs - datetime.now(UTC)).total_seconds()
    if abs(apart) <= CLOCK_TOLERANCE_SECONDS:
        return ok("clock", f"{whose} agrees with this machine's clock")
    told = f"{whose} is {abs(apart):,.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's clock"
    return warning("clock", told, "Synchronise the clocks: leases and the age of files go by them.")


def space(free: float, total: float | None, where: str) -> Finding:
    """How much of a disk is free, in bytes; ``total`` None where only the free space is known."""
    whole = "" if total is None else f" of {total / 1024**3:,.1f} GiB"
    told = f"{free / 1024**3:,.1f} GiB{whole} are free {where}"
    if free < max(LEAST_FREE_BYTES, LEAST_FREE * (total or 0.0)):
        return warning("space", told, "Free some: rewriting needs room for the new files before the old ones go.")
    return ok("space", told)
