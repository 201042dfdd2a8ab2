"""Starts and stops a server from test suites, and registers models with it."""

from __future__ import annotations

import importlib
import queue
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO, Any

_LIMIT = 1000  # lines of output that wait to be read; later ones are dropped


class Tee(threading.Thread):
    """Reads the lines of a stream into a queue, and None at its end; prints them as well if asked to."""

    def __init__(self, stream: Iterable[str], lines: queue.Queue[str | None], echo: bool = False) -> None:
        super().__init__(daemon=True)
        self._stream = stream
        self._lines = lines
        self._echo = echo

    def run(self) -> None:
        """Until the stream ends."""
        for line in self._stream:
            if self._echo:
                print(line, end="")
            try:
                self._lines.put_nowait(line)
            except queue.Full:
                pass
        self._lines.put(None)


class PrintTillTheEnd(threading.Thread):
    """Prints lines from a queue until None comes."""

    def __init__(self, lines: queue.Queue[str | None]) -> None:
        super().__init__(daemon=True)
        self._lines = lines

    def run(self) -> None:
        """Until None comes."""
        for line in iter(self._lines.get, None):
            print(line, end="")


def start(
    model_store: str | Path | None = None,
    snapshot_file: str | Path | None = None,
    no_config_snapshots: bool = False,
    plugin_folder: str | Path | None = None,
    disable_token: bool = False,
    models: str | None = None,
    enable_model_api: bool = False,
) -> queue.Queue[str | None]:
    """Stop a running server, start one and wait until it serves; the lines that it prints after that, None at the end.

    Raises `RuntimeError` if it ends before.
    """
    stop()
    flags = ["--start"]
    for flag, value in (
        ("--model-store", model_store),
        ("--plugins-path", plugin_folder),
        ("--ts-config", snapshot_file),
        ("--models", models),
    ):
        flags += [flag, str(value)] if value else []
    for flag, wanted in (
        ("--no-config-snapshots", no_config_snapshots),
        ("--disable-token-auth", disable_token),
        ("--enable-model-api", enable_model_api),
    ):
        flags += [flag] if wanted else []
    process = subprocess.Popen(_command(flags), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    return _read_after_start(process.stdout)


def stop(wait: bool = True) -> None:
    """Stop the running server, if there is one; `wait` for its end."""
    subprocess.run(_command(["--stop", *(["--foreground"] if wait else [])]), check=False)


def register_model_with_params(params: Mapping[str, Any]) -> Any:
    """The response to the registration of a model with these query parameters."""
    return importlib.import_module("requests").post("http://localhost:8081/models", params=dict(params))


def register_model(model_name: str, url: str) -> Any:
    """The response to the registration of an archive, with one worker, which is waited for."""
    params = {"model_name": model_name, "url": url, "initial_workers": "1", "synchronous": "true"}
    return register_model_with_params(params)


def _command(flags: list[str]) -> list[str]:
    return [sys.executable, "-m", "ts.model_server", *flags]


def _read_after_start(stream: IO[str]) -> queue.Queue[str | None]:
    for line in stream:
        print(line, end="")
        if "Model server started" in line:
            lines: queue.Queue[str | None] = queue.Queue(_LIMIT)
            Tee(stream, lines).start()
            return lines
    raise RuntimeError("the server ended before it had started")
