"""GPUs of a machine whose nvidia-smi only pretends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from harness.archives import pack
from harness.server import ServerProcess

# Answers for four GPUs; asked how busy one is, it names the one it was asked for, or hangs.
NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *utilization*)
    test -e "$0.hang" && exec sleep 600
    test -e "$0.fail" && exit 9
    printf 'utilization.gpu [%], utilization.memory [%], memory.used [MiB]\\n'
    echo "$2 %, 0 %, 11 MiB";;
  *) printf 'index\\n0\\n1\\n2\\n3\\n';;
esac
"""
DEVICE = """
import json, os

class Handler:
    def initialize(self, context):
        self.gpu = context.system_properties.get("gpu_id")

    def handle(self, data, context):
        return [json.dumps([self.gpu, os.environ.get("CUDA_VISIBLE_DEVICES")])] * len(data)
"""


def server_with_gpus(directory: Path, visible: str | None = None) -> ServerProcess:
    tools = directory / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(NVIDIA_SMI.replace("[%]", "[%%]"))
    (tools / "nvidia-smi").chmod(0o755)
    environment = {"PATH": f"{tools}:{os.environ['PATH']}"}
    if visible is not None:
        environment["CUDA_VISIBLE_DEVICES"] = visible
    return ServerProcess(directory, environment=environment)


def test_workers_count_the_gpus_that_the_server_sees(tmp_path: Path) -> None:
    """A plain worker sees the server's list and gets an index into it; a parallel one sees its part of the list."""
    with server_with_gpus(tmp_path, visible="GPU-8932f937,2,3") as server:
        assert "Number of GPUs: 3" in server.output
        pack(server.store, "plain", DEVICE)
        pack(server.store, "both", DEVICE, config="parallelType: custom\nparallelLevel: 2\n")
        pack(server.store, "listed", DEVICE, config="parallelType: custom\nparallelLevel: 2\ndeviceIds: [2, 0]\n")
        for archive in ("plain", "both", "listed"):
            assert server.register(f"{archive}.mar").status_code == 200
        assert server.predict("plain", b"x").json() == [0, "GPU-8932f937,2,3"]
        assert server.predict("both", b"x").json() == [0, "GPU-8932f937,2"]
        assert server.predict("listed", b"x").json() == [0, "3,GPU-8932f937"]
        columns = "utilization.memory [%]::0 % memory.used [MiB]::11 MiB"
        (worker,) = server.describe("plain")["workers"]
        assert (worker["gpu"], worker["gpuUsage"]) == (True, f"gpuId::0 utilization.gpu [%]::GPU-8932f937 % {columns}")
        (worker,) = server.describe("listed")["workers"]
        assert worker["gpuUsage"] == f"gpuId::2 utilization.gpu [%]::3 % {columns}"
        assert worker["id"] == "29502"


@pytest.mark.parametrize("trouble", ["hang", "fail"])
def test_a_broken_tool_delays_no_description_for_long(tmp_path: Path, trouble: str) -> None:
    with server_with_gpus(tmp_path) as server:
        pack(server.store, "m", DEVICE)
        assert server.register("m.mar").status_code == 200
        (tmp_path / "tools" / f"nvidia-smi.{trouble}").touch()
        (worker,) = server.describe("m")["workers"]
        assert worker["gpuUsage"] == "failed to obtained gpu usage"
        assert server.predict("m", b"x").json() == [0, None]


def test_an_impossible_visible_device_ends_the_start(tmp_path: Path) -> None:
    server = server_with_gpus(tmp_path, visible="all")
    server.start(wait=False)
    assert server.wait() == 1
    text = "Invalid format: The env defining visible devices must be integers separated by commas"
    assert text in server.output
