"""deploy/ and the Dockerfile, as far as they can be held to their word without a container engine.

The settings boot a real instance on a real PostgreSQL; the processes of compose.yaml run together, with its commands,
environment and health checks; the image's build steps run in a clean folder.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
import yaml
from dagster._core.instance import InstanceRef

from aurum_orchestration.definitions import build_definitions
from aurum_orchestration.fleet import load_fleet
from aurum_orchestration.local.engines.background import free_port
from aurum_orchestration.settings import AurumSettings
from aurum_orchestration_tests.lake import FIRST, SCHEMA, append_small_files, lake_catalog

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
BIN = Path(sys.executable).parent
PATIENCE = 120
"""Seconds until a process that does not answer counts as broken."""


@pytest.fixture
def database(postgres_url: str) -> Iterator[str]:
    """URL of an empty database of the test's own."""
    import psycopg

    name = f"deploy_{os.getpid()}_{time.monotonic_ns()}"
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as server:
        server.execute(f'CREATE DATABASE "{name}"')
    yield urlsplit(postgres_url)._replace(path=f"/{name}").geturl()
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as server:
        server.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def storage_variables(database: str) -> dict[str, str]:
    """The variables of deploy/dagster.yaml for a database."""
    url = urlsplit(database)
    return {
        "DAGSTER_POSTGRES_HOST": str(url.hostname),
        "DAGSTER_POSTGRES_PORT": str(url.port or 5432),
        "DAGSTER_POSTGRES_USER": url.username or "postgres",
        "DAGSTER_POSTGRES_PASSWORD": url.password or "",
        "DAGSTER_POSTGRES_DB": url.path.removeprefix("/"),
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """AURUM_HOME with a lake of one table, as the fleet.yaml at the root describes it."""
    home = tmp_path / "home"
    home.mkdir()
    with closing(lake_catalog(home)) as catalog:
        catalog.create_namespace("flights")
        append_small_files(catalog.create_table("flights.flights", SCHEMA), [FIRST], 3)
    return home


def test_a_run_of_the_health_job_is_stored_in_postgres(
    database: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in storage_variables(database).items():
        monkeypatch.setenv(name, value)
    settings = AurumSettings(home=home, fleet=ROOT / "fleet.yaml")
    job = build_definitions(load_fleet(settings.fleet, settings), settings).get_repository_def().get_job("health")
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=str(DEPLOY))) as instance:
        assert instance.is_persistent
        assert instance.run_monitoring_enabled
        assert instance.get_concurrency_config().pool_config.default_pool_limit == 4
        run_id = job.execute_in_process(instance=instance).run_id
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=str(DEPLOY))) as later:
        assert type(later.run_storage).__module__.startswith("dagster_postgres")
        stored = later.get_run_by_id(run_id)
        assert stored is not None
        assert stored.status is dg.DagsterRunStatus.SUCCESS
        key = dg.AssetKey(["lake", "flights", "flights"])
        assert later.fetch_observations(key, limit=1).records
    assert not (tmp_path / "storage").exists() or not list((tmp_path / "storage").rglob("*.db"))


def test_both_dagster_yaml_say_the_same_but_for_the_storage() -> None:
    here, deployed = (yaml.safe_load((folder / "dagster.yaml").read_text()) for folder in (ROOT, DEPLOY))
    assert deployed.pop("storage")
    assert deployed == here


def commands() -> list[list[str]]:
    """Every command and health check of compose.yaml, kubernetes.yaml and the Dockerfile that runs in the image."""
    found = [json.loads(text) for text in re.findall(r"CMD (\[.*\])", DOCKERFILE)]
    for name, service in COMPOSE["services"].items():
        if name != "postgres":
            found += [service["command"]] if "command" in service else []
            found += [service["healthcheck"]["test"][1:]] if "test" in service.get("healthcheck", {}) else []
    for manifest in MANIFESTS:
        pod = manifest.get("spec", {}).get("template", {}).get("spec", {})
        for container in [*pod.get("initContainers", []), *pod.get("containers", [])]:
            found += [container["command"]] if "command" in container else []
            probes = [container.get(probe, {}) for probe in ("readinessProbe", "livenessProbe")]
            found += [probe["exec"]["command"] for probe in probes if "exec" in probe]
    return found


def test_every_command_exists_with_its_options() -> None:
    import click
    from dagster._cli import cli as dagster
    from dagster._daemon.cli import cli as daemon
    from dagster_webserver.cli import cli as webserver

    known: dict[str, click.Command] = {"dagster": dagster, "dagster-daemon": daemon, "dagster-webserver": webserver}
    every = [command for command in commands() if command[0] != "python"]
    assert len(every) > 10
    for name, *words in every:
        assert (BIN / name).exists()
        command = known[name]
        while isinstance(command, click.Group):
            found = command.get_command(click.Context(command), words.pop(0))
            assert found is not None, f"{name} {words}"
            command = found
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options, f"{name} {words}"


def test_the_image_runs_as_nobody_special_and_knows_no_target() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert DOCKERFILE.count("\nFROM ") == 2
    assert re.findall(r"^USER (\S+)$", last, re.MULTILINE) == ["10001"]
    assert re.search(r"^HEALTHCHECK .*CMD \[", last, re.MULTILINE)
    environment = re.search(r"^ENV (.*)$", last, re.MULTILINE)
    assert environment is not None
    names = {pair.partition("=")[0] for pair in shlex.split(environment[1])}
    assert names == {"PATH", "PYTHONUNBUFFERED", "AURUM_HOME", "DAGSTER_HOME"}
    assert not re.search(r"(?i)^(copy|add) .*(fleet|\.env|deploy|dagster\.yaml)", DOCKERFILE, re.MULTILINE)
    installs = re.findall(r"pip\S* .*?install .*?(?=&&|\n|$)", DOCKERFILE)
    assert installs
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)


def test_the_builder_gets_only_what_is_copied() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE)]
    assert "*" in ignored
    assert {name for names in copied for name in names} == let_in
    assert all((ROOT / name).exists() for name in let_in)


def test_compose_has_no_secret_and_mounts_what_is_there() -> None:
    variables = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    example = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / "env.example").read_text(), re.MULTILINE))
    assert variables == set(example)
    assert {name: example[name] for name in ("POSTGRES_PASSWORD", "CATALOG_TOKEN")} == {
        "POSTGRES_PASSWORD": "",
        "CATALOG_TOKEN": "",
    }
    volumes = set(COMPOSE["volumes"])
    for service in COMPOSE["services"].values():
        for mount in service["volumes"]:
            source = mount.partition(":")[0]
            assert source in volumes or source.startswith("${FLEET_FILE") or (DEPLOY / source).exists(), mount


def test_only_the_code_server_knows_the_fleet_and_there_is_one_daemon() -> None:
    told = [name for name, one in COMPOSE["services"].items() if "AURUM_FLEET" in one.get("environment", {})]
    assert told == ["code"]
    deployments = {one["metadata"]["name"]: one["spec"] for one in MANIFESTS if one["kind"] == "Deployment"}
    assert {name: spec["replicas"] for name, spec in deployments.items()} == {
        "aurum-code": 1,
        "aurum-daemon": 1,
        "aurum-webserver": 1,
    }
    for name in ("aurum-code", "aurum-daemon"):
        assert deployments[name]["strategy"] == {"type": "Recreate"}
    for spec in deployments.values():
        assert spec["template"]["spec"]["securityContext"]["runAsNonRoot"] is True


class Composed:
    """The processes of compose.yaml on this machine: its commands, with other ports and folders."""

    def __init__(self, database: str, home: Path, folder: Path) -> None:
        self.folder = folder
        self.ports = {"4000": str(free_port()), "3000": str(free_port())}
        (folder / "dagster.yaml").write_text((DEPLOY / "dagster.yaml").read_text())
        workspace = (DEPLOY / "workspace.yaml").read_text().replace("host: code", "host: 127.0.0.1")
        (folder / "workspace.yaml").write_text(workspace.replace("4000", self.ports["4000"]))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("AURUM", "DAGSTER", "COV"))}
        self.environment = {
            **kept,
            **storage_variables(database),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "DAGSTER_HOME": str(folder),
            "PYTHONWARNINGS": "ignore",
        }
        self.of_the_code = {"AURUM_HOME": str(home), "AURUM_FLEET": str(ROOT / "fleet.yaml")}

    def command(self, words: list[str]) -> list[str]:
        """A command of compose.yaml with the ports and folders of this machine."""
        for port, here in self.ports.items():
            words = [re.sub(rf"\b{port}\b", here, word) for word in words]
        return [word.replace("/etc/aurum", str(self.folder)).replace("0.0.0.0", "127.0.0.1") for word in words]

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(words), env=self.environment, cwd=self.folder, capture_output=True, text=True, check=False
        )

    @contextmanager
    def started(self, name: str, words: list[str]) -> Iterator[None]:
        log = (self.folder / f"{name}.log").open("wb")
        environment = {**self.environment, **(self.of_the_code if name == "code" else {})}
        with subprocess.Popen(
            self.command(words), env=environment, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT
        ) as process:
            try:
                yield
            finally:
                process.terminate()
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    process.kill()
                log.close()

    def healthy(self, words: list[str]) -> bool:
        return self.run(words).returncode == 0

    def ask(self, query: str, **variables: Any) -> Any:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.ports['3000']}/graphql",
            json.dumps({"query": query, "variables": variables}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)["data"]


def until(what: Callable[[], bool], who: str, folder: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            pytest.fail(f"{who}: {[(log.name, log.read_text()[-1500:]) for log in folder.glob('*.log')]}")
        time.sleep(0.5)


LAUNCH = """mutation ($tables: RunConfigData!) { launchRun(executionParams: {
  selector: {repositoryLocationName: "aurum", repositoryName: "__repository__", jobName: "health"},
  runConfigData: $tables}) { __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


@pytest.mark.thorough
def test_the_processes_of_compose_run_a_job_together(database: str, home: Path, tmp_path: Path) -> None:
    folder = tmp_path / "composed"
    folder.mkdir()
    services = COMPOSE["services"]
    here = Composed(database, home, folder)
    health = {name: service["healthcheck"]["test"][1:] for name, service in services.items() if name in DAEMONS}
    default = [json.loads(text) for text in re.findall(r"CMD (\[.*\])", DOCKERFILE)]
    health["code"], code = default
    migrated = here.run(services["migrate"]["command"])
    assert migrated.returncode == 0, migrated.stderr
    with ExitStack() as running:
        for name, command in (("code", code), *((name, services[name]["command"]) for name in DAEMONS)):
            running.enter_context(here.started(name, command))
            until(lambda name=name: here.healthy(health[name]), name, folder)  # type: ignore[misc]
        config = yaml.safe_load((ROOT / "examples/run/health.yaml").read_text())
        launched = here.ask(LAUNCH, tables=config)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        run_id = launched["run"]["runId"]

        def ended() -> bool:
            status = here.ask(STATUS, id=run_id)["runOrError"]["status"]
            assert status not in {"FAILURE", "CANCELED"}, [log.read_text()[-1500:] for log in folder.glob("*.log")]
            return bool(status == "SUCCESS")

        until(ended, "the run", folder)


DAEMONS = ("webserver", "daemon")


@pytest.mark.thorough
def test_the_steps_that_build_the_image_work_in_a_clean_folder(tmp_path: Path) -> None:
    """RUN lines of the first stage, in order; only the two places they write to are moved. Needs a package index."""
    first = DOCKERFILE.split("\nFROM ")[1]
    for name in ("constraints", "pyproject.toml", "README.md", "aurum_orchestration"):
        source = ROOT / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    script = "".join(f"{line}\n" for line in re.findall(r"^RUN (.*)$", first, re.MULTILINE))
    script = script.replace("/opt/aurum", f"{tmp_path}/opt").replace("/builder", f"{tmp_path}/builder")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AURUM", "DAGSTER", "COV"))}
    built = subprocess.run(
        ["bash", "-euc", script],
        cwd=tmp_path,
        env={**kept, "PATH": f"{BIN}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    command = tmp_path / "opt/bin/aurum"
    told = subprocess.run([command, "--version"], env=kept, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert told.stdout.strip()
    assert not list((tmp_path / "opt/lib").rglob("pytest"))
