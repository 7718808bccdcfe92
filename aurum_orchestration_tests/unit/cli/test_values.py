from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from aurum_orchestration.cli.values import parse_parameters, parse_since
from aurum_orchestration.errors import RequestError
from aurum_orchestration.maintenance.operations.compaction import CompactionParameters


class Everything(BaseModel):
    flag: bool = False
    day: date | None = None
    names: list[str] = []
    share: Annotated[float, Field(gt=0, lt=1)] = 0.5
    word: str | None = None


@pytest.mark.parametrize(
    ("text", "ago"),
    [
        ("30min", timedelta(minutes=30)),
        ("24h", timedelta(hours=24)),
        (" 7 d ", timedelta(days=7)),
        ("2w", timedelta(weeks=2)),
    ],
)
def test_since_counts_back_from_now(text: str, ago: timedelta) -> None:
    before = datetime.now(UTC) - ago
    assert before <= parse_since(text) <= datetime.now(UTC) - ago


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
        ("2026-01-31T06:30", datetime(2026, 1, 31, 6, 30, tzinfo=UTC)),
        ("2026-01-31T06:30+02:00", datetime(2026, 1, 31, 4, 30, tzinfo=UTC)),
    ],
)
def test_since_takes_iso_moments_in_utc_unless_they_say_otherwise(text: str, moment: datetime) -> None:
    assert parse_since(text) == moment


@pytest.mark.parametrize("text", ["yesterday", "7 days", "", "-3d", "2026-13-01", "999999999999w"])
def test_since_refuses_anything_else_and_says_how_to_write_it(text: str) -> None:
    with pytest.raises(RequestError) as raised:
        parse_since(text)
    assert "2026-01-31" in (raised.value.hint or "")


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("flag=yes", True),
        ("day=2026-01-31", date(2026, 1, 31)),
        ("day=null", None),
        ('names=["a","b"]', ["a", "b"]),
        ("share=0.25", 0.25),
        ("word=12", "12"),
        ("word=a=b", "a=b"),
        ("word=", ""),
    ],
)
def test_a_parameter_gets_the_type_that_the_operation_declares(pair: str, value: object) -> None:
    parsed = parse_parameters([pair], "everything", Everything)
    assert parsed == {pair.partition("=")[0]: value}
    assert type(next(iter(parsed.values()))) is type(value)


def test_parameters_of_compaction_come_out_typed() -> None:
    pairs = ["target_file_size_mb=64", "verify=false", "partition_filter=day = '2026-01-31'"]
    assert parse_parameters(pairs, "compaction", CompactionParameters) == {
        "target_file_size_mb": 64,
        "verify": False,
        "partition_filter": "day = '2026-01-31'",
    }


@pytest.mark.parametrize(
    ("pair", "detail", "hint"),
    [
        ("share", "has no value", "key=value"),
        ("shar=0.5", "has no parameter 'shar'", "'share'"),
        ("share=2", "parameter 'share' of everything: Input should be less than 1", None),
        ("flag=perhaps", "parameter 'flag' of everything", None),
    ],
)
def test_a_wrong_parameter_is_named(pair: str, detail: str, hint: str | None) -> None:
    with pytest.raises(RequestError, match=detail) as raised:
        parse_parameters([pair], "everything", Everything)
    assert (hint or "") in (raised.value.hint or "")
