from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aurum_orchestration.errors import ConfigurationError
from aurum_orchestration.fleet.fleet import Fleet
from aurum_orchestration.fleet.load import load_fleet
from aurum_orchestration.fleet.table_id import TableId
from aurum_orchestration.settings import AurumSettings, DataBackendSettings

Load = Callable[[str], Fleet]

CONTRACT = """
    version: 1
    backends:
      lake:
        type: iceberg
        engine: pyiceberg
        catalog: {type: sql, uri: "sqlite:///${AURUM_HOME}/catalog.db", warehouse: "file://${AURUM_HOME}/warehouse"}
        discover: ["flights.*"]
    policy:
      compaction: {target_file_size_mb: 128, min_input_files: 5, strategy: binpack}
      retention: {retention_days: 7, retain_last: 5, time_column: null}
      vacuum: {older_than_days: 7}
    tables:
      - match: "lake.flights.*"
        owners: ["team:ops"]
        policy: {compaction: {target_file_size_mb: 64}}
"""


def mistakes(load: Load, text: str) -> list[str]:
    """What loading the text complains of, one line each, without the folder."""
    with pytest.raises(ConfigurationError) as caught:
        load(text)
    lines = caught.value.detail.splitlines()
    return [line[line.index("fleet.yaml") :] for line in (lines[1:] if len(lines) > 1 else lines)]


def test_the_documented_file(load: Load, settings: AurumSettings, tmp_path: Path) -> None:
    fleet = load(CONTRACT)
    assert fleet.path == tmp_path / "fleet.yaml"
    assert fleet.backends["lake"].connection == {
        "engine": "pyiceberg",
        "catalog": {
            "name": "lake",
            "type": "sql",
            "uri": f"sqlite:///{settings.home}/catalog.db",
            "warehouse": f"file://{settings.home}/warehouse",
        },
    }
    assert fleet.backends["lake"].discover == ["flights.*"]
    assert not settings.home.exists()


def test_every_backend_type_of_the_contract_with_keys_of_its_own(load: Load) -> None:
    fleet = load("""
        version: 1
        backends:
          pg: {type: postgres, dsn: "postgresql://host/db", statement_timeout: 30}
          ts: {type: timescale, host: db}
          ch: {type: clickhouse, host: db, port: 8123, secure: true}
          lite: {type: sqlite, path: x.db}
          trino: {type: iceberg, engine: trino, host: t, port: 8080, user: u, catalog: {name: prod}}
    """)
    pg = fleet.backends["pg"].connection
    assert (pg["dsn"], pg["statement_timeout"], pg["lock_timeout"]) == ("postgresql://host/db", 30, 2)
    assert fleet.backends["ch"].connection == {"host": "db", "port": 8123, "secure": True}
    assert fleet.backends["trino"].connection["catalog"] == {"name": "prod"}


def test_catalog_properties_are_text_as_written(load: Load) -> None:
    catalog = (
        load("""
        version: 1
        backends:
          lake: {type: iceberg, catalog: {a: 007, b: true, c: 1e3, d: "x", e: off}}
    """)
        .backends["lake"]
        .connection["catalog"]
    )
    assert catalog == {"name": "lake", "a": "007", "b": "true", "c": "1e3", "d": "x", "e": "off"}


def test_every_mistake_is_told_at_once_with_line_key_and_the_right_word(load: Load) -> None:
    assert mistakes(
        load,
        """
        version: 2
        backends:
          lake:
            type: iceberg
            engin: pyiceberg
            discover: flights
          pg:
            type: postgress
            discovr: [a]
        polices: {}
        policy:
          compactoin: {}
          compaction:
            min_input_file: 5
            target_file_size_mb: big
            verify: 1
            max_concurrent_groups: 0
        tables:
          - match: laek.flights.*
            owners: [ops]
          - match: lake.flights.*
            policy: {compaction: {strategy: binpak}, retention: []}
          - owner: [x]
          - just text
        """,
    ) == [
        "fleet.yaml:1 (version): must be 1 (it is 2).",
        "fleet.yaml:5 (backends.lake.engin): unknown key. Did you mean 'engine'?",
        "fleet.yaml:6 (backends.lake.discover): must be a list.",
        "fleet.yaml:8 (backends.pg.type): no backend type is named 'postgress'. Did you mean 'postgres'?",
        "fleet.yaml:9 (backends.pg.discovr): unknown key. Did you mean 'discover'?",
        "fleet.yaml:10 (polices): unknown key. Did you mean 'policy'?",
        "fleet.yaml:12 (policy.compactoin): no operation is named 'compactoin'. Did you mean 'compaction'?",
        "fleet.yaml:14 (policy.compaction.min_input_file): unknown key. Did you mean 'min_input_files'?",
        "fleet.yaml:15 (policy.compaction.target_file_size_mb): must be a whole number (it is 'big').",
        "fleet.yaml:16 (policy.compaction.verify): must be true or false (it is 1).",
        "fleet.yaml:17 (policy.compaction.max_concurrent_groups): must be greater than or equal to 1 (it is 0).",
        "fleet.yaml:19 (tables[0].match): no backend is named 'laek'. Did you mean 'lake'?",
        "fleet.yaml:20 (tables[0].owners): 'ops' is neither an email address nor \"team:\" and a name.",
        "fleet.yaml:22 (tables[1].policy.compaction.strategy): must be 'binpack', 'sort' or 'zorder' (it is 'binpak'). "
        "Did you mean 'binpack'?",
        "fleet.yaml:22 (tables[1].policy.retention): must be a mapping (key: value).",
        "fleet.yaml:23 (tables[2].match): is missing.",
        "fleet.yaml:23 (tables[2].owner): unknown key. Did you mean 'owners'?",
        "fleet.yaml:24 (tables[3]): must be a mapping (key: value) (it is 'just text').",
    ]


@pytest.mark.parametrize(
    ("section", "complaint"),
    [
        ('{compaction: {min_input_files: "5"}}', "must be a whole number (it is '5')"),
        ("{compaction: {min_input_files: true}}", "must be a whole number (it is True)"),
        ("{compaction: {min_input_files: 5.5}}", "must be a whole number (it is 5.5)"),
        ("{compaction: {min_input_files: [5]}}", "must be a whole number"),
        ("{compaction: {min_input_files: 99999999999999999999999}}", "must be less than or equal to 10000"),
        ("{compaction: {min_input_files: }}", "must be a whole number (it is empty)"),
        ("{compaction: {verify: no}}", "must be true or false (it is 'no')"),
        ("{retention: {time_column: 5}}", "must be text (it is 5)"),
        ("{retention: {retention_days: .nan}}", "must be a number (it is '.nan')"),
        ("{compaction: }", "must be a mapping (key: value) (it is empty)"),
    ],
)
def test_policies_are_typed_strictly(load: Load, section: str, complaint: str) -> None:
    [told] = mistakes(load, f"version: 1\nbackends: {{lake: {{type: iceberg}}}}\npolicy: {section}\n")
    assert complaint in told
    assert told.startswith("fleet.yaml:3 (policy.")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "fleet.yaml:1: the file has to hold version, backends, policy and tables."),
        ("- 1", "fleet.yaml:1: the file has to hold version, backends, policy and tables."),
        ("version: 1\nbackends: {}", "fleet.yaml:2 (backends): must not be empty."),
        ("version: 1\nbackends: {lake: {}}", "fleet.yaml:2 (backends.lake.type): is missing."),
        ("version: 1\nbackends: {lake: 5}", "fleet.yaml:2 (backends.lake): must be a mapping (key: value) (it is 5)."),
        ("version: 1\nbackends: {lake: {type: iceberg}}\ntables: {}", "fleet.yaml:3 (tables): must be a list."),
        (
            "version: 1\nbackends: {lake: {type: iceberg, engine: spark}}",
            "fleet.yaml:2 (backends.lake.engine): must be 'pyiceberg', 'trino' or 'auto'. "
            "Known: auto, pyiceberg, trino.",
        ),
        (
            "version: 1\nbackends: {lake: {type: iceberg}}\nbackends: {lake: {type: iceberg}}",
            "fleet.yaml:3 (backends): stands there twice.",
        ),
        (
            "version: 1\nbackends: {lake: {type: iceberg}}\ntables: [{match: lake..x}]",
            "fleet.yaml:3 (tables[0].match): 'lake..x': a name is missing, empty or holds a NUL.",
        ),
        (
            "version: 1\nbackends: {lake: {type: iceberg}}\ntables: [{match: lake.*, asset_key: [a]}]",
            "fleet.yaml:3 (tables[0].asset_key): one asset cannot stand for several tables; write it where match is "
            "one table's id.",
        ),
        (
            "version: 1\nbackends: {lake: {type: iceberg}}\ntables:\n- {match: lake.a.b, asset_key: [k]}\n"
            "- {match: lake.a.c, asset_key: [k]}",
            "fleet.yaml:5 (tables[1].asset_key): lake.a.b has the same asset key.",
        ),
    ],
)
def test_other_mistakes(load: Load, text: str, told: str) -> None:
    assert mistakes(load, text) == [told]


def test_a_custom_operation_and_backend_type_are_known_when_given(tmp_path: Path, settings: AurumSettings) -> None:
    from aurum_orchestration.maintenance.operations.base import TriggerPolicy

    file = tmp_path / "mine.yaml"
    file.write_text("version: 1\nbackends: {x: {type: duck, file: y}}\npolicy: {tidy: {cooldown_minutes: 5}}\n")
    fleet = load_fleet(file, settings, policy_models={"tidy": TriggerPolicy}, backend_types=["duck"])
    assert fleet.policy(TableId("x", ("a", "b")), "tidy") == TriggerPolicy(cooldown_minutes=5)
    with pytest.raises(ConfigurationError, match=r"'duck'[\s\S]*'tidy'"):
        load_fleet(file, settings)


class TestNoFile:
    def test_the_default_file_may_be_missing(self, settings: AurumSettings, tmp_path: Path) -> None:
        for fleet in (load_fleet(settings=settings), load_fleet(settings.fleet, settings)):
            assert fleet.path is None
            assert list(fleet.backends) == ["iceberg"]
            assert fleet.backends["iceberg"].connection == {"engine": "pyiceberg", "catalog": {"name": "iceberg"}}
        assert not list(tmp_path.iterdir())

    def test_with_a_host_it_is_trino(self, tmp_path: Path) -> None:
        settings = AurumSettings(
            home=tmp_path, data_backend=DataBackendSettings(trino_host="t", trino_port=81, iceberg_catalog="prod")
        )
        assert load_fleet(settings=settings).backends["iceberg"].connection == {
            "engine": "trino",
            "catalog": {"name": "prod"},
            "host": "t",
            "port": 81,
            "user": "aurum",
        }

    @pytest.mark.parametrize("by_argument", [True, False])
    def test_a_file_that_was_named_must_be_there(self, tmp_path: Path, by_argument: bool) -> None:
        missing = tmp_path / "mine.yaml"
        settings = AurumSettings(home=tmp_path) if by_argument else AurumSettings(home=tmp_path, fleet=missing)
        with pytest.raises(ConfigurationError, match=r"mine\.yaml cannot be read") as caught:
            load_fleet(missing if by_argument else None, settings)
        assert "AURUM_FLEET" in str(caught.value.hint)

    def test_a_file_that_is_no_text(self, tmp_path: Path, settings: AurumSettings) -> None:
        file = tmp_path / "fleet.yaml"
        file.write_bytes(b"version: \xff\xfe\x00")
        with pytest.raises(ConfigurationError, match="cannot be read"):
            load_fleet(file, settings)


def test_two_fleets_side_by_side(tmp_path: Path) -> None:
    fleets = []
    for name, size in (("one", 64), ("two", 256)):
        file = tmp_path / f"{name}.yaml"
        file.write_text(
            f"version: 1\nbackends: {{lake: {{type: iceberg, catalog: {{uri: '${{AURUM_HOME}}/c.db'}}}}}}\n"
            f"policy: {{compaction: {{target_file_size_mb: {size}}}}}\n"
        )
        fleets.append(load_fleet(file, AurumSettings(home=tmp_path / name)))
    table = TableId("lake", ("a", "b"))
    sizes = [fleet.policy(table, "compaction").model_dump()["target_file_size_mb"] for fleet in fleets]
    uris = [fleet.backends["lake"].connection["catalog"]["uri"] for fleet in fleets]
    assert sizes == [64, 256]
    assert uris == [f"{tmp_path}/one/c.db", f"{tmp_path}/two/c.db"]
    assert [fleet.policy(table, "compaction").model_dump()["target_file_size_mb"] for fleet in fleets] == [64, 256]
