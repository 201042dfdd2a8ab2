"""A real Prometheus that scrapes a server under test, on a port of its own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from harness.server import eventually

_INTERVAL = "250ms"


class Prometheus:
    """Started as a process; asked over its HTTP API."""

    def __init__(self, directory: Path, target: str, port: int) -> None:
        """`target` is `host:port`."""
        directory.mkdir()
        config = directory / "prometheus.yaml"
        config.write_text(
            f"global: {{scrape_interval: {_INTERVAL}}}\n"
            "scrape_configs:\n"
            f"  - {{job_name: modelserver, static_configs: [{{targets: ['{target}']}}]}}\n"
        )
        self._url = f"http://127.0.0.1:{port}"
        self._console = directory / "console.log"
        program = shutil.which("prometheus")
        assert program is not None
        self._command = [program, f"--config.file={config}", f"--storage.tsdb.path={directory / 'data'}"]
        self._command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=console, stderr=console)
        eventually(lambda: self._process is None or self._process.poll() is not None or self._ready())
        assert self._process.poll() is None, self._console.read_text()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)

    def _ready(self) -> bool:
        try:
            return self._get("/-/ready").status_code == 200
        except httpx.TransportError:
            return False

    def _get(self, path: str, **parameters: str) -> httpx.Response:
        # Without `verify` every call reads the certificates of the system.
        return httpx.get(self._url + path, params=parameters, verify=False)

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The series that an expression gives now. An expression that it does not understand fails."""
        answer = self._get("/api/v1/query", query=expression)
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, with the error of the last scrape."""
        found: list[dict[str, Any]] = self._get("/api/v1/targets").json()["data"]["activeTargets"]
        return found


def promtool(*arguments: str, directory: Path | None = None, text: str = "") -> subprocess.CompletedProcess[str]:
    """Prometheus's own checker."""
    return subprocess.run(
        ["promtool", *arguments], input=text, capture_output=True, text=True, cwd=directory, env=os.environ, timeout=60
    )
