"""`debug=true`: the operator starts the workers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness.archives import ECHO, pack
from harness.server import ServerProcess, eventually

PREFIX = "debug=true: start worker 9000 by hand: "


def test_a_worker_started_from_the_model_log_serves(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, models=["echo=echo.mar"], config={"debug": "true"})
    pack(server.store, "echo", ECHO)
    with server:
        line = eventually(lambda: next((line for line in server.lines if PREFIX in line), ""))
        assert "MODEL_LOG" in line
        assert server.ready_workers("echo") == []
        command = "exec env " + line.partition(PREFIX)[2]
        with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, env=server.environment) as terminal:
            (worker,) = eventually(lambda: server.ready_workers("echo"))
            assert worker["pid"] == terminal.pid
            assert server.predict("echo", b"hello").text == "hello"
            assert server.scale("echo", 0).status_code == 200
            output, _ = terminal.communicate(timeout=60)
        assert b"Frontend disconnected." in output
        assert server.describe("echo")["workers"] == []
