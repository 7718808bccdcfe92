"""The JSON Schema of fleet.yaml says the same as the loader, and the docs say all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from aurum_orchestration.errors import ConfigurationError
from aurum_orchestration.fleet.load import load_fleet
from aurum_orchestration.fleet.policy import builtin_policy_models
from aurum_orchestration.fleet.schema import fleet_schema
from aurum_orchestration.settings import AurumSettings, DataBackendSettings

REFERENCE = Path(__file__).parents[3] / "docs" / "reference"


def accepted_by_schema(text: str) -> bool:
    return jsonschema.Draft202012Validator(fleet_schema()).is_valid(yaml.safe_load(text))


def accepted_by_loader(text: str, folder: Path) -> bool:
    file = folder / "fleet.yaml"
    file.write_text(text)
    try:
        load_fleet(file, AurumSettings(home=folder))
    except ConfigurationError:
        return False
    return True


LAKE = "version: 1\nbackends: {lake: {type: iceberg}}\n"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        (LAKE, True),
        (LAKE + "policy: {compaction: {min_input_files: 5}, retention: {}, vacuum: {older_than_days: 7}}", True),
        (LAKE + "policy:\n  compaction:\n    min_input_files: ${NOT_SET:-9}\n    verify: ${NOT_SET:-false}", True),
        (LAKE.replace("iceberg}", "iceberg, engine: trino, port: '${NOT_SET:-80}'}"), True),
        (LAKE + "tables: [{match: lake.a.b, owners: ['team:x'], tags: {a: b}, policy: {vacuum: {}}}]", True),
        ("version: 1\nbackends: {pg: {type: postgres, dsn: x, policy: {vacuum: {}}}}", True),
        ("version: 1\nbackends: {lake: {type: iceberg, catalog: {type: sql, a.b: 5}, discover: [a]}}", True),
        ("version: 1\nbackends: {lake: {type: iceberg, max_parallel: 4}}", True),
        (LAKE + "notifications: [{urls: ['json://x']}]", True),
        (LAKE + "notifications: [{urls: 'json://x', 'on': [failed, completed], name: a, give_up_days: 1.5}]", True),
        (LAKE + "notifications: [{urls: ['json://x'], tables: ['lake.**'], operations: [compaction]}]", True),
        (LAKE + "notifications: [{urls: []}]", False),
        (LAKE + "notifications: [{url: 'json://x'}]", False),
        (LAKE + "notifications: [{urls: ['json://x'], 'on': [broken]}]", False),
        (LAKE + "notifications: [{urls: ['json://x'], 'on': []}]", False),
        (LAKE + "notifications: [{urls: ['json://x'], give_up_days: 0}]", False),
        ("version: 1\nbackends: {lake: {type: iceberg, engine: spark}}", False),
        ("version: 1\nbackends: {lake: {type: iceberg, warehouse: x}}", False),
        ("version: 1\nbackends: {pg: {type: postgres, policy: {vacum: {}}}}", False),
        ("version: 1\nbackends: {pg: {}}", False),
        ("version: 2\nbackends: {lake: {type: iceberg}}", False),
        ("backends: {lake: {type: iceberg}}", False),
        ("version: 1", False),
        (LAKE + "policy: {compacton: {}}", False),
        (LAKE + "policy: {compaction: {min_input_files: five}}", False),
        (LAKE + "policy: {compaction: {min_input_files: 1}}", False),
        (LAKE + "policy: {compaction: {min_input_file: 5}}", False),
        (LAKE + "policy: {checks: {names: [debt], warn_debt: 20, error_debt: null, warn_hours: 0.5}}", True),
        (LAKE + "tables: [{match: lake.a.*, policy: {checks: {error_snapshots: 100000}}}]", True),
        (LAKE + "policy: {checks: {names: [dept]}}", False),
        (LAKE + "policy: {checks: {warn_excess_files: 0}}", False),
        (LAKE + "policy: {checks: {warn_debt: 101}}", False),
        (LAKE + "tables: [{owners: []}]", False),
        (LAKE + "tables: [{match: lake.a.b, owner: x}]", False),
    ],
)
def test_schema_and_loader_agree(text: str, right: bool, tmp_path: Path) -> None:
    assert accepted_by_schema(text) is right
    assert accepted_by_loader(text, tmp_path) is right


def test_the_published_schema_is_up_to_date() -> None:
    published = json.loads((REFERENCE / "fleet.schema.json").read_text(encoding="utf-8"))
    assert published == fleet_schema(), "make docs writes it anew"
    jsonschema.Draft202012Validator.check_schema(published)


def test_a_custom_operation_is_in_the_schema() -> None:
    from aurum_orchestration.maintenance.operations.base import TriggerPolicy

    schema = fleet_schema({**builtin_policy_models(), "tidy": TriggerPolicy})
    validator = jsonschema.Draft202012Validator(schema)
    document: dict[str, Any] = {"version": 1, "backends": {"x": {"type": "duck", "file": "y"}}}
    assert validator.is_valid(document | {"policy": {"tidy": {"cooldown_minutes": 5}}})
    assert not validator.is_valid(document | {"policy": {"tidy": {"cooldown": 5}}})


def test_the_reference_explains_every_key_and_variable() -> None:
    page = (REFERENCE / "fleet.md").read_text(encoding="utf-8")
    schema = fleet_schema()
    keys = {*schema["properties"], *(key for shape in schema["$defs"].values() for key in shape["properties"])}
    variables = [f"AURUM_{name.upper()}" for name in AurumSettings.model_fields if name != "data_backend"]
    variables += [f"AURUM_DATA_BACKEND_{name.upper()}" for name in DataBackendSettings.model_fields]
    assert [name for name in [*sorted(keys), *variables] if f"`{name}`" not in page] == []


def test_the_numbers_in_the_reference_are_those_of_the_code() -> None:
    page = (REFERENCE / "fleet.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    told = {(row[0].strip("`"), row[1].strip("`")): row[2] for row in rows if len(row) == 4}
    for operation, model in builtin_policy_models().items():
        for key, field in model.model_fields.items():
            place = (
                operation
                if (operation, key) in told
                else "every operation"
                if ("every operation", key) in told
                else "with floors"
            )
            default = None if field.is_required() or field.default_factory else field.default
            assert told[(place, key)].strip("`") == json.dumps(default), (operation, key)


def test_the_examples_in_the_reference_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PG_HOST", "PG_PASSWORD"):
        monkeypatch.setenv(name, "x")
    page = (REFERENCE / "fleet.md").read_text(encoding="utf-8")
    examples = [block.split("```")[0] for block in page.split("```yaml\n")[1:]]
    assert len(examples) >= 2
    for example in examples:
        assert example.startswith("version: 1")
        file = tmp_path / "fleet.yaml"
        file.write_text(example, encoding="utf-8")
        load_fleet(file, AurumSettings(home=tmp_path))
