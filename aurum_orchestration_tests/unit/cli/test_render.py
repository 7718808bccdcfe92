"""What a person reads: golden text at several widths, and rules that hold for any shape."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType
from rich.text import Text

from aurum_orchestration.cli.output import print_text
from aurum_orchestration.cli.render import words
from aurum_orchestration.cli.render.problems import ProblemPanel
from aurum_orchestration.cli.render.records import Column, Records
from aurum_orchestration.cli.render.reports import render_history, render_plans, render_run
from aurum_orchestration.cli.render.status import render_status
from aurum_orchestration.errors import LeaseHeldError
from aurum_orchestration_tests.golden import assert_golden
from aurum_orchestration_tests.unit.cli import samples


def text_of(renderable: RenderableType, width: int, *, terminal: bool = False, encoding: str = "utf-8") -> str:
    """What lands in a stream of that width and encoding."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)
    console = Console(
        file=stream, width=width, force_terminal=terminal, color_system=None, markup=False, highlight=False
    )
    print_text(console, renderable)
    stream.seek(0)
    return stream.read()


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "when", lambda moment: moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M"))


CASES: dict[str, RenderableType] = {
    "status": render_status(samples.statuses()),
    "plan": render_plans(samples.plans(), max_steps=5),
    "run": render_run(samples.reports()),
}


@pytest.mark.parametrize("width", [50, 80, 140])
@pytest.mark.parametrize("case", CASES)
def test_golden_text(case: str, width: int) -> None:
    text = text_of(CASES[case], width)
    assert max(map(len, text.splitlines())) <= width
    assert_golden(f"render/{case}-{width}.txt", text)


@pytest.mark.parametrize("width", [50, 80, 100, 140])
@pytest.mark.parametrize("case", CASES)
def test_colours_change_no_character(case: str, width: int) -> None:
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=True, color_system="truecolor", markup=False, highlight=False
    )
    print_text(console, CASES[case])
    assert "\x1b[" in stream.getvalue()
    lines = [line.rstrip() for line in Text.from_ansi(stream.getvalue()).plain.splitlines()]
    plain = text_of(CASES[case], width, terminal=True)
    assert lines == [line.rstrip() for line in plain.splitlines()]


@pytest.mark.parametrize("width", [80, 140])
def test_golden_history(width: int) -> None:
    assert_golden(f"render/history-{width}.txt", text_of(render_history(samples.entries()), width))


def test_golden_problem_on_a_terminal_is_framed() -> None:
    problem = LeaseHeldError("ann holds it until 06:35").problem(table="lake.a.b", operation="compaction")
    assert_golden("render/problem-terminal.txt", text_of(ProblemPanel(problem), 80, terminal=True))


@pytest.mark.parametrize("width", [20, 50, 80, 140])
def test_no_width_cuts_an_id(width: int) -> None:
    text = text_of(render_status([samples.table_status(samples.LONG_ID)]), width)
    assert sum(line.startswith(samples.LONG_ID) for line in text.splitlines()) == 1


def test_the_worst_table_comes_first_and_the_unmeasured_before_it() -> None:
    lines = text_of(render_status(samples.statuses()), 140).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [
        "archive.meters.readings",
        "lake.flights.flights",
        "lake.flights.weather",
        "lake.flights.planes",
    ]


def test_all_steps_are_shown_when_asked_for() -> None:
    text = text_of(render_plans(samples.plans(), max_steps=None), 140)
    assert all(f"{number:>2}. rewrite" in text for number in range(1, 13))
    assert "more steps" not in text


def test_an_ascii_stream_gets_ascii_only() -> None:
    renderables = (
        render_status(samples.statuses(), unicode=False),
        render_run(samples.reports(), unicode=False),
        render_plans(samples.plans(), max_steps=5),
    )
    for renderable in renderables:
        assert text_of(renderable, 80, encoding="ascii").isascii()


def test_a_name_cannot_steer_the_terminal() -> None:
    text = text_of(render_status([samples.table_status('lake."\x1b[31mred\n".t')]), 140)
    assert "\x1b" not in text
    assert r"\x1b[31mred\n" in text


def test_a_name_is_not_markup() -> None:
    assert 'lake."[red]".t' in text_of(render_status([samples.table_status('lake."[red]".t')]), 140)


@given(st.lists(st.text("ab c", min_size=1, max_size=60), min_size=1, max_size=4), st.integers(10, 120))
def test_records_keep_every_cell_whole_at_any_width(ids: list[str], width: int) -> None:
    columns = (Column("ID"), Column("N", number=True), Column("WHY"))
    rows = [(Text(f"<{name}>"), Text(f"#{index}"), Text("because")) for index, name in enumerate(ids)]
    text = text_of(Records(columns, rows), width)
    for index, name in enumerate(ids):
        assert f"<{name}>" in text
        assert f"#{index}" in text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (150 * 1024, "150 KiB"),
        (3.5 * 1024**4, "3.5 TiB"),
    ],
)
def test_sizes(number: float | None, text: str) -> None:
    assert words.size(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@given(st.floats(0, 100))
def test_a_debt_bar_has_the_same_width_for_every_score_and_grows_with_it(score: float) -> None:
    text = words.debt(score).plain
    assert len(text) == 4 + words.BAR_CELLS
    assert text.count("█") == int(round(score / 100 * 40) / 8)


def test_when_is_in_the_readers_time_zone() -> None:
    moment = datetime(2026, 1, 31, 6, 30, tzinfo=UTC)
    assert words.when(moment) == moment.strftime("%Y-%m-%d %H:%M")
