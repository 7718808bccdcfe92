"""The generated reference fits the code, and says what it should."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from aurum_orchestration import errors
from aurum_orchestration.cli import reference
from aurum_orchestration.maintenance.operations.compaction import CompactionPolicy

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("page", reference.pages())
def test_page_fits_the_code(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == reference.pages()[page], "run 'make docs'"


@pytest.mark.parametrize("name", reference.SHAPES)
def test_schema_is_a_schema_and_requires_the_version(name: str) -> None:
    schema = reference.output_schema(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    shape = schema if name in reference.OBJECTS else schema["$defs"][reference.SHAPES[name][0].__name__]
    assert "schema_version" in shape["required"]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([{}], schema)


def test_every_key_of_a_policy_is_explained() -> None:
    page = reference.pages()["docs/reference/operations.md"].partition("## compaction")[2].partition("\n## ")[0]
    for name in CompactionPolicy.model_fields:
        assert f"| `{name}` |" in page


def test_every_problem_type_is_listed_once() -> None:
    page = reference.pages()["docs/reference/problems.md"]
    for error in (errors.LeaseHeldError, errors.InternalError, errors.ConfigurationError):
        assert page.count(f"| `{error.type}` | {error.status} |") == 1
