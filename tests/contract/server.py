"""The server under contract: modelserver, or the TorchServe named by CONTRACT_TORCHSERVE, seen from outside alone."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from harness.archives import pack
from harness.server import MODELSERVER, ServerProcess, ended, eventually

TORCHSERVE = os.environ.get("CONTRACT_TORCHSERVE")  # path of a `torchserve` executable
PATIENCE = 60.0  # seconds for any answer
RECORD = "CONTRACT_RECORD"  # tells handlers where to write what they did
NOT_ACCEPTING = (
    'Model "{}" has no worker to serve inference request. Please use scale workers API to add workers. If this is a '
    "sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
)

OBEDIENT = Path(__file__).with_name("obedient.py").read_text()


class ContractServer(ServerProcess):
    """A started server with obedient models; tests order, look at records, logs and the process table."""

    def __init__(
        self,
        directory: Path,
        *,
        config: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        tools: Sequence[Path] = (),
        program: Path = MODELSERVER,
    ) -> None:
        self.record = directory / "record"
        self.record.mkdir()
        # The directory of the program has torchrun, and the python that the CPU launcher wants.
        path = os.pathsep.join(map(str, (*tools, program.parent, os.environ["PATH"])))
        variables = {"PATH": path, RECORD: str(self.record), **(environment or {})}
        super().__init__(directory, config=config, environment=variables, program=program)
        self._clients = ThreadPoolExecutor(16)
        self._gates: set[str] = set()  # that handlers may be waiting at

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._clients.shutdown(cancel_futures=True)

    @contextmanager
    def model(
        self,
        name: str,
        *,
        workers: int = 1,
        starting: str = "",
        config: str | None = None,
        requirements: str | None = None,
        **parameters: Any,
    ) -> Iterator[str]:
        """An obedient model, registered synchronously and unregistered at the end; `starting`: what initialize does."""
        self.prepare(name, starting=starting, config=config, requirements=requirements)
        answer = self.register(f"{name}.mar", workers=workers, **parameters)
        assert answer.status_code < 300, answer.text
        try:
            yield name
        finally:
            for gate in self._gates:  # of a test that failed: its handlers need not be waited for
                self.open(gate)
            self._gates.clear()
            self.delete(name)

    def prepare(self, name: str, *, starting: str = "", config: str | None = None, **options: Any) -> None:
        """Pack an obedient model without registering it; `starting`: what initialize does."""
        pack(self.store, name, OBEDIENT, config=config, **options)
        (self.record / f"{name}.initialize").write_text(starting)

    def ask(self, model: str, *, verb: str = "predictions", **order: Any) -> httpx.Response:
        """One request with an order for the handler."""
        return self.request("POST", f"/{verb}/{model}", json=order, timeout=PATIENCE)

    def ask_aside(self, model: str, **order: Any) -> Future[httpx.Response]:
        """The same by another client at the same time."""
        return self._clients.submit(self.ask, model, **order)

    def occupy(self, model: str, name: str, gate: str) -> Future[httpx.Response]:
        """A request that keeps a worker busy until the gate is opened; returns once the handler is inside it."""
        self._gates.add(gate)
        call = self.ask_aside(model, id=name, do="wait", gate=gate)
        eventually(lambda: [name] in self.batches(model) or call.done())
        assert not call.done(), call.result().text
        return call

    def facts(self, model: str, workers: int) -> list[dict[str, Any]]:
        """What the handlers of all workers of a model know of themselves, oldest worker first."""
        gate = f"facts-{model}-{len(self.calls(model))}"
        begun = len(self.batches(model))
        calls = [self.ask_aside(model, do="facts", gate=gate) for _ in range(workers)]
        eventually(lambda: len(self.batches(model)) == begun + workers)
        self.open(gate)
        known = {facts["pid"]: facts for facts in (call.result().json() for call in calls)}
        return [known[worker["pid"]] for worker in self.ready_workers(model)]

    @property
    def server_pid(self) -> int:
        """The process that serves."""
        return int(self.pid_file.read_text())

    def open(self, gate: str) -> None:
        """Let handlers pass that wait at this gate."""
        (self.record / f"{gate}.gate").touch()

    def calls(self, model: str) -> list[dict[str, Any]]:
        """What the handlers of a model recorded, in order."""
        record = self.record / f"{model}.calls"
        return [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []

    def batches(self, model: str) -> list[list[str]]:
        """Names of the requests of every batch that a handler began."""
        return [call["ids"] for call in self.calls(model) if call["step"] == "begin"]

    def delete(self, model: str) -> httpx.Response:
        """DELETE /models/<model>."""
        return self.request("DELETE", f"/models/{model}", "Management")

    def rescale(self, model: str, **parameters: Any) -> httpx.Response:
        """PUT /models/<model> with exactly these parameters."""
        return self.request("PUT", f"/models/{model}", "Management", params=parameters)

    def status_of(self, model: str) -> int:
        """HTTP status of describing a model: 200, or 404 where nothing is left of it."""
        return self.request("GET", f"/models/{model}", "Management").status_code

    def ping(self) -> int:
        """HTTP status of the health check."""
        return self.request("GET", "/ping").status_code

    def waiting(self, model: str) -> int:
        """Jobs that no worker has taken yet."""
        pending: int = self.describe(model)["jobQueueStatus"]["pendingRequests"]
        return pending

    def await_queue(self, model: str, length: int) -> None:
        """Return when that many jobs wait."""
        eventually(lambda: self.waiting(model) == length)

    def workers(self, model: str) -> list[dict[str, Any]]:
        """All workers of a model, in any state."""
        workers: list[dict[str, Any]] = self.describe(model)["workers"]
        return workers

    def ready(self, model: str, count: int = 1) -> list[dict[str, Any]]:
        """The workers of a model, once that many serve."""
        return eventually(lambda: workers if len(workers := self.ready_workers(model)) == count else [])

    def worker_log(self, worker_id: str) -> list[str]:
        """Messages of the server log about one worker, oldest first."""
        lines = dict.fromkeys(self.log("ts_log.log").splitlines())  # TorchServe writes every line twice
        own = re.compile(rf"\bW-{worker_id}-| - {worker_id} Worker disconnected\b")
        return [line.split(" - ", 1)[-1] for line in lines if own.search(line)]

    def logged(self, worker_id: str, *patterns: str) -> list[str]:
        """The worker's messages, once the log holds lines that match these patterns in this order."""
        return eventually(lambda: log if in_order(log := self.worker_log(worker_id), *patterns) else [])

    def model_log(self, model: str) -> list[str]:
        """`LEVEL message` of every line that the processes of a model printed."""
        form = rf"\[(\w+) *\] W-\d+-{model}_\S+ MODEL_LOG - (.*)"
        return [" ".join(found) for found in re.findall(form, self.log("model_log.log"))]


class ReferenceServer(ContractServer):
    """TorchServe: it wants fixed ports, and its launcher and its server are two processes."""

    def __init__(self, directory: Path, *, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        ports = free_ports(5)
        apis = zip(("inference", "management", "metrics"), ports, strict=False)
        keys = {f"{api}_address": f"http://127.0.0.1:{port}" for api, port in apis}
        keys |= {"grpc_inference_port": str(ports[3]), "grpc_management_port": str(ports[4])}
        assert TORCHSERVE is not None
        super().__init__(directory, config={**keys, **(config or {})}, program=Path(TORCHSERVE), **options)

    def stop(self, number: int = 15) -> int:
        """Signal the server and wait for it, its launcher and its workers."""
        assert self.process is not None
        if self.process.poll() is None:
            tree = self.tree()
            psutil.Process(self.server_pid).send_signal(number)
            self._await_end(tree)
        return self.wait()

    def _await_end(self, tree: Sequence[psutil.Process]) -> None:
        try:
            eventually(lambda: all(map(ended, tree)))
        finally:
            for process in tree:
                if not ended(process):
                    process.kill()


def start(stack: ExitStack, directory: Path, **options: Any) -> ContractServer:
    """A started server of the kind under test, stopped when the stack closes."""
    kind: Callable[..., ContractServer] = ReferenceServer if TORCHSERVE else ContractServer
    return stack.enter_context(kind(directory, **options))


def in_order(lines: Sequence[str], *patterns: str) -> bool:
    """Whether lines that match the patterns follow one another in this order, others in between."""
    rest = iter(lines)
    return all(any(re.search(pattern, line) for line in rest) for pattern in patterns)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at the moment, and that no client gets from the kernel in the next one."""
    candidates = random.sample(range(10_000, 32_000), 20 * count)
    return list(itertools.islice(filter(is_free, candidates), count))


def is_free(port: int) -> bool:
    """Whether one may listen there."""
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
