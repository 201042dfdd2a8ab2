"""From `modelserver --start` to its end, with a real archive: the way of a first user."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from harness.archives import ECHO, NOOP, pack
from harness.server import ServerProcess, ended, eventually

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def test_start_predict_stop(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, models=["echo=echo.mar"], config={"default_workers_per_model": 1})
    pack(server.store, "echo", ECHO)
    with server:
        ping = server.request("GET", "/ping")
        assert (ping.status_code, ping.text) == (200, '{\n  "status": "Healthy"\n}\n')
        assert ping.headers["content-type"] == "application/json"
        assert UUID.fullmatch(ping.headers["x-request-id"])
        assert ping.headers["pragma"] == "no-cache"

        answer = server.predict("echo", b'{"a": [1]}', headers={"content-type": "application/json"})
        assert (answer.status_code, answer.text) == (200, '{\n  "a": [\n    1\n  ]\n}')
        assert "content-type" not in answer.headers

        description = server.describe("echo")
        assert description["loadedAtStartup"] is True
        (worker,) = description["workers"]
        assert (worker["id"], worker["status"]) == ("9000", "READY")
        assert psutil.Process(worker["pid"]).cwd().startswith(str(server.temp / "models"))

        missing = server.predict("nope")
        assert missing.status_code == 404
        assert missing.json() == {
            "code": 404,
            "type": "ModelNotFoundException",
            "message": "Model not found: nope",
        }
        assert missing.headers["connection"] == "close"
        assert server.stop() == 0
    assert "Torchserve stopped." in server.lines[-1]
    assert list((server.temp / "models").iterdir()) == []
    assert not [path for path in server.temp.iterdir() if path.name != "models" and not path.name.endswith(".pid")]


def test_register_scale_versions_and_unregister(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        pack(server.store, "m", NOOP)
        pack(server.store, "m", ECHO, version="2.0", archive="m2")
        registered = server.register("m.mar")
        assert registered.json() == {"status": 'Model "m" Version: 1.0 registered with 1 initial workers'}
        assert server.register("m.mar").json()["message"] == "Model version 1.0 is already registered for model m"
        assert server.register("m2.mar", model_name="m").status_code == 200

        assert server.predict("m", b"x").text == "ok"
        assert server.predict("m/2.0", b"x").text == "x"
        default = server.request("PUT", "/models/m/2.0/set-default", "Management")
        assert default.json()["status"] == 'Default version successfully updated for model "m" to "2.0"'
        assert server.predict("m", b"x").text == "x"

        scaled = server.scale("m", 3)
        assert scaled.json() == {"status": "Workers scaled to 3 for model: m"}
        workers = server.ready_workers("m")
        assert [worker["id"] for worker in workers] == ["9001", "9002", "9003"]
        assert server.scale("m", 1).status_code == 200
        assert [worker["id"] for worker in server.ready_workers("m")] == ["9001"]
        assert not psutil.pid_exists(workers[2]["pid"])

        assert server.request("DELETE", "/models/m/2.0", "Management").status_code == 403
        gone = server.request("DELETE", "/models/m/1.0", "Management")
        assert gone.json() == {"status": 'Model "m" unregistered'}
        assert server.request("DELETE", "/models/m", "Management").status_code == 200
        assert server.request("GET", "/models", "Management").json() == {"models": []}
        eventually(lambda: not list((server.temp / "models").iterdir()))


SLOW = """
import time
def handle(data, context):
    if data is not None:
        open("started", "w").close()
        time.sleep(1)
        return ["done"] * len(data)
"""


def test_unregistering_lets_accepted_work_finish(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        pack(server.store, "slow", SLOW)
        server.register("slow.mar")
        with ThreadPoolExecutor(2) as clients:
            calls = [clients.submit(server.predict, "slow") for _ in range(2)]
            eventually(lambda: list((server.temp / "models").glob("*/started")))
            eventually(lambda: server.describe("slow")["jobQueueStatus"]["pendingRequests"] == 1)
            assert server.request("DELETE", "/models/slow", "Management").status_code == 200
            assert server.predict("slow").status_code == 404
            assert [call.result().text for call in calls] == ["done", "done"]


def test_stop_finishes_the_running_request(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        pack(server.store, "slow", SLOW)
        server.register("slow.mar")
        with ThreadPoolExecutor(1) as clients:
            call = clients.submit(server.predict, "slow")
            eventually(lambda: list((server.temp / "models").glob("*/started")))
            assert server.stop() == 0
            assert call.result().text == "done"


def test_sigkill_of_the_frontend_leaves_no_process(tmp_path: Path) -> None:
    with ServerProcess(tmp_path) as server:
        pack(server.store, "m", NOOP)
        server.register("m.mar", workers=2)
        tree = server.tree()
        assert len(tree) >= 4, "frontend, nursery and two workers"
        server.stop(signal.SIGKILL)
        assert all(map(ended, tree))


def test_a_port_in_use_fails_before_any_model_loads(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        server = ServerProcess(tmp_path, models=["m=m.mar"], config={"management_address": address})
        pack(server.store, "m", NOOP)
        server.start(wait=False)
        assert server.wait() == 1
    assert f"Failed to bind to address: {address}: Address already in use" in server.output
    assert "Loading initial models" not in server.output
    assert not (server.temp / "models").exists()


def test_one_failing_start_up_model_does_not_keep_the_others(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, models=["bad.mar", "nowhere.mar", "good.mar"])
    pack(server.store, "good", NOOP)
    (server.store / "bad.mar").write_bytes(b"no zip")
    with server:
        assert "Failed to load model: nowhere.mar" in server.output
        assert "ModelNotFoundException: Model not found at: nowhere.mar" in server.output
        assert "Failed to load model: bad.mar" in server.output
        assert server.predict("good").text == "ok"


def test_a_closed_console_pipe_does_not_disturb_the_server(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, models=["m=m.mar"])
    pack(server.store, "m", NOOP)
    process = subprocess.Popen(
        server.command, cwd=server.directory, env=server.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert process.stdout is not None
    with process.stdout as console:
        for line in console:
            server.lines.append(line.decode().rstrip())
            if server.started:
                break
    try:
        for _ in range(5):
            assert server.predict("m").text == "ok"
    finally:
        process.terminate()
    assert process.wait(60) == 0
