"""The picture in a run's metadata."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ET

from aurum_orchestration.dagster_edge.chart import MOST_BARS, Bar, chart
from aurum_orchestration_tests.dagster.conftest import Location

SVG = "{http://www.w3.org/2000/svg}"


def picture(markdown: str) -> ET.Element:
    head, _, rest = markdown.partition("](data:image/svg+xml;base64,")
    assert head.startswith("![")
    return ET.fromstring(base64.b64decode(rest.removesuffix(")")))


def words(drawn: ET.Element) -> list[str]:
    return ["".join(text.itertext()) for text in drawn.iter(f"{SVG}text")]


def test_a_run_has_a_picture_of_files_before_and_after(location: Location) -> None:
    result = location.run("compaction", tables=["lake.market.trades"])
    (output,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    drawn = picture(str(output.step_output_data.metadata["picture"].value))
    assert words(drawn)[:3] == ["lake.market.trades", "60", "2"]
    before, after = (float(bar.attrib["width"]) for bar in drawn.iter(f"{SVG}rect"))
    assert 25 < before / after < 35
    nothing = location.run("compaction", tables=["lake.market.hubs"])
    (output,) = [event for event in nothing.all_events if event.event_type_value == "STEP_OUTPUT"]
    assert "picture" not in output.step_output_data.metadata


def test_the_tables_that_changed_most_are_shown_whatever_their_names() -> None:
    bars = [Bar(f"lake.n.t{number}", number + 1.0, 1) for number in range(100)]
    drawn = picture(chart([*bars, Bar('lake.<n>."&"' + "x" * 40, 5000, 0)], "Files"))
    assert len(list(drawn.iter(f"{SVG}rect"))) == 2 * MOST_BARS
    assert words(drawn)[0].startswith("…")
    assert words(drawn)[3] == "lake.n.t99"
    assert len(chart(bars, "Files")) < 10_000
    assert chart([], "Files") == ""
