from __future__ import annotations

from pathlib import Path

from aurum_orchestration.maintenance.metrics import HEALTH_METRICS, METRICS, OPERATION_METRICS, metrics_page

PAGE = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_page_is_what_the_catalogue_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == metrics_page(), (
        "run: python -m aurum_orchestration.maintenance.metrics > docs/metrics.md"
    )


def test_every_metric_has_a_unit_and_a_meaning_that_a_table_cell_can_hold() -> None:
    for name, metric in METRICS.items():
        assert name == name.lower()
        assert metric.unit
        assert metric.meaning.endswith((".", ")."))
        assert "|" not in metric.meaning


def test_a_name_means_one_thing() -> None:
    assert not set(HEALTH_METRICS) & set(OPERATION_METRICS)


def test_the_catalogue_has_nothing_that_no_code_speaks_of() -> None:
    package = PAGE.parents[1] / "aurum_orchestration"
    code = "\n".join(path.read_text() for path in package.rglob("*.py") if path.name != "metrics.py")
    by_operation = {name for name in METRICS if f"}}_{name.partition('_')[2]}" in code}  # f"{operation}_groups"
    assert {name for name in METRICS if name not in code} <= by_operation
