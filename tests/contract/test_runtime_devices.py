"""Which devices workers get, in how many processes they run, and how the CPU launcher starts them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from contract.server import ContractServer, start
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed

# Answers as the tool does on a machine with three GPUs.
NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *utilization*) echo 'utilization.gpu [%], utilization.memory [%], memory.used [MiB]'; echo '0 %, 0 %, 11 MiB';;
  *noheader*) printf '0\\n1\\n2\\n';;
  *) printf 'index\\n0\\n1\\n2\\n';;
esac
"""
RANKS = """
parallelType: {kind}
deviceType: {device}
torchrun:
  nproc-per-node: {ranks}
  OMP_NUMBER_THREADS: 3
"""


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory for PATH that makes a server believe in three GPUs."""
    directory = tmp_path_factory.mktemp("tools")
    (directory / "nvidia-smi").write_text(NVIDIA_SMI)
    (directory / "nvidia-smi").chmod(0o755)
    return directory


@pytest.fixture(scope="module")
def gpus(tools: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    with ExitStack() as stack:
        yield start(stack, tmp_path_factory.mktemp("server"), tools=[tools])


@check("runtime", 24)
@fixed("first gpu")
def test_workers_go_round_the_gpus(tools: Path, start_server: Callable[..., ContractServer]) -> None:
    """One round for the whole server, which begins at 0; describe shows the use of each GPU."""
    server = start_server(tools=[tools])
    assert "Number of GPUs: 3" in server.output
    with server.model("plain", workers=4):
        assert [facts["gpu_id"] for facts in server.facts("plain", 4)] == [0, 1, 2, 0]
        assert server.describe("plain")["deviceType"] == "gpu"
        first, second, *_ = server.workers("plain")
        assert first["gpu"] is True
        usage = "utilization.gpu [%]::0 % utilization.memory [%]::0 % memory.used [MiB]::11 MiB"
        assert (first["gpuUsage"], second["gpuUsage"]) == (f"gpuId::0 {usage}", f"gpuId::1 {usage}")


@check("runtime", 24)
def test_a_model_may_name_its_devices(gpus: ContractServer) -> None:
    """Its workers go round these."""
    with gpus.model("picky", workers=4, config="deviceIds: [2, 0]\n"):
        facts = gpus.facts("picky", 4)
        assert [worker["gpu_id"] for worker in facts] == [2, 0, 2, 0]
        assert not any("CUDA_VISIBLE_DEVICES" in worker["environment"] for worker in facts)


@check("runtime", 24)
def test_a_model_may_stay_off_the_gpus(gpus: ContractServer) -> None:
    """Even if it names devices."""
    with gpus.model("modest", config="deviceType: cpu\ndeviceIds: [1]\n"):
        assert gpus.facts("modest", 1)[0]["gpu_id"] is None
        assert gpus.describe("modest")["deviceType"] == "cpu"
        (worker,) = gpus.workers("modest")
        assert (worker["gpu"], worker["gpuUsage"]) == (False, "N/A")


def test_devices_that_do_not_exist_are_ignored(gpus: ContractServer) -> None:
    """With the whole list, and a warning."""
    with gpus.model("dreamer", config="deviceIds: [1, 3]\n"):
        gpus.logs("ts_log.log", "Invalid deviceId:3, ignore deviceIds list")


@check("runtime", 24)
def test_a_parallel_worker_sees_its_slice_of_the_devices(gpus: ContractServer) -> None:
    """In the order in which the model names them."""
    config = "deviceIds: [2, 1]\n" + RANKS.format(kind="tp", device="gpu", ranks=2)
    with gpus.model("sliced", config=config):
        facts = gpus.ask("sliced", do="facts").json()
        assert facts["environment"]["CUDA_VISIBLE_DEVICES"] == "2,1"
        assert facts["gpu_id"] == 0


@check("runtime", 25)
@fixed("failed registration")
def test_more_ranks_than_gpus_cannot_be_registered(gpus: ContractServer) -> None:
    """The message names both, and nothing stays."""
    gpus.prepare("greedy", config=RANKS.format(kind="tp", device="gpu", ranks=4))
    answer = gpus.register("greedy.mar")
    body = answer.json()
    assert (answer.status_code, body["code"], body["type"]) == (500, 500, "WorkerInitializationException")
    assert body["message"] == "No enough gpu devices for model:greedy parallelLevel:4"
    assert gpus.status_of("greedy") == 404


@check("runtime", 23)
@check("model config", 14)
@check("model config", 15)
@pytest.mark.parametrize(("kind", "ranks", "receivers"), [("tp", 4, 4), ("pp", 2, 1)])
def test_ranks_of_a_parallel_worker(server: ContractServer, kind: str, ranks: int, receivers: int) -> None:
    """Tensor parallel ranks all get a request, of a pipeline only the first does; its answer counts."""
    name = f"ranked-{kind}"
    with server.model(name, config=RANKS.format(kind=kind, device="cpu", ranks=ranks)):
        assert server.describe(name)["parallelLevel"] == ranks
        facts = server.ask(name, do="facts", id="one").json()
        told = {variable: facts["environment"][variable] for variable in ("RANK", "LOCAL_RANK", "WORLD_SIZE")}
        assert told == {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": str(ranks)}
        assert facts["environment"]["OMP_NUM_THREADS"] == "3"
        begun = eventually(lambda: pids if len(pids := begin_pids(server, name)) == receivers else set())
        assert facts["pid"] in begun
        eventually(lambda: received(server, name) >= receivers)
        assert received(server, name) == receivers
        (worker,) = server.workers(name)
        assert int(worker["id"]) >= 29500
        assert list((server.directory / "logs" / "torchelastic_ts").glob(f"{name}_{worker['id']}_*"))


def begin_pids(server: ContractServer, model: str) -> set[int]:
    return {call["pid"] for call in server.calls(model) if call["step"] == "begin"}


def received(server: ContractServer, model: str) -> int:
    return sum("Backend received inference at" in line for line in server.model_log(model))


@check("runtime", 27)
def test_the_cpu_launcher_wraps_workers(start_server: Callable[..., ContractServer]) -> None:
    """Scaling starts all of them anew, so that the cores are divided again."""
    server = start_server(config={"cpu_launcher_enable": "true"})
    with server.model("pinned"):
        (worker,) = server.ready("pinned")
        (line,) = [
            line for line in server.logged(worker["id"], "^Worker cmdline: ") if line.startswith("Worker cmdline: ")
        ]
        assert "torch.backends.xeon.run_cpu" in line
        assert server.scale("pinned", 2).status_code == 200
        workers = server.ready("pinned", 2)
        assert worker["pid"] not in [fresh["pid"] for fresh in workers]
        eventually(lambda: not psutil.pid_exists(worker["pid"]))
        assert server.ask("pinned", id="served").text == "served"


@check("runtime", 27)
@fixed("launcher and scaling")
def test_scaling_under_the_cpu_launcher_waits_for_workers(start_server: Callable[..., ContractServer]) -> None:
    """As it does without one."""
    server = start_server(config={"cpu_launcher_enable": "true"})
    with server.model("awaited"):
        server.ready("awaited")
        assert server.scale("awaited", 2).status_code == 200
        assert len(server.ready_workers("awaited")) == 2
