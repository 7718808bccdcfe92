"""``aurum init``: a live catalog becomes a fleet file that works as it is and holds no secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aurum_orchestration.fleet.scaffold import without_secrets
from aurum_orchestration_tests.command import aurum


def properties(home: Path) -> list[str]:
    return ["--catalog", f"uri=sqlite:///{home}/catalog.db", "--catalog", f"warehouse=file://{home}/warehouse"]


def test_the_file_that_is_written_works_as_it_is(shared_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    outcome = aurum("init", str(file), *properties(shared_home), "--time-zone", "Europe/Berlin")
    assert (outcome.code, outcome.err) == (0, "")
    assert "tables of lake" in outcome.out
    text = file.read_text()
    assert 'match: "lake.market.*"' in text
    assert "need maintenance now" in text
    status = aurum("status", "--fleet", str(file), "--output", "json")
    assert status.code == 0
    assert "lake.market.trades" in [one["table"] for one in status.json]


def test_a_catalog_without_tables_gives_a_file_that_loads(shared_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    outcome = aurum("init", str(file), *properties(shared_home), "--catalog", "name=other")
    assert outcome.code == 0
    assert "0 tables" in outcome.out
    assert "--catalog name=NAME" in outcome.out
    assert aurum("status", "--fleet", str(file)).code == 0


def test_a_file_that_is_there_stays(shared_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    file.write_text("mine")
    refused = aurum("init", str(file), *properties(shared_home))
    assert refused.code == 2
    assert "--force" in refused.err
    assert file.read_text() == "mine"
    assert aurum("init", str(file), *properties(shared_home), "--force").code == 0
    assert file.read_text() != "mine"


def test_a_catalog_that_is_not_there_writes_nothing(shared_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    outcome = aurum("init", str(file), "--catalog", f"uri=sqlite:///{tmp_path}/none.db")
    assert outcome.code == 1
    assert not file.exists()


def test_a_zone_that_does_not_exist_is_a_usage_error(shared_home: Path, tmp_path: Path) -> None:
    outcome = aurum("init", str(tmp_path / "f.yaml"), *properties(shared_home), "--time-zone", "Europe/Berln")
    assert outcome.code == 2
    assert "Europe/Berlin" in outcome.err
    assert f"the draft of {tmp_path / 'f.yaml'}:4 (time_zone)" in outcome.err
    assert "aurum-init" not in outcome.err


def test_secrets_become_variables_that_the_file_names(shared_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    given = [*properties(shared_home), "--catalog", "s3.secret-access-key=hunter2hunter2"]
    try:
        outcome = aurum("init", str(file), *given)
    finally:
        os.environ.pop("AURUM_LAKE_S3_SECRET_ACCESS_KEY", None)
    assert outcome.code == 0
    assert "hunter2" not in file.read_text() + outcome.out + outcome.err
    assert "${AURUM_LAKE_S3_SECRET_ACCESS_KEY}" in file.read_text()
    assert "Set before each command: AURUM_LAKE_S3_SECRET_ACCESS_KEY." in outcome.out


@pytest.mark.parametrize(
    ("given", "kept", "variable"),
    [
        ("postgresql://u:pw@h/d", "postgresql://u:${AURUM_MY_LAKE_PASSWORD}@h/d", "AURUM_MY_LAKE_PASSWORD"),
        ("postgresql://u:${PW}@h/d", "postgresql://u:${PW}@h/d", None),
        ("sqlite:///a.db", "sqlite:///a.db", None),
    ],
)
def test_a_password_in_a_url_becomes_a_variable(given: str, kept: str, variable: str | None) -> None:
    properties, secrets = without_secrets("my-lake", {"uri": given})
    assert properties == {"uri": kept}
    assert [secret.variable for secret in secrets] == ([variable] if variable else [])
