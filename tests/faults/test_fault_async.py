"""Asynchronous workers that die, hang or lose their clients with many requests in flight."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fault_stage import PATIENCE, stage, unharmed

from harness.archives import pack
from harness.server import ServerProcess, eventually

# Runs the code that a request brings, as a coroutine; `enter` counts the requests that are inside.
OBEDIENT = """
import asyncio, os, signal, sys, threading, time
from pathlib import Path
from ts.handler_utils.utils import send_intermediate_predict_response

FOLDER = Path("{folder}")
inside = []


class Obedient:
    def initialize(self, context):
        inside.clear()

    async def handle(self, data, context):
        code = bytes(data[0]["body"]).decode() or "return 'fine'"
        names = dict(globals(), context=context, enter=self.enter)
        names["send"] = lambda piece: send_intermediate_predict_response([piece], context.request_ids, "", 200, context)
        exec("async def run():\\n" + "\\n".join("    " + line for line in code.splitlines()), names)
        return [await names["run"]()]

    def enter(self):
        inside.append(1)
        (FOLDER / "inside.new").write_text(str(len(inside)))
        (FOLDER / "inside.new").rename(FOLDER / "inside")
"""
STAY = "enter()\nawait asyncio.Event().wait()"


class Crowd:
    """A model with one worker, and many clients."""

    def __init__(self, server: ServerProcess, name: str, clients: ThreadPoolExecutor) -> None:
        self.server = server
        self.name = name
        self.folder = server.directory / name
        self.folder.mkdir()
        self._clients = clients

    def register(self, config: str = "") -> Crowd:
        """Synchronously, with one worker."""
        source = OBEDIENT.format(folder=self.folder)
        pack(self.server.store, self.name, source, config=f"asyncCommunication: true\n{config}")
        assert self.server.register(f"{self.name}.mar").status_code == 200
        return self

    def ask(self, code: str = "") -> Future[httpx.Response]:
        """A request that another thread waits for."""
        return self._clients.submit(self.server.predict, self.name, code.encode())

    def gather(self, count: int, code: str = STAY) -> list[Future[httpx.Response]]:
        """So many requests that are inside the handler."""
        (self.folder / "inside").unlink(missing_ok=True)
        calls = [self.ask(code) for _ in range(count)]
        file = self.folder / "inside"
        eventually(lambda: file.exists() and int(file.read_text()) >= count)
        return calls

    @property
    def pid(self) -> int:
        """Of the worker, once it serves."""
        (worker,) = eventually(lambda: self.server.ready_workers(self.name))
        pid: int = worker["pid"]
        return pid


@pytest.fixture(scope="module")
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(32) as threads:
        yield threads


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with stage(tmp_path_factory.mktemp("async")) as running:
        yield running


@pytest.fixture(scope="module")
def crowd(server: ServerProcess, clients: ThreadPoolExecutor) -> Crowd:
    return Crowd(server, "crowd", clients).register()


@pytest.fixture(scope="module")
def hasty(server: ServerProcess, clients: ThreadPoolExecutor) -> Crowd:
    """With a short response timeout."""
    return Crowd(server, "hasty", clients).register("responseTimeout: 2\n")


@pytest.fixture(autouse=True)
def others_are_unharmed(server: ServerProcess, crowd: Crowd, hasty: Crowd) -> Iterator[None]:
    with unharmed(server):
        yield


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (lambda crowd: os.kill(crowd.pid, signal.SIGSEGV), 500),
        (lambda crowd: os.kill(crowd.pid, signal.SIGKILL), 507),
        (lambda crowd: crowd.ask("os._exit(3)"), 500),
        (lambda crowd: crowd.ask("sys.exit(3)"), 500),
        (lambda crowd: crowd.ask("raise KeyboardInterrupt"), 500),
        (lambda crowd: crowd.ask("asyncio.get_running_loop().stop()"), 500),
    ],
    ids=["SIGSEGV", "SIGKILL", "os._exit", "sys.exit", "KeyboardInterrupt", "stopped loop"],
)
def test_a_death_with_ten_in_flight(crowd: Crowd, end: Callable[[Crowd], object], status: int) -> None:
    """Every client is told of the worker's death, and the next process serves."""
    before = crowd.pid
    calls = crowd.gather(10)
    end(crowd)
    answers = [call.result(PATIENCE) for call in calls]
    assert {(answer.status_code, answer.json()["message"]) for answer in answers} == {(status, "Worker died.")}
    assert crowd.ask().result(PATIENCE).text == "fine"
    assert crowd.pid != before


def test_streams_are_cut_by_a_death(crowd: Crowd) -> None:
    """Without a regular end."""
    calls = crowd.gather(3, f"send('piece')\n{STAY}")
    os.kill(crowd.pid, signal.SIGKILL)
    for call in calls:
        with pytest.raises(httpx.RemoteProtocolError):
            call.result(PATIENCE)
    assert crowd.ask().result(PATIENCE).text == "fine"


def test_a_handler_that_blocks_the_loop(hasty: Crowd) -> None:
    """Nothing comes from the worker any more: it is killed, with all that it has."""
    before = hasty.pid
    calls = [*hasty.gather(3), hasty.ask("threading.Event().wait()")]
    answers = [call.result(PATIENCE) for call in calls]
    assert {answer.status_code for answer in answers} == {500}
    assert {answer.json()["cause"]["reason"] for answer in answers} == {"response timeout"}
    assert hasty.ask().result(PATIENCE).text == "fine"
    assert hasty.pid != before


def test_a_request_that_hangs_alone(hasty: Crowd) -> None:
    """Fails alone: its worker goes on with what it has."""
    before = hasty.pid
    other = "enter()\nfor _ in range(60):\n    send('x')\n    await asyncio.sleep(0.05)\nreturn 'end'"
    talking = hasty.gather(1, other)[0]
    answer = hasty.ask("await asyncio.Event().wait()").result(PATIENCE)
    assert (answer.status_code, answer.json()["message"]) == (500, "Backend worker did not respond in given time")
    assert talking.result(PATIENCE).text == "x" * 60 + "end"
    assert hasty.pid == before


def test_clients_that_leave(crowd: Crowd) -> None:
    """The handler can see it; the others never notice."""
    before = crowd.pid
    told = crowd.folder / "told"
    code = f"enter()\nwhile not any(context.cancelled):\n    await asyncio.sleep(0.01)\nPath({str(told)!r}).touch()"
    staying = crowd.gather(2, "enter()\nwhile not Path('" + str(told) + "').exists():\n    await asyncio.sleep(0.01)")
    url = f"{crowd.server.url()}/predictions/{crowd.name}"
    with httpx.Client(timeout=PATIENCE) as client, client.stream("POST", url, content=f"send('x')\n{code}") as stream:
        assert next(stream.iter_text()) == "x"
    eventually(told.exists)
    assert [call.result(PATIENCE).status_code for call in staying] == [200, 200]
    assert crowd.pid == before


def test_the_server_stops_with_requests_in_flight(tmp_path: Path, clients: ThreadPoolExecutor) -> None:
    """Within its limit; nothing is left."""
    with ServerProcess(tmp_path, config={"drain_timeout": "1"}) as server:
        crowd = Crowd(server, "crowd", clients).register()
        calls = crowd.gather(3)
        pid = crowd.pid
        assert server.stop() == 0
        assert not Path(f"/proc/{pid}").exists()
        for call in calls:
            with pytest.raises(httpx.HTTPError):
                call.result(PATIENCE).raise_for_status()
