from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError, model_validator

from aurum_orchestration.errors import ConfigurationError, UnknownNameError
from aurum_orchestration.fleet.config import FleetConfig
from aurum_orchestration.fleet.fleet import Fleet
from aurum_orchestration.fleet.load import check
from aurum_orchestration.fleet.rules import RuleIndex
from aurum_orchestration.fleet.table_id import TableId, literal_id, matches
from aurum_orchestration.maintenance.operations.base import TriggerPolicy
from aurum_orchestration.maintenance.operations.compaction import CompactionPolicy
from aurum_orchestration.maintenance.operations.retention import RetentionParameters, RetentionPolicy
from aurum_orchestration.maintenance.operations.vacuum import VacuumParameters, VacuumPolicy

Load = Callable[[str], Fleet]

INHERITANCE = """
    version: 1
    backends:
      lake: {type: iceberg, policy: {compaction: {min_input_files: 10, max_group_size_mb: 100}}}
      other: {type: iceberg}
    policy:
      compaction: {target_file_size_mb: 1, min_input_files: 9, max_group_size_mb: 99, cooldown_minutes: 1}
    tables:
      - match: lake.a.exact
        owners: [one@example.org]
        tags: {tier: gold, own: "yes"}
        asset_key: [prices, curve]
        policy: {compaction: {target_file_size_mb: 5}}
      - match: lake.a.*
        owners: ["team:ops"]
        description: The first namespace.
        tags: {tier: silver, space: a}
        policy: {compaction: {target_file_size_mb: 3, cooldown_minutes: 3}}
      - match: "**.e*"
        owners: []
        policy: {compaction: {cooldown_minutes: 4}, vacuum: {older_than_days: 9}}
"""


def values(fleet: Fleet, table: str, operation: str = "compaction") -> dict[str, Any]:
    return fleet.policy(TableId.parse(table), operation).model_dump(exclude_unset=True)


def test_fleet_then_backend_then_globs_in_order_then_the_table_itself(load: Load) -> None:
    fleet = load(INHERITANCE)
    fleet_wide = {"target_file_size_mb": 1, "min_input_files": 9, "max_group_size_mb": 99, "cooldown_minutes": 1}
    of_lake = fleet_wide | {"min_input_files": 10, "max_group_size_mb": 100}
    assert values(fleet, "other.x.y") == fleet_wide
    assert values(fleet, "lake.x.y") == of_lake
    assert values(fleet, "lake.a.t") == of_lake | {"target_file_size_mb": 3, "cooldown_minutes": 3}
    assert values(fleet, "lake.a.end") == of_lake | {"target_file_size_mb": 3, "cooldown_minutes": 4}
    # first in the file, and still the strongest
    assert values(fleet, "lake.a.exact") == of_lake | {"target_file_size_mb": 5, "cooldown_minutes": 4}
    assert values(fleet, "lake.a.exact", "vacuum") == {"older_than_days": 9}
    assert fleet.policy(TableId.parse("lake.a.t"), "retention") == RetentionPolicy()


def test_explain_says_where_each_value_comes_from(load: Load) -> None:
    fleet = load(INHERITANCE)
    told = {key: (value, source) for key, value, source in fleet.explain(TableId.parse("lake.a.exact"), "compaction")}
    assert set(told) == set(CompactionPolicy.model_fields)
    assert told["target_file_size_mb"] == (5, "match lake.a.exact (fleet.yaml:12)")
    assert told["cooldown_minutes"] == (4, "match **.e* (fleet.yaml:20)")
    assert told["min_input_files"] == (10, "backend lake (fleet.yaml:3)")
    assert told["verify"] == (True, "default")
    [(_, _, source)] = [one for one in fleet.explain(TableId.parse("other.x.y"), "compaction") if one[1] == 9]
    assert source == "fleet (fleet.yaml:6)"


def test_explain_agrees_with_the_policy(load: Load) -> None:
    fleet = load(INHERITANCE)
    for table, operation in itertools.product(("lake.a.exact", "lake.a.t", "other.e.e"), ("compaction", "vacuum")):
        told = {key: value for key, value, _ in fleet.explain(TableId.parse(table), operation)}
        assert told == fleet.policy(TableId.parse(table), operation).model_dump()


def test_owners_description_tags_and_asset_key(load: Load) -> None:
    fleet = load(INHERITANCE)
    exact, end, other = (TableId.parse(text) for text in ("lake.a.exact", "lake.a.end", "lake.b.c"))
    assert fleet.owners(exact) == ["one@example.org"]
    assert fleet.owners(end) == []
    assert fleet.owners(TableId.parse("lake.a.t")) == ["team:ops"]
    assert fleet.owners(other) == []
    assert fleet.description(exact) == "The first namespace."
    assert fleet.description(other) is None
    assert fleet.tags(exact) == {"tier": "gold", "own": "yes", "space": "a"}
    assert fleet.tags(end) == {"tier": "silver", "space": "a"}
    assert fleet.asset_key(exact) == ("prices", "curve")
    assert fleet.asset_key(end) == ("lake", "a", "end")
    assert fleet.asset_key(TableId("lake", ("my.ns", "t"))) == ("lake", "my.ns", "t")


def test_an_unknown_operation_offers_the_nearest(load: Load) -> None:
    with pytest.raises(UnknownNameError) as caught:
        load(INHERITANCE).policy(TableId.parse("lake.a.b"), "compacton")
    assert caught.value.hint == "Did you mean 'compaction'?"


def test_tables_under_the_same_rules_share_one_policy(load: Load) -> None:
    fleet = load(INHERITANCE)
    many = [TableId("lake", ("a", f"t{number}")) for number in range(300)]
    assert len({id(fleet.policy(table, "compaction")) for table in many}) == 1
    assert fleet.policy(many[0], "compaction") is not fleet.policy(TableId.parse("lake.a.end"), "compaction")


def test_operations_with_the_same_keys_do_not_share_a_policy(load: Load) -> None:
    fleet = load("version: 1\nbackends: {lake: {type: iceberg}}\n")
    kinds = {"compaction": CompactionPolicy, "retention": RetentionPolicy, "vacuum": VacuumPolicy}
    for operation, kind in kinds.items():
        assert fleet.policy(TableId.parse("lake.a.b"), operation) == kind()


def test_looking_up_again_matches_nothing_again(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    from aurum_orchestration.fleet import rules

    fleet = load(INHERITANCE)
    many = [TableId("lake", ("a", f"t{number}")) for number in range(50)]
    first = [fleet.policy(table, "compaction") for table in many]
    monkeypatch.setattr(rules, "matches", None)
    assert [fleet.policy(table, "compaction") for table in many] == first
    assert [fleet.owners(table) for table in many] == [["team:ops"]] * 50


def test_rules_of_single_tables_are_found_without_trying_each(monkeypatch: pytest.MonkeyPatch) -> None:
    from aurum_orchestration.fleet import rules

    tried: list[str] = []

    def tells(glob: str, table: TableId) -> bool:
        tried.append(glob)
        return matches(glob, table)

    monkeypatch.setattr(rules, "matches", tells)
    index = RuleIndex([*(f"lake.n{number}.t" for number in range(500)), "lake.n7.*", "lake.n8.*", "**x"])
    assert index.matching(TableId("lake", ("n7", "t"))) == (500, 7)
    assert tried == ["**x", "lake.n7.*"]


PARTS = st.sampled_from(["a", "b", "a.b", "a*", "é"])
TABLES = st.builds(TableId, PARTS, st.lists(PARTS, min_size=1, max_size=3).map(tuple))
GLOBS = st.lists(st.sampled_from(["a", "b", '"a.b"', '"a*"', "*", "**", "a*", "?", "é"]), min_size=1, max_size=4).map(
    ".".join
)


@given(st.lists(GLOBS | TABLES.map(str), max_size=8), TABLES)
def test_the_index_finds_exactly_what_trying_each_glob_finds(globs: list[str], table: TableId) -> None:
    hits = [number for number, glob in enumerate(globs) if matches(glob, table)]
    exact = [number for number in hits if literal_id(globs[number]) == table]
    assert list(RuleIndex(globs).matching(table)) == [number for number in hits if number not in exact] + exact


class TestFloors:
    @pytest.mark.parametrize(
        ("section", "key", "told"),
        [
            ("{vacuum: {older_than_days: 2.9}}", "vacuum.older_than_days", "2.9, below the floor of 3 days"),
            ("{retention: {retention_days: 0.5}}", "retention.retention_days", "0.5, below the floor of 1 day"),
            ("{retention: {retain_last: 0}}", "retention.retain_last", "0, below the floor of 1 snapshot"),
            ("{vacuum: {older_than_days: 1, override_floor: true}}", "vacuum.older_than_days", "override_reason"),
            ("{vacuum: {older_than_days: 1, override_reason: why}}", "vacuum.older_than_days", "override_floor: true"),
            (
                '{vacuum: {older_than_days: 1, override_floor: true, override_reason: "  "}}',
                "vacuum.older_than_days",
                "override_reason",
            ),
        ],
    )
    @pytest.mark.parametrize("place", ["fleet", "backend", "glob", "table"])
    def test_a_value_below_its_floor_is_refused_wherever_it_stands(
        self, load: Load, place: str, section: str, key: str, told: str
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            load(self.at(place, section))
        assert told in caught.value.detail
        assert f"policy.{key})" in caught.value.detail

    @pytest.mark.parametrize("place", ["fleet", "backend", "glob", "table"])
    def test_with_override_and_reason_it_holds_and_both_are_in_the_parameters(self, load: Load, place: str) -> None:
        section = "{vacuum: {older_than_days: 0, override_floor: true, override_reason: nobody writes there}}"
        policy = load(self.at(place, section)).policy(TableId.parse("lake.a.b"), "vacuum")
        assert policy == VacuumPolicy(older_than_days=0, override_floor=True, override_reason="nobody writes there")
        assert {"override_floor", "override_reason"} <= set(VacuumParameters.model_fields)

    def test_the_floor_itself_is_allowed(self, load: Load) -> None:
        load(self.at("fleet", "{vacuum: {older_than_days: 3}, retention: {retention_days: 1, retain_last: 1}}"))

    def test_an_override_holds_where_it_stands_and_is_not_inherited(self, load: Load) -> None:
        head = (
            "version: 1\nbackends: {lake: {type: iceberg}}\n"
            "policy: {vacuum: {older_than_days: 2, override_floor: true, override_reason: x}}\n"
        )
        with pytest.raises(ConfigurationError, match=r"fleet\.yaml:4 .*older_than_days is 1, below the floor"):
            load(head + "tables: [{match: lake.*.*, policy: {vacuum: {older_than_days: 1}}}]\n")
        fleet = load(head + "tables: [{match: lake.*.*, policy: {vacuum: {older_than_days: 4}}}]\n")
        assert fleet.policy(TableId.parse("lake.a.b"), "vacuum").model_dump()["older_than_days"] == 4

    def test_taking_the_override_back_alone_is_refused(self, load: Load) -> None:
        with pytest.raises(ConfigurationError, match=r"fleet\.yaml:4 .*below the floor of 3 days"):
            load(
                "version: 1\nbackends: {lake: {type: iceberg}}\n"
                "policy: {vacuum: {older_than_days: 2, override_floor: true, override_reason: x}}\n"
                "tables: [{match: lake.*.*, policy: {vacuum: {override_floor: false}}}]\n"
            )

    def test_parameters_of_one_run_have_the_same_floors(self) -> None:
        with pytest.raises(ValidationError, match="below the floor of 3 days"):
            VacuumParameters(older_than_days=2)
        with pytest.raises(ValidationError, match="below the floor of 1 snapshot"):
            RetentionParameters(retain_last=0)
        with pytest.raises(ValidationError):
            VacuumParameters(older_than_days=float("nan"))
        assert VacuumParameters(older_than_days=2, override_floor=True, override_reason="x").older_than_days == 2

    @staticmethod
    def at(place: str, section: str) -> str:
        backend = f", policy: {section}" if place == "backend" else ""
        text = f"version: 1\nbackends: {{lake: {{type: iceberg{backend}}}}}\n"
        match place:
            case "fleet":
                return f"{text}policy: {section}\n"
            case "glob":
                return f"{text}tables: [{{match: lake.*.*, policy: {section}}}]\n"
            case "table":
                return f"{text}tables: [{{match: lake.a.b, policy: {section}}}]\n"
        return text


class Limits(TriggerPolicy):
    """A policy whose keys have to fit together, and one that has to be given somewhere."""

    low: int = 1
    high: int = 5
    name: str

    @model_validator(mode="after")
    def _ordered(self) -> Limits:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def problems(data: dict[str, Any]) -> list[tuple[str, str]]:
    models: dict[str, type[BaseModel]] = {"limits": Limits}
    full = {"version": 1, "backends": {"lake": {"type": "iceberg"}}, **data}
    return [(".".join(map(str, one.path)), one.message) for one in check(full, models, ["iceberg"])[1]]


def test_keys_that_have_to_fit_together_are_judged_with_what_they_inherit() -> None:
    fits = {"limits": {"high": 20, "name": "n"}}
    rule = {"match": "lake.a.*", "policy": {"limits": {"low": 10}}}
    assert problems({"policy": fits, "tables": [rule]}) == []
    assert problems({"policy": {"limits": {"name": "n"}}, "tables": [rule]}) == [
        ("tables.0.policy.limits", "low is above high")
    ]
    assert problems({"tables": [{"match": "lake.a.*", "policy": {"limits": {"high": 9}}}]}) == [
        ("tables.0.policy.limits.name", "is missing")
    ]
    assert problems({"policy": {"limits": {"low": "x", "name": 5}}}) == [
        ("policy.limits.low", "must be a whole number (it is 'x')"),
        ("policy.limits.name", "must be text (it is 5)"),
    ]


def test_rules_that_contradict_each_other_only_together_are_told_at_the_lookup(tmp_path: Any) -> None:
    config = FleetConfig.model_validate(
        {
            "version": 1,
            "backends": {"lake": {"type": "iceberg"}},
            "policy": {"limits": {"name": "n"}},
            "tables": [
                {"match": "lake.*.x", "policy": {"limits": {"low": 4}}},
                {"match": "lake.a.*", "policy": {"limits": {"high": 3}}},
            ],
        }
    )
    fleet = Fleet(config, home=tmp_path, policy_models={"limits": Limits})
    assert fleet.policy(TableId.parse("lake.a.y"), "limits") == Limits(high=3, name="n")
    with pytest.raises(ConfigurationError, match="low is above high") as caught:
        fleet.policy(TableId.parse("lake.a.x"), "limits")
    assert caught.value.problem().table == "lake.a.x"
    assert caught.value.problem().operation == "limits"
