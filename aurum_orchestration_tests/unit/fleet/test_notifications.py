"""Rules of who is told what: which they want, how mistakes are told, and that URLs are never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from aurum_orchestration.errors import ConfigurationError
from aurum_orchestration.fleet.fleet import Fleet
from aurum_orchestration.fleet.load import load_fleet
from aurum_orchestration.fleet.notifications import NotificationRule, destinations
from aurum_orchestration.settings import AurumSettings

LAKE = "version: 1\nbackends: {lake: {type: iceberg}}\n"
SECRET = "hunter2"


def load(text: str, folder: Path) -> Fleet:
    file = folder / "fleet.yaml"
    file.write_text(LAKE + text)
    return load_fleet(file, AurumSettings(home=folder))


def test_a_rule_wants_failures_of_everything() -> None:
    rule = NotificationRule(urls=["json://x"])
    assert rule.wants("failed", "anything", "lake.a.b")
    assert not rule.wants("completed", "anything", "lake.a.b")


def test_a_rule_may_be_about_some_tables_and_operations() -> None:
    rule = NotificationRule(urls=["json://x"], tables=["lake.a.*"], operations=["vacuum"])
    assert rule.wants("failed", "vacuum", "lake.a.b")
    assert not rule.wants("failed", "vacuum", "lake.c.b")
    assert not rule.wants("failed", "stats", "lake.a.b")
    assert not rule.wants("failed", "vacuum", "no id")


def test_destinations_go_by_name_or_position() -> None:
    rules = [NotificationRule(urls=["json://x", "json://y"]), NotificationRule(name="desk", urls=["mailto://z"])]
    assert [(one.name, one.kind) for one in destinations(rules)] == [
        ("1/1", "json"),
        ("1/2", "json"),
        ("desk/1", "mailto"),
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("notifications: [{name: a, urls: [x]}, {name: a, urls: [y]}]", "two rules are named 'a'"),
        ("notifications: [{urls: [x], tables: [lakes.a]}]", "no backend is named 'lakes'. Did you mean 'lake'?"),
        ("notifications: [{urls: [x], tables: ['lake..a']}]", "notifications[0].tables"),
        (f"notifications: [{{name: {'a' * 61}, urls: [x]}}]", "notifications[0].name"),
        ("notifications: [{name: a b, urls: [x]}]", "notifications[0].name"),
        ("notifications: [{url: [x]}]", "unknown key. Did you mean 'urls'?"),
        ("notifications: [{urls: ['${NOT_SET_HERE}']}]", "NOT_SET_HERE is not set"),
        (f"notifications: [{{urls: ['json://bot:{SECRET}@x/']}}]", "a secret is written in the file"),
        (f"notifications: {{urls: slack://{SECRET}}}", "must be a list"),
        (f"notifications: [slack://{SECRET}]", "must be a mapping"),
    ],
)
def test_mistakes_are_told_without_the_url(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as wrong:
        load(text, tmp_path)
    assert told in wrong.value.detail
    assert SECRET not in str(wrong.value) + str(wrong.value.hint)


def test_a_fleet_never_prints_its_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DESK_URL", f"slack://{SECRET}")
    fleet = load('notifications: [{urls: ["${DESK_URL}"]}]', tmp_path)
    assert fleet.config.notifications[0].urls[0].get_secret_value() == f"slack://{SECRET}"
    assert SECRET not in repr(fleet.config) + fleet.config.model_dump_json()
