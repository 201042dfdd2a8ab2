"""Workers of several ranks under torchrun, on the CPU."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from harness.archives import pack
from harness.server import ServerProcess, ended, eventually

pytest.importorskip("torch")

# Sums the request's number over the ranks; some requests do other things, on one rank or on all.
SUM = """
import json, os, subprocess, time
import torch
import torch.distributed as dist

class Handler:
    def initialize(self, context):
        dist.init_process_group("gloo")
        self.rank = dist.get_rank()
        self.gpu = context.system_properties.get("gpu_id")

    def handle(self, data, context):
        request = json.loads(bytes(data[0]["body"]))
        if request.get("exit") == self.rank:
            os._exit(3)
        if request.get("start") == self.rank:
            subprocess.Popen(["sleep", "600"])
        if request.get("wait"):
            open(f"begun{self.rank}", "w").close()
            time.sleep(600)
        number = torch.tensor([float(request.get("number", 0))])
        if not request.get("alone"):
            dist.all_reduce(number)
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT", "OMP_NUM_THREADS", "LOGLEVEL", "TS_SECRET")
        facts = {name: os.environ.get(name) for name in names}
        facts |= {"sum": float(number), "threads": torch.get_num_threads(), "pid": os.getpid(), "gpu": self.gpu}
        return [json.dumps(facts)]
"""
TP = """
parallelType: tp
torchrun:
  nproc-per-node: 2
  OMP_NUMBER_THREADS: 2
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("parallel"), config={"drain_timeout": 1}) as server:
        pack(server.store, "tp", SUM, config=TP)
        assert server.register("tp.mar").status_code == 200, server.output
        yield server


def begin(server: ServerProcess, model: str, pool: ThreadPoolExecutor, **request: Any) -> Future[httpx.Response]:
    """A request in flight; its answer comes later."""
    content = json.dumps(request).encode()
    return pool.submit(server.predict, model, content, headers={"content-type": "application/octet-stream"})


def ask(server: ServerProcess, model: str, **request: Any) -> dict[str, Any]:
    answer = server.predict(model, json.dumps(request).encode(), headers={"content-type": "application/octet-stream"})
    assert answer.status_code == 200, answer.text
    facts: dict[str, Any] = answer.json()
    return facts


def processes(server: ServerProcess, model: str) -> tuple[psutil.Process, list[psutil.Process]]:
    """The launcher of the model's only worker, and its two ranks in their order."""
    (worker,) = eventually(lambda: server.ready_workers(model))
    launcher = psutil.Process(worker["pid"]).parent()
    assert launcher is not None
    first = psutil.Process(worker["pid"])
    return launcher, [first, *(rank for rank in launcher.children() if rank != first)]


def await_others(server: ServerProcess, model: str, ranks: list[psutil.Process]) -> None:
    """Until another process serves than these."""
    old = [rank.pid for rank in ranks]
    eventually(lambda: any(worker["pid"] not in old for worker in server.ready_workers(model)))


def test_all_ranks_compute_and_the_first_one_answers(server: ServerProcess) -> None:
    description = server.describe("tp")
    assert (description["parallelType"], description["parallelLevel"]) == ("tp", 2)
    (worker,) = description["workers"]
    assert worker["id"] == "29500"
    lines = server.log("model_log.log").count("Backend received inference at: ")
    facts = ask(server, "tp", number=21)
    assert facts["sum"] == 42
    assert (facts["RANK"], facts["LOCAL_RANK"], facts["WORLD_SIZE"]) == ("0", "0", "2")
    assert (facts["OMP_NUM_THREADS"], facts["threads"], facts["LOGLEVEL"]) == ("2", 2, "INFO")
    assert facts["gpu"] is None
    assert facts["pid"] == worker["pid"]
    eventually(lambda: "skip sending response at rank 1" in server.log("model_log.log"))
    eventually(lambda: server.log("model_log.log").count("Backend received inference at: ") == lines + 2)
    assert list((server.directory / "logs" / "torchelastic_ts").glob("tp_29500_*"))
    command = eventually(lambda: next((line for line in server.lines if "Worker cmdline" in line), ""))
    assert "torch.distributed.run, --nnodes, 1, --nproc-per-node, 2, " in command


def test_the_death_of_the_launcher_is_the_death_of_all(server: ServerProcess) -> None:
    launcher, ranks = processes(server, "tp")
    launcher.kill()
    eventually(lambda: all(map(ended, [launcher, *ranks])))
    await_others(server, "tp", ranks)
    assert ask(server, "tp", number=1)["sum"] == 2
    server.says("W-29500-tp_1.0 died: out of memory: killed by SIGKILL")


def test_a_request_in_flight_learns_how_a_rank_died(server: ServerProcess) -> None:
    launcher, ranks = processes(server, "tp")
    with ThreadPoolExecutor(1) as pool:
        answer = begin(server, "tp", pool, wait=True)
        model = Path(ranks[0].cwd())
        eventually(lambda: (model / "begun0").exists())
        ranks[0].kill()
        body = answer.result().json()
    for file in model.glob("begun*"):
        file.unlink()
    assert (body["code"], body["message"]) == (507, "Worker died.")  # SIGKILL is taken for the kernel's, as ever
    assert body["cause"]["signal"] == "SIGKILL"
    assert body["cause"]["detail"].startswith("rank 0: killed by SIGKILL")
    eventually(lambda: all(map(ended, [launcher, *ranks])))
    await_others(server, "tp", ranks)


def test_the_exit_status_of_a_rank_is_told(server: ServerProcess) -> None:
    _, ranks = processes(server, "tp")
    answer = server.predict("tp", b'{"exit": 1, "wait": true}', headers={"content-type": "application/octet-stream"})
    assert (answer.status_code, answer.json()["message"]) == (500, "Worker died.")
    assert answer.json()["cause"]["exitCode"] == 3
    assert answer.json()["cause"]["detail"] == "rank 1: process exited with status 3"
    await_others(server, "tp", ranks)


def test_the_death_of_a_rank_is_the_death_of_all_and_of_what_they_have_started(server: ServerProcess) -> None:
    ask(server, "tp", start=0)
    ask(server, "tp", start=1)
    launcher, ranks = processes(server, "tp")
    tree = [*launcher.children(recursive=True), launcher]
    assert len(tree) == 5
    ranks[1].kill()
    eventually(lambda: all(map(ended, tree)))
    await_others(server, "tp", ranks)
    server.says("W-29500-tp_1.0 died: out of memory: rank 1: killed by SIGKILL")


def test_a_service_manager_that_signals_every_process_ends_no_rank(server: ServerProcess) -> None:
    launcher, ranks = processes(server, "tp")
    for process in (launcher, *ranks):
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
    assert ask(server, "tp", number=2)["sum"] == 4
    assert processes(server, "tp") == (launcher, ranks)


def test_only_the_first_rank_of_a_pipeline_gets_requests(server: ServerProcess) -> None:
    pack(server.store, "pp", SUM, config=TP.replace("tp", "pp"))
    assert server.register("pp.mar").status_code == 200, "a second rendezvous does not collide with the first"
    received = server.log("model_log.log").count("Backend received inference at: ")
    assert ask(server, "pp", number=5, alone=True)["sum"] == 5
    eventually(lambda: server.log("model_log.log").count("Backend received inference at: ") == received + 1)
    (worker,) = server.ready_workers("pp")
    assert worker["id"] == "29502"
    launcher, ranks = processes(server, "pp")
    assert server.request("DELETE", "/models/pp", "Management").status_code == 200
    eventually(lambda: all(map(ended, [launcher, *ranks])))


HALF = """
import torch.distributed as dist
import os

class Handler:
    def initialize(self, context):
        if os.environ["RANK"] == "1":
            raise ValueError("no weights for this rank")
        dist.init_process_group("gloo")  # waits for the other one

    def handle(self, data, context):
        return data
"""


def test_a_rank_that_cannot_load_is_the_reason(server: ServerProcess) -> None:
    pack(server.store, "half", HALF, config=TP)
    before = {process.pid for process in server.tree()}
    answer = server.register("half.mar")
    assert answer.status_code == 500
    cause = answer.json()["cause"]
    told = (cause["reason"], cause["detail"])
    assert told == ("exception in initialize", "rank 1: ValueError: no weights for this rank"), cause
    assert any("raise ValueError" in line for line in cause["traceback"])
    assert server.request("GET", "/models/half", "Management").status_code == 404
    eventually(lambda: {process.pid for process in server.tree()} <= before)


def test_nothing_is_left_when_the_server_is_killed(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        pack(server.store, "tp", SUM, config=TP)
        assert server.register("tp.mar").status_code == 200
        tree = server.tree()
        assert len(tree) == 5  # server, nursery, launcher, two ranks
        tree[0].kill()
        eventually(lambda: all(map(ended, tree)))


def test_ranks_of_a_dead_nursery_are_buried_with_it(server: ServerProcess) -> None:
    launcher, ranks = processes(server, "tp")
    nursery = launcher.parent()
    assert nursery is not None
    nursery.kill()
    eventually(lambda: not any(process.is_running() for process in (launcher, *ranks)))
    await_others(server, "tp", ranks)
    assert ask(server, "tp", number=1)["sum"] == 2


# Only the first rank knows who goes on; all of them note what they see.
STEPS = """
import json, os

class Handler:
    def initialize(self, context):
        self.rank = int(os.environ["LOCAL_RANK"])
        self.left = {}

    def handle(self, data, context):
        id = context.get_request_id(0)
        self.left[id] = self.left.get(id, 3) - 1
        with open(f"seen{self.rank}", "a") as seen:
            print(sorted(data[0]), file=seen)
        if not self.rank:
            context.stopping_criteria = [lambda _: self.left[id] < 1]
        return [str(self.left[id])]
"""


def test_all_ranks_get_the_steps_of_a_running_batch(server: ServerProcess) -> None:
    pack(server.store, "steps", STEPS, config=f"{TP}continuousBatching: true\n")
    assert server.register("steps.mar").status_code == 200, server.output
    assert server.predict("steps", b"x").text == "210"
    _, ranks = processes(server, "steps")
    notes = [Path(ranks[0].cwd(), f"seen{number}") for number in range(2)]
    eventually(lambda: all(note.exists() and note.read_text() == "['body']\n[]\n[]\n" for note in notes))
    assert server.predict("steps", b"x").text == "210"
    assert [rank.is_running() for rank in ranks] == [True, True]
    server.request("DELETE", "/models/steps", "Management")
