"""Takes the pictures of docs/images from Dagster on the demo's lake, in a headless Chromium.

Speaks Chromium's own protocol over the websocket client that Dagster's web server brings: nothing more to install but
Chromium itself (Debian: the package chromium). The demo's data is left as it is.
"""

from __future__ import annotations

import argparse
import base64
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from aurum_orchestration.local.engines.background import free_port

ROOT = Path(__file__).resolve().parent.parent
HTTP = "{}://".format("http")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
LOCATION = "/locations/aurum_orchestration.definitions"
WIDTH, HEIGHT = 1280, 800
LARGEST_BYTES = 200_000
PATIENCE = 180
"""Seconds until a page that does not show what it should counts as broken."""


@dataclass(frozen=True)
class Picture:
    """A page, what has to be on it before it is taken, and how much of it is taken."""

    name: str
    path: str
    shows: tuple[str, ...]
    script: str = ""
    """JavaScript to run once everything is there, such as a scroll."""
    height: int = HEIGHT
    left: int = 0
    width: int = WIDTH


def _click(button: str, heading: str) -> str:
    """JavaScript that presses a button, and scrolls to a heading that comes then; each is found by its text."""
    return f"""(() => {{
      const named = (text) =>
        [...document.querySelectorAll("button, label, span, div")].filter((one) => one.innerText === text).pop();
      named({json.dumps(button)}).click();
      setTimeout(() => {{
        const there = named({json.dumps(heading)});
        there.style.scrollMarginTop = "24px";
        there.scrollIntoView({{block: "start"}});
      }}, 1000);
    }})()"""


_IN_THE_CONFIG = """(() => {
  const editor = document.querySelector(".CodeMirror").CodeMirror;
  editor.focus();
  editor.setCursor(4, 6);
})()"""
"""Puts the cursor into the job's config: the pane beside the editor then explains the fields that go there."""


def pictures(run_id: str) -> list[Picture]:
    """All pictures; the run is the one whose page is shown."""
    return [
        Picture("catalogue", "/assets/lake/flights?view=folder", ("flights", "schedule", "weather"), height=530),
        Picture(
            "plots",
            "/assets/lake/flights/flights?view=overview",
            ("Metadata", "Plots"),
            _click("Plots", "data_files"),
            left=240,
            width=728,
        ),
        Picture(
            "checks", "/assets/lake/flights/flights?view=checks", ("maintenance_recency", "file_count"), height=620
        ),
        Picture(
            "launchpad",
            f"{LOCATION}/jobs/compaction/playground",
            ("Launch Run", "dry_run"),
            _IN_THE_CONFIG,
            height=840,
        ),
        Picture("run", f"/runs/{run_id}", ("RUN_SUCCESS",)),
        Picture("automation", "/automation", ("compaction_lake", "weekly_full", "03:00"), height=720),
    ]


def main() -> int:
    """Take the pictures; 0 when all are there, 1 with an explanation when not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=ROOT / ".aurum", help="AURUM_HOME of the demo")
    parser.add_argument("--to", type=Path, default=ROOT / "docs/images", help="folder for the pictures")
    parser.add_argument("names", nargs="*", help="only these pictures")
    given = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        return _say("Chromium is missing. Debian and Ubuntu: apt-get install chromium")
    if not (given.home / "demo.json").is_file():
        return _say(f"There is no demo in {given.home}. First: make demo")
    try:
        with _dagster(given.home.resolve()) as address, _chromium(browser) as page:
            for picture in pictures(_latest_run(address)):
                if not given.names or picture.name in given.names:
                    taken = page.take(address, picture)
                    (given.to / f"dagster-{picture.name}.png").write_bytes(taken)
                    print(f"dagster-{picture.name}.png  {len(taken):,} bytes", flush=True)
    except (RuntimeError, TimeoutError) as error:
        return _say(f"No picture: {error}")
    return 0


def _say(text: str) -> int:
    print(text, file=sys.stderr)
    return 1


class Page:
    """A tab of the browser."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self.ask("Page.enable")
        self.ask("Emulation.setTimezoneOverride", timezoneId="UTC")

    def ask(self, method: str, seconds: float = PATIENCE, **parameters: Any) -> dict[str, Any]:
        """The answer to one command of the DevTools protocol; events are passed over. TimeoutError without one."""
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        deadline = time.monotonic() + seconds
        while True:
            answer: dict[str, Any] = json.loads(self._connection.recv(timeout=deadline - time.monotonic()))
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"Chromium refused {method}: {answer['error']['message']}")
                return dict(answer["result"])

    def evaluate(self, script: str) -> Any:
        """The value of a piece of JavaScript; None when the page went away meanwhile, which leaves no answer."""
        try:
            answer = self.ask("Runtime.evaluate", seconds=5, expression=script, returnByValue=True)
        except TimeoutError:
            return None
        return answer["result"].get("value")

    def take(self, address: str, picture: Picture) -> bytes:
        """The picture as PNG. Raises RuntimeError when what it should show does not come, or it is too large."""
        size = {"width": WIDTH, "height": picture.height, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", **size)
        self.ask("Page.navigate", url=address + picture.path)
        for text in picture.shows:
            seen = f"document.body && document.body.innerText.includes({json.dumps(text)})"
            _until(lambda seen=seen: self.evaluate(seen), f"{picture.name}: no {text!r} on the page")  # type: ignore[misc]
        time.sleep(5)  # fonts, icons and charts come after the text
        if picture.script:
            self.evaluate(picture.script)
            time.sleep(4)
        clip = {"x": picture.left, "y": 0, "width": picture.width, "height": picture.height, "scale": 1}
        png = base64.b64decode(self.ask("Page.captureScreenshot", format="png", clip=clip)["data"])
        if len(png) > LARGEST_BYTES:
            raise RuntimeError(f"{picture.name} has {len(png):,} bytes, more than {LARGEST_BYTES:,}")
        return png


@contextmanager
def _dagster(home: Path) -> Iterator[str]:
    """The web server on the demo's home; gives its address."""
    port = free_port()
    environment = {
        **os.environ,
        "AURUM_HOME": str(home),
        "AURUM_FLEET": str(ROOT / "fleet.yaml"),
        "DAGSTER_HOME": str(home / "dagster"),
        "PYTHONWARNINGS": "ignore",
    }
    program = Path(sys.executable).parent / "dagster-webserver"
    command = [str(program), "--workspace", str(ROOT / "workspace.yaml"), "--port", str(port)]
    address = f"{HTTP}127.0.0.1:{port}"
    with _running(command, env=environment, cwd=home):
        _until(lambda: _answers(f"{address}/server_info"), "Dagster's web server does not start")
        yield address


@contextmanager
def _chromium(browser: str) -> Iterator[Page]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="aurum-chromium-", ignore_cleanup_errors=True) as profile:
        command = [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
            *("--hide-scrollbars", "--force-color-profile=srgb"),
            *(f"--user-data-dir={profile}", f"--remote-debugging-port={port}", "about:blank"),
        ]
        with _running(command):
            tabs = f"{HTTP}127.0.0.1:{port}/json"
            _until(lambda: _answers(tabs), "Chromium does not start")
            with urllib.request.urlopen(tabs) as answer:  # noqa: S310  # an address of this machine
                tab = next(one for one in json.load(answer) if one["type"] == "page")
            with connect(tab["webSocketDebuggerUrl"], max_size=None) as connection:
                yield Page(connection)


@contextmanager
def _running(command: list[str], **options: Any) -> Iterator[None]:
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet, **options) as process:  # noqa: S603  # programs named here
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _latest_run(address: str) -> str:
    """Id of the latest run of the demo that succeeded."""
    query = '{runsOrError(filter: {pipelineName: "compaction", statuses: [SUCCESS]}, limit: 1)'
    body = json.dumps({"query": query + "{... on Runs {results {runId}}}}"}).encode()
    request = urllib.request.Request(f"{address}/graphql", body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        runs = json.load(answer)["data"]["runsOrError"].get("results")
    if not runs:
        raise RuntimeError("The demo has no run of the job compaction that succeeded. Make it anew: make demo")
    return str(runs[0]["runId"])


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5):  # noqa: S310  # an address of this machine
            return True
    except OSError:
        return False


def _until(what: Callable[[], Any], complaint: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{complaint} (waited {PATIENCE} s)")
        time.sleep(0.25)


if __name__ == "__main__":
    sys.exit(main())
