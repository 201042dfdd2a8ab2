"""The real server as a process of its own, on ports the kernel chooses and in directories of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
import psutil

MODELSERVER = Path(sys.executable).with_name("modelserver")
DEADLINE = 60.0  # seconds for anything to happen; a test that needs it has failed
T = TypeVar("T")


def eventually(check: Callable[[], T], within: float = DEADLINE) -> T:
    """Polls until `check` returns something true, and returns that."""
    end = time.monotonic() + within
    while not (result := check()):
        if time.monotonic() > end:
            raise AssertionError(f"still not after {within} s: {check}")
        time.sleep(0.02)
    return result


class ServerProcess:
    """`modelserver --start --foreground` in `directory`, with its console read to the end.

    It imports torch for its workers only if `torch` is true: this is most of the time that a start takes.
    """

    def __init__(
        self,
        directory: Path,
        *,
        models: Sequence[str] = (),
        flags: Sequence[str] = ("--disable-token-auth", "--enable-model-api", "--ncs"),
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        program: Path = MODELSERVER,
        torch: bool = False,
    ) -> None:
        self.directory = directory
        self.program = program
        self.store = directory / "store"
        self.temp = directory / "temp"
        for path in (self.store, self.temp):
            path.mkdir(exist_ok=True)
        keys = {f"{name}_address": "http://127.0.0.1:0" for name in ("inference", "management", "metrics")}
        keys |= {"grpc_inference_port": "0", "grpc_management_port": "0"}
        keys |= {} if torch else {"preload_modules": ""}
        keys |= {name: str(value) for name, value in (config or {}).items()}
        (directory / "config.properties").write_text("".join(f"{key}={value}\n" for key, value in keys.items()))
        self.command = [str(program), "--start", "--foreground"]
        self.command += ["--model-store", str(self.store), "--ts-config", "config.properties", *flags]
        self.command += ["--models", *models] if models else []
        self.environment = {
            **os.environ,
            "TEMP": str(self.temp),
            "TMPDIR": str(self.temp),
            "XDG_CACHE_HOME": str(directory / "cache"),
            "LOG_LOCATION": str(directory / "logs"),
            "METRICS_LOCATION": str(directory / "logs"),
            **(environment or {}),
        }
        self.lines: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._reader: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, wait: bool = True) -> None:
        """Start, and return when the ready line is there."""
        self.process = subprocess.Popen(
            self.command,
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if wait:
            eventually(lambda: self.started or self.process is None or self.process.poll() is not None)
            assert self.started, f"server did not start:\n{self.output}"

    def _read(self) -> None:
        assert self.process is not None and self.process.stdout is not None
        with self.process.stdout as console:
            for line in console:
                self.lines.append(line.rstrip("\n"))

    @property
    def started(self) -> bool:
        """The ready line has been printed."""
        return "Model server started." in self.lines

    @property
    def output(self) -> str:
        """Everything on the console so far."""
        return "\n".join(self.lines)

    def wait(self) -> int:
        """Exit status, once the process has ended and its console is read."""
        assert self.process is not None and self._reader is not None
        status = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal, wait, and check that nothing is left; the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            tree = self.tree()
            self.process.send_signal(number)
            try:
                status = self.wait()
            except subprocess.TimeoutExpired:
                for process in tree:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                raise AssertionError(f"server did not stop:\n{self.output}") from None
            eventually(lambda: all(map(ended, tree)))  # processes are left behind otherwise
            return status
        return self.wait()

    def tree(self) -> list[psutil.Process]:
        """The server process and all its descendants."""
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return [root, *root.children(recursive=True)]

    @property
    def pid_file(self) -> Path:
        """Where the launcher names the server."""
        return Path(self.environment["TMPDIR"], ".model_server.pid")

    def launch(self, *flags: str, program: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Another call of the program beside the server: same directory, same environment, a console of its own."""
        return subprocess.run(
            [str(program or self.program), *flags],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
        )

    def url(self, api: str = "Inference") -> str:
        """Base URL of an API, from the server's own log."""
        found = re.search(rf"{api} API bind to: (https?://[^\s\"]+)", self.output)
        assert found, self.output
        return found[1]

    def grpc_target(self, api: str = "inference") -> str:
        """Where a gRPC port is, from the server's own log."""
        found = re.search(rf"gRPC {api} API bind to: (\S+)", self.output)
        assert found, self.output
        return found[1]

    def request(self, method: str, path: str, api: str = "Inference", **options: Any) -> httpx.Response:
        """One HTTP request on a connection of its own."""
        # Without `verify` every call reads the system's certificates: 24 ms, and tests make their own certificates.
        return httpx.request(method, self.url(api) + path, **{"timeout": DEADLINE, "verify": False, **options})

    def predict(self, model: str, content: bytes = b"", **options: Any) -> httpx.Response:
        """POST /predictions/<model>."""
        return self.request("POST", f"/predictions/{model}", content=content, **options)

    def register(self, url: str, workers: int = 1, **parameters: Any) -> httpx.Response:
        """POST /models, synchronously."""
        parameters = {"url": url, "initial_workers": workers, "synchronous": "true", **parameters}
        return self.request("POST", "/models", "Management", params=parameters)

    def scale(self, model: str, minimum: int, **parameters: Any) -> httpx.Response:
        """PUT /models/<model>, synchronously."""
        parameters = {"min_worker": minimum, "synchronous": "true", **parameters}
        return self.request("PUT", f"/models/{model}", "Management", params=parameters)

    def describe(self, model: str) -> dict[str, Any]:
        """The default version of a model."""
        answer = self.request("GET", f"/models/{model}", "Management")
        assert answer.status_code == 200, answer.text
        description: dict[str, Any] = answer.json()[0]
        return description

    def ready_workers(self, model: str) -> list[dict[str, Any]]:
        """Workers of a model that serve."""
        return [worker for worker in self.describe(model)["workers"] if worker["status"] == "READY"]

    def log(self, name: str) -> str:
        """Text of one log file; what has just happened need not be in it yet."""
        return (self.directory / "logs" / name).read_text()

    def says(self, *texts: str) -> None:
        """Return when all of these are on the console."""
        eventually(lambda: all(text in self.output for text in texts))

    def logs(self, name: str, *patterns: str) -> str:
        """The text of a log file, once every pattern is found in it."""

        def found() -> str:
            text = self.log(name)
            return text if all(re.search(pattern, text, re.MULTILINE) for pattern in patterns) else ""

        return eventually(found)


class BackgroundServer(ServerProcess):
    """`modelserver --start`: the process of this object is the launcher, the server is the one the pid file names."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        self.command.remove("--foreground")
        self.server: psutil.Process | None = None

    def start(self, *, wait: bool = True) -> None:
        """Start; look up the server when the ready line is there."""
        super().start(wait=False)
        if wait:
            eventually(lambda: self.started or not self._reading())
            assert self.started, f"server did not start:\n{self.output}"
            self.server = psutil.Process(int(self.pid_file.read_text()))

    def _reading(self) -> bool:
        return self._reader is not None and self._reader.is_alive()

    def tree(self) -> list[psutil.Process]:
        """The server process and all its descendants."""
        assert self.server is not None
        return [self.server, *self.server.children(recursive=True)]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the server unless it has ended, wait, check that nothing is left; the exit status of the launcher."""
        if self.server is not None and not ended(self.server):
            tree = self.tree()
            self.server.send_signal(number)
            eventually(lambda: all(map(ended, tree)))
        return self.wait()


def ended(process: psutil.Process) -> bool:
    """Gone, or dead and not yet reaped by a parent that is none of ours."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
