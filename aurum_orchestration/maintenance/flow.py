"""The units of an opened plan, staged at once and committed one at a time. Synchronous.

Memory is bounded: at most ``workers`` units stage at once, and no more than twice as many are staged
or staging before the next commit. With one worker everything is strictly one after the other.
"""

from __future__ import annotations

import contextvars
import logging
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from aurum_orchestration.errors import AurumError, CommitStateUnknownError, TransientError, VerificationError
from aurum_orchestration.maintenance.interfaces import (
    PlanExecution,
    PlanStep,
    RunContext,
    Unit,
    UnitOutcome,
    Verification,
)
from aurum_orchestration.maintenance.stopping import StopSignal

UNDO_LINES = 4
"""So many commits' undo texts are told one by one."""

_log = logging.getLogger(__name__)


@dataclass
class Tally:
    """What an operation has done so far, over all attempts. A failed verification is kept too."""

    metrics: dict[str, float] = field(default_factory=dict)
    verifications: list[Verification] = field(default_factory=list)
    steps: list[PlanStep] = field(default_factory=list)
    undo: list[str] = field(default_factory=list)
    undo_data: dict[str, Any] | None = None
    warnings: list[str] = field(default_factory=list)
    taken_back: list[str] = field(default_factory=list)
    """Sentences on steps that were committed and did not stay."""
    _reported: list[tuple[PlanStep, Mapping[str, float]]] = field(default_factory=list)

    def add(self, step: PlanStep, outcome: UnitOutcome, verification: Verification | None) -> None:
        """Count a committed unit."""
        self.steps.append(step)
        if verification is not None:
            self.verifications.append(verification)
        for name, value in outcome.metrics.items():
            self.metrics[name] = self.metrics.get(name, 0.0) + value
        if step.action == "report":
            self._reported.append((step, outcome.metrics))
        taken_back_together = outcome.undo_data is not None and self.undo_data is not None
        if outcome.undo and not taken_back_together:
            self.undo.append(outcome.undo)
        if outcome.undo_data is not None:
            self.undo_data = _joined(self.undo_data or {}, outcome.undo_data)
        self.warn(*outcome.warnings)

    def forget_reports(self) -> None:
        """Before another attempt: what reports of the last one told is told anew, not added to it."""
        for step, metrics in self._reported:
            self.steps.remove(step)
            for name, value in metrics.items():
                self.metrics[name] -= value
                if not self.metrics[name]:
                    del self.metrics[name]
        self._reported.clear()

    def undo_text(self) -> str | None:
        """How to take everything back: the newest commit first, what lies between only counted."""
        texts = list(dict.fromkeys(reversed(self.undo)))
        if len(texts) > UNDO_LINES:
            texts = [*texts[: UNDO_LINES - 1], f"({len(texts) - UNDO_LINES} more, one per step)", texts[-1]]
        return "\n".join(texts) or None

    def warn(self, *warnings: str) -> None:
        """Keep warnings, each once."""
        self.warnings.extend(text for text in dict.fromkeys(warnings) if text not in self.warnings)


def run_units(
    execution: PlanExecution, run: RunContext, tally: Tally, stop: StopSignal, on_commit: Callable[[], None]
) -> None:
    """Stage, verify and commit every unit. What is committed is in ``tally``, also when this raises.

    Raises the first cause that stopped it; everything staged and not committed was discarded then.
    """
    workers = max(1, execution.workers)
    with ThreadPoolExecutor(workers, thread_name_prefix="stage") as pool:
        flow = _Flow(pool, run, tally, stop, on_commit)
        units: Iterator[Unit] = iter(())
        try:
            units = execution.units()
            flow.go(units, lookahead=1 if workers == 1 else 2 * workers)
        except BaseException as error:
            stop.fail(error)
            flow.give_up()
            if stop.cause is not None and stop.cause is not error:
                raise stop.cause from error
            raise
        finally:
            if isinstance(units, Generator):
                units.close()  # what the units share ends now, not when the error that kept them is forgotten


class _Flow:
    def __init__(
        self,
        pool: ThreadPoolExecutor,
        run: RunContext,
        tally: Tally,
        stop: StopSignal,
        on_commit: Callable[[], None],
    ) -> None:
        self._pool, self._run, self._tally, self._stop, self._on_commit = pool, run, tally, stop, on_commit
        self._staging: dict[Future[Verification | None], Unit] = {}
        self._staged: deque[tuple[Unit, Verification | None]] = deque()

    def go(self, units: Iterator[Unit], lookahead: int) -> None:
        exhausted = False
        while True:
            while not exhausted and len(self._staging) + len(self._staged) < lookahead:
                self._run.check()
                unit = next(units, None)
                if unit is None:
                    exhausted = True
                else:
                    self._submit(unit)
            if not self._staging and not self._staged:
                return
            self._collect()
            self._commit_next()

    def _submit(self, unit: Unit) -> None:
        context = contextvars.copy_context()
        self._staging[self._pool.submit(context.run, _stage, unit, self._run)] = unit

    def _collect(self) -> None:
        done, _ = wait(self._staging, timeout=0 if self._staged else None, return_when=FIRST_COMPLETED)
        for future in done:
            verification = future.result()  # a failed unit stays among the staging ones, to be discarded
            self._staged.append((self._staging.pop(future), verification))

    def _commit_next(self) -> None:
        unit, verification = self._staged[0]
        self._run.check()
        if not unit.fenced:
            self._run.still_mine()
        if unit.verify_first:
            _require(unit, verification, self._tally)
        try:
            outcome = unit.commit(self._run)
        except BaseException as error:
            if not _surely_not_committed(error):
                self._staged.popleft()  # readers may see it: what it staged must stay
                _log.warning("step %s: its staged files stay, the commit may have taken place", unit.step.number)
            raise
        self._staged.popleft()
        if not unit.verify_first:
            verification = self._verify_committed(unit, outcome)
        self._tally.add(unit.step, outcome, verification)
        self._on_commit()

    def _verify_committed(self, unit: Unit, outcome: UnitOutcome) -> Verification | None:
        """Check what was committed, and take it back otherwise; what stays unchecked is told, and can be undone."""
        try:
            verification = unit.verify(self._run)
            _require(unit, verification, self._tally)
        except BaseException as error:
            number = unit.step.number
            try:
                unit.take_back(self._run)
            except Exception as second:
                _log.exception("step %s could not be taken back", number)
                self._tally.add(unit.step, outcome, None)
                self._on_commit()
                if isinstance(error, TransientError):  # nobody has seen a wrong row
                    raise CommitStateUnknownError(
                        f"step {number} was committed, and then neither checked nor taken back: {error}",
                        hint="Once the backend answers, compare the table's newest snapshot with the one before; "
                        "the undo text says how the step is taken back.",
                    ) from error
                raise VerificationError(
                    f"step {number} was committed, failed its check ({error}) and could not be taken back: {second}",
                    hint="The table may hold wrong rows: stop its writers and restore it from its undo text.",
                ) from error
            why = "its check failed" if isinstance(error, VerificationError) else "it could not be checked"
            self._tally.taken_back.append(f"step {number} had been committed, and was taken back because {why}")
            raise
        return verification

    def give_up(self) -> None:
        """Wait for what is staging and remove everything staged and not committed."""
        for future, unit in self._staging.items():
            if not future.cancel():
                wait([future])
                _discard(unit)
        for unit, _ in self._staged:
            _discard(unit)


def _joined(before: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Lists joined; of other values the first one."""
    joined = {**more, **before}
    for key, value in more.items():
        if key in before and isinstance(value, list):
            joined[key] = [*before[key], *value]
    return joined


def _stage(unit: Unit, run: RunContext) -> Verification | None:
    run.check()
    unit.stage(run)
    return unit.verify(run) if unit.verify_first else None


def _require(unit: Unit, verification: Verification | None, tally: Tally) -> None:
    if verification is not None and not verification.ok:
        tally.verifications.append(verification)
        raise VerificationError(
            f"step {unit.step.number}: {verification.rows_before} rows before, {verification.rows_after} after, "
            f"checksums {'equal' if verification.checksum_equal else 'differ'} ({verification.method})"
        )


def _surely_not_committed(error: BaseException) -> bool:
    """An engine's own refusal says so; anything unforeseen says nothing."""
    return isinstance(error, AurumError) and not isinstance(error, CommitStateUnknownError)


def _discard(unit: Unit) -> None:
    try:
        unit.discard()
    except Exception:
        _log.exception("step %s: what it staged could not be removed", unit.step.number)
