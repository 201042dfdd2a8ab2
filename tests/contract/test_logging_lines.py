"""What a server without a log configuration writes: its files, its lines, and what tools look for in them."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from contract.grpc_server import GrpcServer
from contract.logging_server import FILES, LONG, console, make_logging
from contract.server import PATIENCE, ContractServer
from harness.archives import ECHO, pack
from harness.server import eventually
from harness.stubs import module

check = pytest.mark.check
fixed = pytest.mark.fixed

TALKER = """
import logging
import sys

logger = logging.getLogger(__name__)


def handle(data, context):
    if data is None:
        return None
    print("x")
    sys.stderr.write("y\\n")
    logger.warning("z")
    logger.debug("hidden")
    print("[METRICS]Talks.Count:1|#Level:Model|#type:COUNTER|#hostname:h,1,id")
    print("a\\nb")
    print("")
    print("end", flush=True)
    return ["ok"] * len(data)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    with ExitStack() as stack:
        yield stack.enter_context(make_logging(tmp_path_factory.mktemp("server")))


@pytest.fixture(scope="module")
def talker(server: ContractServer) -> str:
    """A model that has printed everything once."""
    pack(server.store, "talker", TALKER)
    assert server.register("talker.mar").status_code == 200
    assert server.predict("talker").text == "ok"
    eventually(lambda: "MODEL_LOG - end" in server.log("model_log.log"))
    eventually(lambda: "MODEL_LOG - y" in server.log("model_log.log"))
    return "talker"


@check("logging", 1)
def test_files_are_there_before_the_first_request(server: ContractServer) -> None:
    logs = server.directory / "logs"
    assert sorted(path.name for path in logs.glob("*.log")) == FILES
    eventually(lambda: list((logs / "config").glob("*-startup.cfg")))


@check("logging", 2)
def test_every_line_that_begins_with_a_digit_has_the_form(server: ContractServer, talker: str) -> None:
    assert [line for line in server.lines if line[:1].isdigit() and not LONG.match(line)] == []


@check("logging", 3)
def test_ready_line_follows_the_addresses(server: ContractServer) -> None:
    ready = server.lines.index("Model server started.")
    for api in ("Inference", "Management", "Metrics"):
        (bound,) = (place for place, line in enumerate(server.lines) if f" - {api} API bind to: http://" in line)
        assert bound < ready
        assert any(f" - Initialize {api} server with: " in line for line in server.lines[:bound])


@check("logging", 4)
def test_access_lines_of_http(server: ContractServer) -> None:
    assert server.ping() == 200
    form = r'/127\.0\.0\.1:\d+ "GET /ping HTTP/1\.1" 200 \d+'
    line = eventually(lambda: re.search(rf"^\S+ - ({form})$", server.log("access_log.log"), re.MULTILINE))
    assert line is not None
    eventually(lambda: any(each.endswith(f" ACCESS_LOG - {line[1]}") for each in console(server)))


def test_access_lines_tell_the_target_as_it_came(server: ContractServer) -> None:
    assert server.request("GET", "/metrics?name%5B%5D=X", "Metrics").status_code == 200
    assert server.request("GET", "/nothing/here").status_code == 404
    eventually(lambda: '"GET /metrics?name%5B%5D=X HTTP/1.1" 200 ' in server.log("access_log.log"))
    eventually(lambda: '"GET /nothing/here HTTP/1.1" 404 ' in server.log("access_log.log"))


@check("logging", 5)
def test_access_lines_of_grpc(server: ContractServer) -> None:
    with ExitStack() as stack:
        GrpcServer(server, stack).inference().Ping(
            module("inference_pb2").google_dot_protobuf_dot_empty__pb2.Empty(), timeout=PATIENCE
        )
    line = r'"gRPC org\.pytorch\.serve\.grpc\.inference\.InferenceAPIsService/Ping HTTP/2\.0" 0 \d+$'
    eventually(lambda: re.search(line, server.log("access_log.log"), re.MULTILINE))


@check("logging", 6)
@pytest.mark.parametrize(
    ("stream", "level", "text"), [("stdout", "INFO ", "x"), ("stderr", "WARN ", "y"), ("stdout", "INFO ", "z")]
)
def test_printed_lines(server: ContractServer, talker: str, stream: str, level: str, text: str) -> None:
    line = rf"\[{level}\] W-\d+-talker_1\.0-{stream} MODEL_LOG - {text}$"
    assert "hidden" not in server.logs("model_log.log", line)


@check("logging", 7)
def test_printed_metrics_are_no_model_log(server: ContractServer, talker: str) -> None:
    assert "Talks.Count" not in server.log("model_log.log")


@check("logging", 18)
def test_every_printed_line_is_an_event(server: ContractServer, talker: str) -> None:
    own = [line for line in server.log("model_log.log").splitlines() if "-talker_1.0-stdout MODEL_LOG" in line]
    messages = [line.partition(" MODEL_LOG - ")[2] for line in own]
    assert messages[messages.index("a") :][:4] == ["a", "b", "", "end"]


@check("logging", 8)
def test_traceback_of_every_attempt_to_load_is_on_the_console(server: ContractServer) -> None:
    server.prepare("hopeless", starting="raise")
    server.register("hopeless.mar", synchronous="false")

    def tracebacks() -> int:
        return sum("-hopeless_1.0-stdout MODEL_LOG - ValueError: weights are gone" in line for line in server.lines)

    eventually(lambda: tracebacks() >= 2)
    own = [line for line in server.lines if "-hopeless_1.0-stdout MODEL_LOG - " in line]
    assert any("Traceback (most recent call last):" in line for line in own)
    server.delete("hopeless")


@check("logging", 9)
def test_death_and_recovery_of_a_worker_are_on_the_console(server: ContractServer) -> None:
    with server.model("mortal"):
        (worker,) = server.ready_workers("mortal")
        os.kill(worker["pid"], signal.SIGKILL)
        server.logged(
            worker["id"],
            "Worker disconnected",
            "Auto recovery start timestamp: \\d{13}",
            f"Retry worker: {worker['id']} in",
            "Auto recovery succeeded, reset recoveryStartTS",
        )
        for stream in ("stdout", "stderr"):
            server.says(f"Stopped Scanner - W-{worker['id']}-mortal_1.0-{stream}")


@check("logging", 17)
def test_command_line_of_a_worker(server: ContractServer, talker: str) -> None:
    form = r" \[DEBUG\] W-\d+-talker_1\.0 org\.pytorch\.serve\.wlm\.WorkerLifeCycle - Worker cmdline: \[(.+)\]$"
    found = re.search(form, server.logs("ts_log.log", form), re.MULTILINE)
    assert found is not None
    assert len(found[1].split(", ")) > 2
    assert Path(found[1].split(", ")[0]).name.startswith("python")


@pytest.mark.parametrize(
    ("logger", "level", "message"),
    [
        ("wlm.ModelManager", "INFO ", "Model talker loaded."),
        ("wlm.ModelVersionedRefs", "DEBUG", "Adding new version 1.0 for model talker"),
        ("wlm.ModelVersionedRefs", "DEBUG", "Setting default version to 1.0 for model talker"),
        ("wlm.ModelManager", "DEBUG", "updateModel: talker, count: 1"),
        ("wlm.WorkerThread", "DEBUG", r"W-\d+-talker_1\.0 State change null -> WORKER_STARTED"),
        ("wlm.WorkerThread", "DEBUG", r"W-\d+-talker_1\.0 State change WORKER_STARTED -> WORKER_MODEL_LOADED"),
        ("wlm.WorkerThread", "DEBUG", r"Flushing req\.cmd LOAD repeats 1 to backend at: \d{13}"),
        ("wlm.WorkerThread", "INFO ", r"Looping backend response at: \d{13}"),
        ("wlm.WorkerThread", "INFO ", r"Backend response time: \d+"),
        ("wlm.BatchAggregator", "INFO ", r"Sending response for jobId \S+"),
    ],
)
def test_messages_that_tools_look_for(
    server: ContractServer, talker: str, logger: str, level: str, message: str
) -> None:
    form = rf" \[{level}\] \S+ org\.pytorch\.serve\.{re.escape(logger)} - {message}$"
    eventually(lambda: re.search(form, server.log("ts_log.log"), re.MULTILINE))


def test_every_request_under_load_has_its_lines(server: ContractServer) -> None:
    """Lines that cannot be written in time would be counted in the log; here none is missing."""
    clients, each = 8, 150
    pack(server.store, "busy", ECHO)
    assert server.register("busy.mar").status_code == 200

    def ask(client: int) -> None:
        with httpx.Client(base_url=server.url(), timeout=PATIENCE) as connection:
            for number in range(each):
                answer = connection.post("/predictions/busy", content=f"{client} {number}")
                assert answer.status_code == 200, answer.text

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(ask, range(clients)))
    total = clients * each
    eventually(lambda: server.log("access_log.log").count('"POST /predictions/busy HTTP/1.1" 200 ') >= total)
    eventually(lambda: server.log("ts_metrics.log").count("ts_queue_latency_microseconds.Microseconds:") >= total)
    eventually(
        lambda: len(re.findall(r"-busy_1\.0-stdout .* - Backend received inf", server.log("ts_log.log"))) >= total
    )
    assert server.log("access_log.log").count('"POST /predictions/busy HTTP/1.1" 200 ') == total
    assert "came faster than they could be written" not in server.log("ts_log.log")


@fixed("server lines once")
def test_lines_of_the_server_are_in_their_file_once(server: ContractServer, talker: str) -> None:
    assert server.log("ts_log.log").count("Adding new version 1.0 for model talker") == 1


@fixed("debug lines of requests")
def test_no_debug_lines_of_requests_unless_asked_for(server: ContractServer, talker: str) -> None:
    assert "Waiting time ns" not in server.log("ts_log.log")
    assert "req.cmd PREDICT" not in server.log("ts_log.log")


@fixed("last words")
def test_the_end_is_logged(tmp_path: Path) -> None:
    with make_logging(tmp_path) as server:
        pass
    assert server.log("ts_log.log").endswith(" - Torchserve stopped.\n")
