"""Workers killed in a loop under load: the only requests that fail are those that a killed worker had."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from operator import gt
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fault_stage import PATIENCE, stage, unharmed

from harness.archives import pack
from harness.server import ServerProcess, eventually

CLIENTS, WORKERS, KILLS = 8, 2, 10
PAUSE = 0.3  # seconds between two kills

BRIEF = """
import time

def handle(data, context):
    if data is None:
        return None
    time.sleep(0.005)
    return [bytes(row["body"]) for row in data]
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    with stage(tmp_path) as running:
        pack(running.store, "brief", BRIEF)
        assert running.register("brief.mar", workers=WORKERS).status_code == 200
        yield running


class Client:
    """Asks without a pause, and keeps what it is answered."""

    def __init__(self, server: ServerProcess, number: int) -> None:
        self._address = urlsplit(server.url())
        self._number = number
        self.right = 0
        self.failures: list[tuple[int, dict[str, object]]] = []  # status, body

    def ask(self, over: threading.Event) -> None:
        """Until told to stop; raises for an answer that is neither right nor an error with a body."""
        connection = self._connect()
        count = 0
        while not over.is_set():
            count += 1
            body = f"{self._number}-{count}"
            connection.request("POST", "/predictions/brief", body)
            answer = connection.getresponse()
            text = answer.read().decode()
            if answer.status == 200:
                assert text == body, "the answer is somebody else's"
                self.right += 1
            else:
                self.failures.append((answer.status, json.loads(text)))
                connection.close()
                connection = self._connect()
        connection.close()

    def _connect(self) -> HTTPConnection:
        return HTTPConnection(self._address.hostname or "", self._address.port, timeout=PATIENCE)


def kill_workers(server: ServerProcess, clients: Sequence[Client]) -> int:
    """Kill a random serving worker every now and then, everybody being served in between; how many were killed."""
    pause = threading.Event()
    choice = random.Random(7)
    killed: set[int] = set()
    for _ in range(KILLS):
        pause.wait(PAUSE)
        served = [client.right for client in clients]
        eventually(lambda before=served: all(map(gt, [client.right for client in clients], before)))  # type: ignore[misc]
        pids = eventually(lambda: {worker["pid"] for worker in server.ready_workers("brief")} - killed)
        victim = choice.choice(sorted(pids))
        os.kill(victim, signal.SIGKILL)
        killed.add(victim)  # it may still be shown as ready for a while
    return len(killed)


def test_workers_killed_in_a_loop_under_load(server: ServerProcess) -> None:
    over = threading.Event()
    clients = [Client(server, number) for number in range(CLIENTS)]
    ids = {worker["id"] for worker in server.ready_workers("brief")}
    with unharmed(server), ThreadPoolExecutor(CLIENTS) as threads:
        asking = [threads.submit(client.ask, over) for client in clients]
        try:
            killed = kill_workers(server, clients)
        finally:
            over.set()
        for one in asking:
            one.result(PATIENCE)
        eventually(lambda: len(server.ready_workers("brief")) == WORKERS)
    failures = [failure for client in clients for failure in client.failures]
    assert len(failures) <= killed
    for status, body in failures:
        assert (status, body["message"]) == (507, "Worker died.")
        assert isinstance(body["cause"], dict)
        assert (body["cause"]["reason"], body["cause"]["signal"]) == ("out of memory", "SIGKILL")
    assert all(client.right >= killed for client in clients), "no client was left waiting"
    assert {worker["id"] for worker in server.ready_workers("brief")} == ids
