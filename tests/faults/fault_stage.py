"""A real server, a victim that does what it is told, and a bystander that must not notice."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from harness.archives import NOOP, pack
from harness.leaks import Census, assert_settles
from harness.server import ServerProcess, eventually

PATIENCE = 60.0  # seconds for any answer; a test that needs it has failed

# Runs the code that a request brings. Gates let a test hold it while it is imported, initialised or about to run code.
OBEDIENT = """
import ctypes, multiprocessing, os, random, resource, shutil, signal, socket, subprocess, sys, threading, time
from pathlib import Path

GATES = Path("{gates}")

def wait_at(gate):
    (GATES / f"{{gate}}.pid").write_text(str(os.getpid()))
    (GATES / f"{{gate}}.pid").rename(GATES / f"{{gate}}.reached")
    while (GATES / f"{{gate}}.closed").exists():
        time.sleep(0.005)

wait_at("import")

def handle(data, context):
    if data is None:
        wait_at("initialize")
        if (GATES / "initialize.code").exists():
            exec((GATES / "initialize.code").read_text(), globals())
        return None
    code = bytes(data[0]["body"]).decode()
    if not code:
        return ["fine"]
    wait_at("handle")
    names = {{**globals(), "result": "fine"}}
    exec(code, names)
    return [names["result"]]
"""


@dataclass
class Fall:
    """What was seen of one worker's death."""

    before: dict[str, Any]  # the worker as describe showed it
    answer: httpx.Response  # of the request that it had
    fallen: dict[str, Any]  # the slot while the next process loads
    after: dict[str, Any]  # the worker that took its place

    @property
    def cause(self) -> dict[str, Any]:
        """As the client was told."""
        cause: dict[str, Any] = self.answer.json()["cause"]
        return cause


class Victim:
    """A model with one worker that runs the code of its requests."""

    def __init__(self, server: ServerProcess, name: str, *, clients: ThreadPoolExecutor) -> None:
        self.server = server
        self.name = name
        self.gates = server.directory / f"gates-{name}"
        self.gates.mkdir()
        self._clients = clients
        pack(server.store, name, OBEDIENT.format(gates=self.gates))

    def register(self, **parameters: Any) -> httpx.Response:
        """Synchronously, with one worker."""
        return self.server.register(f"{self.name}.mar", **parameters)

    def unregister(self) -> None:
        """It need not have workers any more."""
        assert self.server.request("DELETE", f"/models/{self.name}", "Management").status_code == 200

    def close(self, gate: str) -> None:
        """Let the handler stop there the next time."""
        (self.gates / f"{gate}.reached").unlink(missing_ok=True)
        (self.gates / f"{gate}.closed").touch()

    def open(self, gate: str) -> None:
        """Let the handler go on, now and later."""
        (self.gates / f"{gate}.closed").unlink(missing_ok=True)

    def reached(self, gate: str) -> int:
        """Wait until the handler is at a gate that was closed; the pid of the worker."""
        file = self.gates / f"{gate}.reached"
        eventually(file.exists)
        return int(file.read_text())

    def order_initialize(self, code: str) -> None:
        """What every following process runs while it loads; nothing for ""."""
        file = self.gates / "initialize.code"
        file.with_suffix(".next").write_text(code)
        file.with_suffix(".next").rename(file)

    def ask(self, code: str = "") -> Future[httpx.Response]:
        """A request that another thread waits for."""
        return self._clients.submit(self.server.predict, self.name, code.encode())

    def slot(self) -> dict[str, Any]:
        """The only worker as describe shows it, whatever it does."""
        (worker,) = self.server.describe(self.name)["workers"]
        found: dict[str, Any] = worker
        return found

    def fallen(self) -> dict[str, Any]:
        """The slot, once describe shows a death that no other process has made good."""
        return eventually(lambda: slot if "cause" in (slot := self.slot()) else {})

    def ready(self) -> dict[str, Any]:
        """The only worker, once it serves."""
        return eventually(lambda: slot if (slot := self.slot())["status"] == "READY" else {})

    def wait_for_pending(self, count: int) -> None:
        """Until so many requests wait in the queue."""
        eventually(lambda: self.server.describe(self.name)["jobQueueStatus"]["pendingRequests"] == count)

    def strike(self, code: str, act: Callable[[int], None] = lambda pid: None) -> Fall:
        """Let the worker run deadly code, with two requests queued behind it; `act` gets its pid while it is busy.

        Checks what holds for every death: the two are answered, describe tells of it, the slot stays the same.
        """
        before = self.ready()
        self.close("initialize")  # already: it may be overdue before its code runs, and its successor would be too fast
        self.close("handle")
        struck = self.ask(code)
        pid = self.reached("handle")
        assert pid == before["pid"]
        queued = [self.ask(), self.ask()]
        self.wait_for_pending(2)
        act(pid)
        self.open("handle")
        answer = struck.result(PATIENCE)
        fallen = self.fallen()
        self.open("initialize")
        for request in queued:
            assert (request.result(PATIENCE).status_code, request.result().text) == (200, "fine")
        fall = Fall(before, answer, fallen, self.ready())
        _check(fall)
        return fall

    def endure(self, code: str, act: Callable[[int], None] = lambda pid: None) -> httpx.Response:
        """Let the worker run code that it survives, with a request queued behind it; the answer to the code."""
        before = self.ready()
        self.close("handle")
        struck = self.ask(code)
        pid = self.reached("handle")
        queued = self.ask()
        self.wait_for_pending(1)
        act(pid)
        self.open("handle")
        answer = struck.result(PATIENCE)
        assert (queued.result(PATIENCE).status_code, queued.result().text) == (200, "fine")
        assert self.ready()["pid"] == before["pid"], answer.text
        return answer


def _check(fall: Fall) -> None:
    assert fall.answer.json()["message"] == "Worker died."
    assert fall.fallen["status"] == "UNLOADING"
    assert fall.fallen["cause"]["reason"] == fall.cause["reason"]
    assert "cause" not in fall.after
    assert fall.after["pid"] != fall.before["pid"]
    assert (fall.after["id"], fall.after["startTime"]) == (fall.before["id"], fall.before["startTime"])
    assert not Path(f"/proc/{fall.before['pid']}").exists()


@dataclass
class Bystander:
    """Asks another model of the server again and again; every answer but the right one is kept."""

    server: ServerProcess
    wrong: list[str] = field(default_factory=list)
    answers: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def ask(self, name: str = "bystander") -> None:
        """Until told to stop."""
        address = urlsplit(self.server.url())
        connection = HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
        try:
            while not self._over.wait(0.05):
                connection.request("POST", f"/predictions/{name}")
                answer = connection.getresponse()
                text = answer.read().decode()
                self.answers += 1
                if (answer.status, text) != (200, "ok"):
                    self.wrong.append(f"{answer.status} {text}")
        except (OSError, HTTPException) as error:
            self.wrong.append(repr(error))
        finally:
            connection.close()

    def stop(self) -> None:
        """Let `ask` return."""
        self._over.set()


@contextmanager
def stage(
    directory: Path, *, torch: bool = False, config: Mapping[str, Any] | None = None, **options: Any
) -> Iterator[ServerProcess]:
    """A server with a bystander."""
    with ServerProcess(directory, torch=torch, config=config, **options) as server:
        pack(server.store, "bystander", NOOP)
        assert server.register("bystander.mar").status_code == 200
        yield server


@contextmanager
def unharmed(server: ServerProcess) -> Iterator[None]:
    """Whatever happens inside: the bystander keeps its worker and answers throughout, and nothing leaks."""
    with undisturbed(server):
        before = Census.of(server)
        yield
        assert_settles(server, before)


@contextmanager
def undisturbed(server: ServerProcess) -> Iterator[None]:
    """Whatever happens inside: the bystander keeps its worker and answers throughout."""
    (worker,) = server.ready_workers("bystander")
    bystander = Bystander(server)
    with ThreadPoolExecutor(1) as threads:
        asking = threads.submit(bystander.ask)
        eventually(lambda: bystander.answers or bystander.wrong)
        try:
            yield
        finally:
            bystander.stop()
        asking.result(PATIENCE)
    assert bystander.wrong == []
    (after,) = server.ready_workers("bystander")
    assert after["pid"] == worker["pid"]
