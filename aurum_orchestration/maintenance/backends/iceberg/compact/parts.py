"""Several rewrites as one: parts of a group that go to storage one after the other and into the table together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from pyiceberg.typedef import Record

from aurum_orchestration.maintenance.backends.iceberg.compact.repartition import RepartitioningRewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.rewrite import Rewrite
from aurum_orchestration.maintenance.backends.iceberg.compact.writer import WrittenFile
from aurum_orchestration.maintenance.checksum import RowChecksum
from aurum_orchestration.maintenance.interfaces import RunContext


class PartsRewrite(Rewrite):
    """Rewrites with the partition that each writes to, None where every file has its own."""

    def __init__(self, parts: Sequence[tuple[Record | None, Rewrite]]) -> None:
        self._parts = parts
        self.before = RowChecksum()
        self.rows_folded = 0

    @property
    def method(self) -> str:  # type: ignore[override]
        """How each part compares."""
        return "; ".join(dict.fromkeys(part.method for _, part in self._parts))

    @property
    def files(self) -> Sequence[WrittenFile]:
        """The files of all parts."""
        return [file for _, part in self._parts for file in part.files]

    @property
    def locations(self) -> list[str]:
        """Every file begun by any part."""
        return [location for _, part in self._parts for location in part.locations]

    def partitions(self) -> Mapping[str, Record]:
        """The partition of every file written, by its location."""
        found: dict[str, Record] = {}
        for record, part in self._parts:
            if isinstance(part, RepartitioningRewrite):
                found |= part.partitions
            elif record is not None:
                found |= {file.location: record for file in part.files}
        return found

    def run(self, run: RunContext, on_read: Callable[[int], None] = lambda _: None) -> None:
        """One part after the other."""
        for _, part in self._parts:
            part.run(run, on_read)
        self.rows_folded = sum(part.rows_folded for _, part in self._parts)
        self.before = self._sum([part.before for _, part in self._parts])

    def read_back(self, run: RunContext) -> RowChecksum:
        """Rows and checksums of all parts, added up."""
        return self._sum([part.read_back(run) for _, part in self._parts])

    def metrics(self) -> dict[str, float]:
        """What the parts count, added up."""
        found: dict[str, float] = {}
        for _, part in self._parts:
            for name, value in part.metrics().items():
                found[name] = found.get(name, 0) + value
        return found

    @staticmethod
    def _sum(checksums: Sequence[RowChecksum]) -> RowChecksum:
        total = RowChecksum()
        for one in checksums:
            total += one
        return total
