"""Environment variables in fleet.yaml, and YAML's own ways to say things."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from aurum_orchestration.errors import ConfigurationError
from aurum_orchestration.fleet.fleet import Fleet
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.fleet.yaml_file import YamlFile

Load = Callable[[str], Fleet]
TABLE = TableId("lake", ("a", "b"))


def read(text: str, **variables: str) -> YamlFile:
    return YamlFile(text, variables.get)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: ${X}", "text"),
        ('a: "<${X}>-${X}"', "<text>-text"),
        ("a: ${NONE:-other}", "other"),
        ("a: ${EMPTY:-other}", "other"),
        ("a: '${EMPTY}'", ""),
        ("a: ${NONE:-}", None),
        ("a: '${NONE:-a:-b}'", "a:-b"),
        ("a: $${X}", "${X}"),
        ("a: $X", "$X"),
        ("a: {b: ['${X}']}", {"b": ["text"]}),
        # unquoted, the value is typed as if it stood there; quoted it is text
        ("a: ${N}", 42),
        ("a: '${N}'", "42"),
        ("a: ${T}", True),
        ("a: ${N}%", "42%"),
        # a value is data: it makes no YAML
        ("a: ${LIST}", "[1, 2]"),
        ("a: ${HASH}", "x # no comment"),
    ],
)
def test_variables(text: str, value: object) -> None:
    file = read(text, X="text", EMPTY="", N="42", T="true", LIST="[1, 2]", HASH="x # no comment")
    assert file.problems == []
    assert file.data == {"a": value}


@pytest.mark.parametrize("text", ["a: ${1X}", "a: ${X-y}", "a: ${}", "a: ${X", "a: ${X Y}"])
def test_what_is_no_variable_is_told(text: str) -> None:
    [problem] = read(f"# first line\n{text}", X="x").problems
    assert "is no variable" in problem.message
    assert problem.path == ("a",)


def test_unset_variables_are_all_told_with_their_lines(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigurationError) as caught:
        load("""
            version: 1
            backends:
              lake:
                type: iceberg
                catalog:
                  uri: ${NOT_SET}
                  warehouse: "file://${AURUM_HOEM}/w"
            policy:
              compaction: {min_input_files: "${NOT_SET}"}
        """)
    lines = caught.value.detail.splitlines()
    assert "3 errors" in lines[0]
    assert "fleet.yaml:6 (backends.lake.catalog.uri): the environment variable NOT_SET is not set" in lines[1]
    assert "write ${NOT_SET:-default}" in lines[1]
    assert "fleet.yaml:7 (backends.lake.catalog.warehouse): the environment variable AURUM_HOEM is" in lines[2]
    assert "fleet.yaml:9 (policy.compaction.min_input_files)" in lines[3]


def test_numbers_of_policies_come_from_the_environment(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIZE", "256")
    fleet = load("""
        version: 1
        backends: {lake: {type: iceberg}}
        policy:
          compaction:
            target_file_size_mb: ${SIZE}
            min_input_files: ${FILES:-7}
    """)
    policy = fleet.policy(TABLE, "compaction").model_dump()
    assert (policy["target_file_size_mb"], policy["min_input_files"]) == (256, 7)


def test_secrets_of_digits_stay_text(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "0042")
    monkeypatch.setenv("PORT", "5432")
    fleet = load("""
        version: 1
        backends:
          pg: {type: postgres, password: "${PW}", user: x}
          ts:
            type: timescale
            password: ${PW}
          lake:
            type: iceberg
            engine: trino
            port: ${PORT}
            password: ${PW}
            catalog:
              s3.secret-access-key: ${PW}
    """)
    assert fleet.backends["pg"].connection["password"] == "0042"
    assert fleet.backends["ts"].connection["password"] == "0042"
    lake = fleet.backends["lake"].connection
    assert (lake["port"], lake["password"], lake["catalog"]["s3.secret-access-key"]) == (5432, "0042", "0042")


@pytest.mark.parametrize(
    "line",
    [
        "password: hunter2",
        "dsn: postgresql://aurum:hunter2@db/aurum",
        "catalog: {s3.secret-access-key: hunter2}",
        "catalog: {credential: hunter2}",
        "catalog: {token: hunter2}",
        "catalog: {uri: postgresql+psycopg://aurum:hunter2@db/aurum}",
        "auth: {basic: {password: hunter2}}",
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_repeated(load: Load, line: str) -> None:
    with pytest.raises(ConfigurationError, match=r"fleet\.yaml:3 .*a secret is written in the file") as caught:
        load(f"version: 1\nbackends:\n  x: {{type: clickhouse, {line}}}\n")
    assert "hunter2" not in f"{caught.value} {caught.value.problem()}"
    assert "${X_" in caught.value.detail


def test_what_only_looks_like_a_secret_is_allowed(load: Load) -> None:
    load("""
        version: 1
        backends:
          lake:
            type: iceberg
            catalog:
              uri: postgresql://aurum@db:5432/aurum
              s3.access-key-id: reader
              oauth2-server-uri: https://host/token
              token-refresh-enabled: true
              s3.session-token: ${NO_TOKEN:-}
    """)


def test_secrets_from_the_environment_are_in_no_text(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "hunter2")
    fleet = load("""
        version: 1
        backends:
          pg: {type: postgres, dsn: "postgresql://aurum:${PW}@db/aurum", password: "${PW}"}
          lake: {type: iceberg, password: "${PW}", catalog: {credential: "id:${PW}", uri: "http://u:${PW}@h"}}
    """)
    assert "hunter2" in str(fleet.backends["pg"].connection)
    assert "hunter2" not in f"{fleet.config!r} {fleet.config} {fleet.backends['pg']} {fleet.backends['lake']!r}"


def test_a_wrong_value_of_a_connection_key_is_not_repeated(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "hunter2")
    with pytest.raises(ConfigurationError, match=r"\(backends\.lake\.port\): must be a whole number") as caught:
        load('version: 1\nbackends: {lake: {type: iceberg, engine: trino, port: "${PORT}"}}\n')
    assert "hunter2" not in str(caught.value)


def test_words_are_typed_as_in_yaml_1_2() -> None:
    file = read("a: [no, on, yes, y, 1:30, 010, 1_000, 0x1f, 2013-01-01, ~, null, True, +1, -2, .5, 1e3, 1.]")
    assert file.problems == []
    assert file.data["a"] == [
        *("no", "on", "yes", "y", "1:30", 10, "1_000", "0x1f", "2013-01-01"),
        *(None, None, True, 1, -2, 0.5, 1000.0, 1.0),
    ]


def test_anchors_and_merge_keys(load: Load) -> None:
    fleet = load("""
        version: 1
        backends: {lake: {type: iceberg}}
        policy:
          compaction: &base {target_file_size_mb: 64, min_input_files: 9}
        tables:
          - match: lake.a.*
            policy: &own
              compaction: {<<: *base, min_input_files: 3}
          - match: lake.b.*
            policy: *own
    """)
    for space in "ab":
        policy = fleet.policy(TableId("lake", (space, "t")), "compaction").model_dump()
        assert (policy["target_file_size_mb"], policy["min_input_files"]) == (64, 3)


@pytest.mark.parametrize(
    ("text", "told", "line"),
    [
        ("a: 1\nb: [1", "this is not YAML", 2),
        ("a: 1\n\tb: 2", "this is not YAML", 2),
        ("a: 1\na: 2", "stands there twice", 2),
        ("b:\n  1: 2", "a key has to be text", 2),
        ("b:\n  [x]: 2", "a key has to be text", 2),
        ("b: &b [*b]", "an alias stands inside", 1),
        ("b: " + "[" * 3000 + "]" * 3000, "nested too deeply", 1),
        ("a: 1\nb: {<<: 5}", "this is not YAML", 2),
        ("b: *c", "this is not YAML", 1),
        ("b: !own x", "is no tag", 1),
        ("b: !!int x", "is no tag", 1),
        ("a: \x01", "this is not YAML", 1),
        ("a: 1\n--- \nb: 1", "this is not YAML", 2),
    ],
)
def test_what_is_wrong_with_the_yaml_is_told_with_its_line(text: str, told: str, line: int) -> None:
    file = read(text)
    assert any(told in problem.message and file.line(problem.path) == line for problem in file.problems)


def test_an_unquoted_variable_within_braces_gets_a_hint() -> None:
    [problem] = read("a: {b: ${X}}", X="x").problems
    assert "in quotes" in str(problem.hint)
