"""JSON Schema of fleet.yaml, for editors and for docs/reference/fleet.schema.json.

``python -m aurum_orchestration.fleet.schema`` prints it with the operations of all installed packages.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from aurum_orchestration.fleet.config import BackendConfig, FleetConfig, IcebergBackendConfig, TableRule
from aurum_orchestration.fleet.notifications import NotificationRule
from aurum_orchestration.fleet.policy import PolicyModels, builtin_policy_models
from aurum_orchestration.fleet.postgres import PostgresBackendConfig
from aurum_orchestration.fleet.rule_groups import RuleGroup
from aurum_orchestration.fleet.sqlite import SqliteBackendConfig

_ABOUT = ("title", "description", "default")
_VARIABLE = {"type": "string", "pattern": r"\$\{"}


def fleet_schema(policy_models: PolicyModels | None = None) -> dict[str, Any]:
    """The schema, with the policies of the given operations (default: those of this package)."""
    models = builtin_policy_models() if policy_models is None else policy_models
    backends: list[type[BaseModel]] = [BackendConfig, IcebergBackendConfig, PostgresBackendConfig, SqliteBackendConfig]
    with_policies: list[type[BaseModel]] = [FleetConfig, *backends, TableRule]
    shapes: list[type[BaseModel]] = [*with_policies, *models.values(), NotificationRule, RuleGroup]
    inputs: list[tuple[type[BaseModel], Literal["validation"]]] = [(shape, "validation") for shape in shapes]
    references, schema = models_json_schema(inputs)
    definitions = schema["$defs"]
    for operation, model in models.items():
        _as_section(definitions[_name(references[model, "validation"])], operation)
    definitions["Policies"] = {
        "type": "object",
        "description": "Policies by operation; each says only what differs from what it inherits.",
        "additionalProperties": False,
        "properties": {operation: references[model, "validation"] for operation, model in sorted(models.items())},
    }
    for shape in with_policies:
        properties = definitions[_name(references[shape, "validation"])]["properties"]
        properties["policy"] = {"$ref": "#/$defs/Policies", "description": properties["policy"]["description"]}
    for shape in shapes[1:]:
        properties = definitions[_name(references[shape, "validation"])]["properties"]
        properties |= {name: _or_variable(known) for name, known in properties.items()}
    whole = definitions.pop(_name(references[FleetConfig, "validation"]))
    whole["properties"]["backends"]["additionalProperties"] = {
        "if": {"properties": {"type": {"const": "iceberg"}}},
        "then": references[IcebergBackendConfig, "validation"],
        "else": {
            "if": {"properties": {"type": {"enum": ["postgres", "timescale"]}}},
            "then": references[PostgresBackendConfig, "validation"],
            "else": {
                "if": {"properties": {"type": {"const": "sqlite"}}},
                "then": references[SqliteBackendConfig, "validation"],
                "else": references[BackendConfig, "validation"],
            },
        },
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **whole,
        "title": "fleet.yaml",
        "$defs": definitions,
    }


def _name(reference: dict[str, Any]) -> str:
    return str(reference["$ref"]).rpartition("/")[2]


def _as_section(definition: dict[str, Any], operation: str) -> None:
    definition.pop("required", None)
    definition["title"] = operation


def _or_variable(known: dict[str, Any]) -> dict[str, Any]:
    """The schema of a key; what is no text in the file may still come from the environment."""
    choices = known.get("anyOf") or [{name: value for name, value in known.items() if name not in _ABOUT}]
    if any(choice.get("type") not in {"integer", "number", "boolean", "null"} for choice in choices):
        return known
    return {**{name: known[name] for name in _ABOUT if name in known}, "anyOf": [*choices, _VARIABLE]}


if __name__ == "__main__":
    from aurum_orchestration.maintenance.factory import MaintenanceFactory

    known = {**builtin_policy_models(), **MaintenanceFactory.policies()}
    print(json.dumps(fleet_schema(known), indent=2, ensure_ascii=False))
