"""Workers on cores of their own."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from harness.archives import pack
from harness.server import ServerProcess, ended, eventually

pytest.importorskip("torch")
needs_binding = pytest.mark.skipif(
    not (shutil.which("lscpu") and (shutil.which("taskset") or shutil.which("numactl"))),
    reason="needs the programs lscpu and taskset, which the launcher uses",
)

CORES = """
import json, os, time

def handle(data, context):
    if data is None:
        return None
    if bytes(data[0]["body"]) == b"slow":
        open("begun", "w").close()
        while not os.path.exists("go"):
            time.sleep(0.01)
    return [json.dumps([sorted(os.sched_getaffinity(0)), os.environ["OMP_NUM_THREADS"]])] * len(data)
"""
BINARY = {"content-type": "application/octet-stream"}


@needs_binding
@pytest.mark.skipif((psutil.cpu_count(logical=False) or 1) < 2, reason="needs two cores to divide")
def test_scaling_divides_the_cores_and_answers_when_the_new_workers_serve(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, config={"cpu_launcher_enable": "true"}) as server:
        assert "launcherAvailable cmdline: [" in server.output
        pack(server.store, "m", CORES)
        assert server.register("m.mar").status_code == 200
        (old,) = server.ready_workers("m")
        answer = server.predict("m", b"", headers=BINARY)
        assert answer.status_code == 200, answer.text
        cores, threads = answer.json()
        assert int(threads) == psutil.cpu_count(logical=False)
        launcher = psutil.Process(old["pid"]).parent()
        assert launcher is not None
        assert "torch.backends.xeon.run_cpu" in launcher.cmdline()
        with ThreadPoolExecutor(2) as pool:
            running = pool.submit(server.predict, "m", b"slow", headers=BINARY)
            model = Path(psutil.Process(old["pid"]).cwd())
            eventually(lambda: (model / "begun").exists())
            scaling = pool.submit(server.scale, "m", 2)
            server.says("restarting 2 thread(s)")
            (model / "go").touch()
            assert running.result().json() == [cores, threads], "what runs is finished"
            assert scaling.result().json() == {"status": "Workers scaled to 2 for model: m"}
        server.says("removing 1 current thread(s) prior to restarting 2 thread(s)")
        assert ended(launcher)
        workers = server.ready_workers("m")
        assert [worker["id"] for worker in workers] == ["9001", "9002"]
        bound = [psutil.Process(worker["pid"]).cpu_affinity() for worker in workers]
        assert len({core for part in bound for core in part or ()}) == sum(len(part or ()) for part in bound)


@needs_binding
def test_a_launched_worker_recovers_and_tells_its_signal(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, config={"cpu_launcher_enable": "true"}) as server:
        pack(server.store, "m", CORES)
        assert server.register("m.mar").status_code == 200
        (old,) = server.ready_workers("m")
        process = psutil.Process(old["pid"])
        tree = [process, process.parent()]
        process.kill()
        eventually(lambda: all(ended(one) for one in tree if one is not None))
        eventually(lambda: [worker["pid"] for worker in server.ready_workers("m")] not in ([], [old["pid"]]))
        server.says("W-9000-m_1.0 died: out of memory: killed by SIGKILL")


def test_without_a_launcher_that_works_workers_start_without_it(tmp_path: Path) -> None:
    config = {"cpu_launcher_enable": "true", "cpu_launcher_args": "--node_id 0 --no-such-flag"}
    with ServerProcess(tmp_path, config=config) as server:
        assert "run_cpu, --node_id, 0, --no-such-flag, --no_python, hostname]" in server.output
        name = "torch.backends.xeon.run_cpu"
        assert (
            f"{name} is not available. Proceeding without worker core pinning. "
            f"For better performance, please make sure {name} is available."
        ) in server.output
        pack(server.store, "m", "def handle(data, context):\n    return data and ['ok']")
        assert server.register("m.mar").status_code == 200
        assert server.predict("m", b"x").text == "ok"
        assert not any("Worker cmdline" in line and name in line for line in server.lines)
