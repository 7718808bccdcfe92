"""Files that are damaged, before compaction reads them or after it wrote them; storages that refuse."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.io import OutputFile
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import LongType, StringType

from aurum_orchestration.errors import (
    AurumError,
    BackendUnavailableError,
    CorruptTableError,
    OperationCancelledError,
    StorageWriteError,
    VerificationError,
)
from aurum_orchestration.maintenance.backends.iceberg.backend import IcebergMaintenanceBackend
from aurum_orchestration.maintenance.flow import Tally
from aurum_orchestration.maintenance.iceberg import rewrite_data_files
from aurum_orchestration.maintenance.interfaces import RunContext, Unit
from aurum_orchestration_tests.integration.iceberg.support import (
    append_numbers,
    by_duckdb,
    by_scan,
    carry_out,
    compact,
    data_paths,
    fields,
    left_behind,
    local,
    make_table,
    open_plan,
    plan_of,
    spec_of,
    stored_files,
)

NUMBERS = fields(id=LongType(), region=StringType())


@pytest.fixture
def table(catalog: SqlCatalog) -> Table:
    """Three files in each of two partitions."""
    made = make_table(catalog, NUMBERS, spec=spec_of((2, IdentityTransform(), "region")))
    append_numbers(made, files=3, region="N")
    append_numbers(made, files=3, region="S")
    return made


# --- what was written is not what was read


class Tampering:
    """An execution whose staged files are changed before they are read back."""

    workers = 1

    def __init__(self, units: Iterator[Unit], change: Callable[[Path], object]) -> None:
        self._units, self._change = units, change

    def units(self) -> Iterator[Unit]:
        for unit in self._units:
            unit.stage = self._changed(unit, unit.stage)  # type: ignore[method-assign, assignment]
            yield unit

    def _changed(self, unit: Any, stage: Callable[[RunContext], None]) -> Callable[[RunContext], None]:
        def staged(run: RunContext) -> None:
            stage(run)
            self._change(local(unit._rewrite.locations[-1]))

        return staged


def rewritten(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    stored = pq.ParquetFile(path).read()
    pq.write_table(change(stored), path)


def with_ids(rows: pa.Table, ids: list[int]) -> pa.Table:
    return rows.set_column(0, rows.schema.field(0), pa.array(ids, pa.int64()))


_TAMPERED: dict[str, Callable[[Path], object]] = {
    "a row lost": lambda path: rewritten(path, lambda rows: rows.slice(1)),
    "a row doubled": lambda path: rewritten(path, lambda rows: pa.concat_tables([rows, rows.slice(3, 1)])),
    "a row in place of another": lambda path: rewritten(
        path, lambda rows: pa.concat_tables([rows.slice(1), rows.slice(3, 1)])
    ),
    "a cell changed": lambda path: rewritten(path, lambda rows: with_ids(rows, [7, *rows["id"].to_pylist()[1:]])),
    "a cell became null": lambda path: rewritten(
        path,
        lambda rows: with_ids(rows, [None, *rows["id"].to_pylist()[1:]]),  # type: ignore[list-item]
    ),
    "a column of nulls": lambda path: rewritten(path, lambda rows: with_ids(rows, [None] * rows.num_rows)),  # type: ignore[list-item]
}


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in _TAMPERED.items()])
def test_a_staged_file_that_differs_is_never_committed(table: Table, change: Callable[[Path], object]) -> None:
    before, snapshot, rows = stored_files(table), table.metadata.current_snapshot_id, by_duckdb(table)
    tally = Tally()
    with pytest.raises(VerificationError, match=r"step 1: 30 rows before, .* after, checksums"):
        carry_out(Tampering(open_plan(plan_of(table), table).units(), change), tally)
    assert stored_files(table) == before
    table.refresh()
    assert table.metadata.current_snapshot_id == snapshot
    assert by_duckdb(table) == rows
    assert [check.ok for check in tally.verifications] == [False]
    assert tally.steps == []


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def flip_a_page(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    start = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    raw[start + 20 : start + 40] = bytes(255 - byte for byte in raw[start + 20 : start + 40])
    path.write_bytes(raw)


@pytest.mark.parametrize("change", [cut_short, flip_a_page, Path.unlink])
def test_a_staged_file_that_cannot_be_read_back_is_never_committed(
    table: Table, change: Callable[[Path], object]
) -> None:
    before, rows = stored_files(table), by_duckdb(table)
    with pytest.raises(VerificationError, match=r"cannot be read back: data file .*00000-0-.*\.parquet"):
        carry_out(Tampering(open_plan(plan_of(table), table).units(), change))
    assert stored_files(table) == before
    table.refresh()
    assert by_duckdb(table) == rows


def test_without_verification_nothing_is_read_back_and_rows_are_kept(table: Table) -> None:
    rows = by_duckdb(table)
    tally = carry_out(open_plan(plan_of(table, verify=False), table))
    table.refresh()
    assert tally.verifications == []
    assert by_duckdb(table) == rows
    assert len(data_paths(table)) == 2


def test_what_was_verified_is_told(table: Table) -> None:
    checks = compact(table).tally.verifications
    assert [(check.rows_before, check.rows_after, check.ok) for check in checks] == [(30, 30, True)] * 2
    assert checks[0].method == "row-count+sequence-digest"


# --- inputs


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"PAR1" + b"\xff" * 200 + b"PAR1")


@pytest.mark.parametrize("change", [Path.unlink, cut_short, empty, garbage, flip_a_page])
@pytest.mark.parametrize("copy", [True, False])
def test_a_broken_input_is_named_and_the_other_groups_stay(
    table: Table, change: Callable[[Path], object], copy: bool
) -> None:
    north, south = ([path for path in data_paths(table) if region in _regions(path)] for region in "NS")
    broken = south[1]
    change(Path(broken))
    tally = Tally()
    with pytest.raises(CorruptTableError, match=Path(broken).name):
        carry_out(open_plan(plan_of(table, row_group_copy=copy), table), tally)
    table.refresh()
    now = set(data_paths(table))
    assert set(south) < now
    assert len(now) == (4 if tally.steps else 6)  # the other group was committed as a whole, or not begun
    assert now.isdisjoint(north) == bool(tally.steps)
    assert left_behind(table) == set()


def _regions(path: str) -> set[str]:
    return set(pq.ParquetFile(path).read(["region"])["region"].to_pylist())


def test_a_file_with_fewer_rows_than_the_manifest_says(table: Table) -> None:
    """The manifest counts 10 rows: readers that trust it would notice, so this does."""
    path = Path(data_paths(table)[0])
    rewritten(path, lambda rows: rows.slice(1))
    before = stored_files(table)
    with pytest.raises(VerificationError, match="30 rows before, 29 after"):
        carry_out(open_plan(plan_of(table, partition_filter="region = 'S'"), table))
    assert stored_files(table) == before


def test_a_cancelled_run_leaves_nothing(table: Table) -> None:
    before = stored_files(table)
    execution = open_plan(plan_of(table), table)
    (unit, _) = list(execution.units())
    run = RunContext("operation-1", progress=lambda *_: run.cancelled.set())
    with pytest.raises(OperationCancelledError):
        unit.stage(run)
    unit.discard()
    assert stored_files(table) == before


# --- storages that refuse


class RefusingIO(PyArrowFileIO):
    """Refuses to create files whose names end as ``suffix`` says."""

    suffix, error = ".parquet", OSError(errno.ENOSPC, "No space left on device")

    def new_output(self, location: str) -> Any:
        if location.endswith(self.suffix):
            raise self.error
        return super().new_output(location)


class BreakingIO(PyArrowFileIO):
    """Breaks off while a Parquet file is being written."""

    def new_output(self, location: str) -> Any:
        output = super().new_output(location)
        return BreakingOutput(output) if location.endswith(".parquet") else output


class BreakingOutput(OutputFile):
    def __init__(self, output: Any) -> None:
        super().__init__(output.location)
        self._output = output

    def create(self, overwrite: bool = False) -> Any:
        return BreakingStream(self._output.create(overwrite))

    def __len__(self) -> int:
        return len(self._output)

    def exists(self) -> bool:
        return bool(self._output.exists())

    def to_input_file(self) -> Any:
        return self._output.to_input_file()


class BreakingStream:
    def __init__(self, stream: Any) -> None:
        self._stream, self.closed = stream, False

    def write(self, data: bytes) -> int:
        if self._stream.tell() > 100:
            raise OSError(errno.EIO, "Input/output error")
        return int(self._stream.write(data))

    def tell(self) -> int:
        return int(self._stream.tell())

    def flush(self) -> None:
        self._stream.flush()

    def close(self) -> None:
        self.closed = True
        self._stream.close()


@pytest.mark.parametrize(
    ("suffix", "number", "error"),
    [
        (".parquet", errno.ENOSPC, StorageWriteError),
        (".parquet", errno.EROFS, StorageWriteError),
        (".parquet", errno.EIO, BackendUnavailableError),
        ("-m0.avro", errno.EACCES, StorageWriteError),
        ("-m1.avro", errno.ENOSPC, StorageWriteError),
        (".avro", errno.EIO, BackendUnavailableError),
    ],
)
def test_a_storage_that_refuses_writes_is_named_and_left_clean(
    table: Table, suffix: str, number: int, error: type[AurumError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RefusingIO, "suffix", suffix)
    monkeypatch.setattr(RefusingIO, "error", OSError(number, "refused"))
    before = stored_files(table)
    execution = open_plan(plan_of(table), table)
    _use(execution, RefusingIO())
    with pytest.raises(error, match=r"cannot be written: .*refused"):
        carry_out(execution)
    assert stored_files(table) == before


def test_a_storage_that_breaks_off_is_left_clean(table: Table) -> None:
    before = stored_files(table)
    execution = open_plan(plan_of(table), table)
    _use(execution, BreakingIO())
    with pytest.raises(BackendUnavailableError, match=r"a replacement file cannot be written: .*Input/output error"):
        carry_out(execution)
    assert stored_files(table) == before


def _use(execution: Any, io: PyArrowFileIO) -> None:
    execution.table.io = execution.state.table.io = io


# --- the plain function does the same


def test_the_plain_function_leaves_nothing_either(
    catalog: SqlCatalog, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = IcebergMaintenanceBackend({"catalog": {**catalog.properties, "type": "sql"}}, name="lake")
    rows = by_scan(table)
    told = rewrite_data_files("lake.ns.t", backend=backend, dry_run=True, min_input_files=2)
    assert (told["rewritten_files"], told["added_files"], told["dry_run"]) == (6, 2, True)
    assert len(data_paths(table)) == 6
    done = rewrite_data_files("lake.ns.t", backend=backend, min_input_files=2)
    assert (done["rewritten_files"], done["added_files"], done["rows_rewritten"]) == (6, 2, 60)
    table.refresh()
    assert by_scan(table) == rows
    append_numbers(table, files=5, region="N")
    before = stored_files(table)
    broken = Path(data_paths(table)[0])
    raw = broken.read_bytes()
    broken.write_bytes(raw[:-20])
    with pytest.raises(CorruptTableError, match=broken.name):
        rewrite_data_files("lake.ns.t", backend=backend)
    assert stored_files(table) == before
    backend.catalog.close()
