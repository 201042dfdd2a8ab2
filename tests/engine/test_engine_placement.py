"""Which GPUs workers get, and what starts them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any

import pytest

from harness.scene import Journal, MemoryPort
from modelserver.archives.dependencies import Dependencies
from modelserver.archives.store import ArchiveStore
from modelserver.engine.assembly import Assembly
from modelserver.engine.engine import Engine
from modelserver.engine.launchers import cpu_launcher, torchrun
from modelserver.engine.placement import Placement, Seat, Slices
from modelserver.engine.requests import Registration
from modelserver.errors import ModelNotFound, WorkerInitialization
from modelserver.settings.table import Settings
from modelserver.settings.torchrun import Torchrun
from modelserver.wire.frames import Load


def starts(slices: Slices, count: int) -> list[int]:
    return [slices.take()[0] for _ in range(count)]


def test_slices_go_round_from_zero() -> None:
    slices = Placement(4).slices("gpu", None, 2)
    assert slices is not None
    assert slices.capacity == 2
    assert [slices.take() for _ in range(3)] == [(0, range(2)), (2, range(2, 4)), (0, range(2))]


def test_slices_are_whole_even_if_the_level_does_not_divide_the_number_of_gpus() -> None:
    assert starts(Slices(range(5), 2), 4) == [0, 2, 0, 2]


def test_a_worker_gets_a_free_slice() -> None:
    slices = Slices(range(6), 2)
    assert starts(slices, 2) == [0, 2]
    slices.release(2)
    assert starts(slices, 1) == [4], "round robin while there is a choice"
    slices.release(4)
    assert starts(slices, 2) == [2, 4], "never the one that is taken"


def test_listed_devices_are_sliced_in_their_order() -> None:
    placement = Placement(4)
    slices = placement.slices("gpu", (3, 1, 2, 0), 2)
    assert slices is not None
    seats = [placement.seat(*slices.take()) for _ in range(2)]
    assert seats == [Seat(0, 3, {"CUDA_VISIBLE_DEVICES": "3,1"}), Seat(2, 2, {"CUDA_VISIBLE_DEVICES": "2,0"})]


def test_devices_go_by_the_names_that_the_server_was_given() -> None:
    """A subset of the machine's, or UUIDs: indexes into the server's list would name others."""
    placement = Placement(2, "HIP_VISIBLE_DEVICES", ["GPU-a", "7"])
    assert placement.seat(0, [0, 1]).environment == {"HIP_VISIBLE_DEVICES": "GPU-a,7"}


@pytest.mark.parametrize(("device_type", "gpus", "level"), [("cpu", 4, 2), ("gpu", 0, 2), ("gpu", 4, 0)])
def test_no_slices_on_cpu_and_without_parallelism(device_type: str, gpus: int, level: int) -> None:
    assert Placement(gpus).slices(device_type, None, level) is None


def test_torchrun_meets_at_a_port_of_its_own() -> None:
    launch = torchrun(Torchrun(nproc_per_node=2), "tp", "m_29500", Path("/logs"))
    assert (launch.ranks, launch.to_all_ranks) == (2, True)
    assert launch.environment == {"LOGLEVEL": "INFO", "OMP_NUM_THREADS": "1"}
    assert " ".join(launch.arguments) == (
        "-m torch.distributed.run --nnodes 1 --nproc-per-node 2 --log-dir /logs/torchelastic_ts --rdzv-backend c10d "
        "--rdzv-endpoint localhost:0 --rdzv-id m_29500 --monitor-interval 1 --max-restarts 0"
    )


def test_torchrun_is_told_what_the_model_states() -> None:
    options = Torchrun(
        nnodes=2,
        nproc_per_node=4,
        rdzv_backend="c10d",
        rdzv_endpoint="host:1234",
        rdzv_conf="timeout=9",
        monitor_interval=7,
        node_rank=1,
        omp_number_threads=3,
    )
    launch = torchrun(options, "pp", "m_29500", Path("/logs"))
    text = " ".join(launch.arguments)
    assert not launch.to_all_ranks
    assert launch.environment["OMP_NUM_THREADS"] == "3"
    for part in ("--nnodes 2", "--rdzv-endpoint host:1234", "--rdzv-conf timeout=9", "--node-rank 1", "interval 7"):
        assert part in text


@pytest.mark.parametrize("options", [Torchrun(nnodes=2), Torchrun(rdzv_backend="etcd")])
def test_a_rendezvous_of_several_nodes_is_left_to_the_model(options: Torchrun) -> None:
    assert "--rdzv-endpoint" not in torchrun(options, "tp", "m_29500", Path("/logs")).arguments


def test_the_cpu_launcher_divides_the_cores() -> None:
    assert cpu_launcher(["--node_id", "0"], 1, 0).arguments == (
        "-m",
        "torch.backends.xeon.run_cpu",
        "--node_id",
        "0",
    )
    assert cpu_launcher([], 3, 2).arguments[2:] == ("--ninstances", "3", "--rank", "2")


class Gauge:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    async def read(self, gpus: Collection[int]) -> dict[int, str]:
        self.asked += sorted(gpus)
        return {gpu: f"gpuId::{gpu}" for gpu in gpus}


class House:
    """An engine on a machine with some GPUs and eight cores; its workers live in memory."""

    def __init__(self, path: Path, gpus: int, names: list[str], cpu_launcher: list[str] | None) -> None:
        self.settings = Settings(model_store=path / "store", temp_dir=path / "temp", log_location=path / "logs")
        self.port = MemoryPort()
        self.journal = Journal()
        self.gauge = Gauge()
        assembly = Assembly(
            self.settings,
            placement=Placement(gpus, "CUDA_VISIBLE_DEVICES", names),
            port=self.port,
            events=self.journal,
            cpus=8,
            environ={},
            cpu_launcher=cpu_launcher,
        )
        store = ArchiveStore(self.settings.model_store, self.settings.temp_dir, [])
        dependencies = Dependencies(enabled=False, temp_dir=path / "temp", environment={}, hidden=None)
        self.engine = Engine(self.settings, store, dependencies, assembly, self.journal, self.gauge)

    async def register(self, name: str, workers: int = 1, config: dict[str, Any] | None = None) -> str:
        """Returns what the answer says."""
        assert self.settings.model_store is not None
        directory = self.settings.model_store / name
        (directory / "MAR-INF").mkdir(parents=True)
        model = {"modelName": name, "modelVersion": "1.0", "handler": "h.py", "configFile": "c.yaml"}
        (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": model}))
        (directory / "c.yaml").write_text(json.dumps(config or {}))
        (directory / "h.py").touch()
        registered = await self.engine.register(Registration(url=name, initial_workers=workers))
        return f"{registered.workers} workers"

    def gpus(self) -> list[int | None]:
        """As the workers were told, in the order of their start."""
        loads = [frame for worker in self.port.workers for frame in worker.frames if isinstance(frame, Load)]
        return [load.gpu for load in loads]


def play(
    path: Path,
    scene: Callable[[House], Awaitable[None]],
    *,
    gpus: int = 0,
    names: tuple[str, ...] = (),
    cpu_launcher: list[str] | None = None,
) -> None:
    """Run a scene in a house of its own."""

    async def main() -> None:
        await asyncio.wait_for(scene(House(path, gpus, list(names), cpu_launcher)), 20)

    asyncio.run(main())


def test_plain_workers_share_one_round_and_keep_the_servers_environment(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register("a", 2)
        await house.register("b", 3)
        await house.register("c", 3, {"deviceIds": [2, 0]})
        await house.register("d", 1, {"deviceType": "cpu", "deviceIds": [1]})
        assert house.gpus() == [0, 1, 2, 0, 1, 2, 0, 2, None]
        assert all(worker.spec.environment == {} for worker in house.port.workers)
        (status,) = await house.engine.observe("c", None)
        assert [(worker.gpu, worker.gpu_usage) for worker in status.workers] == [
            (2, "gpuId::2"),
            (0, "gpuId::0"),
            (2, "gpuId::2"),
        ]
        assert house.gauge.asked == [0, 2]
        (status,) = await house.engine.observe("d", None)
        assert (status.workers[0].gpu, status.workers[0].gpu_usage) == (None, "")

    play(tmp_path, scene, gpus=3)


def test_a_new_process_stays_on_its_gpu(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register("a", 2)
        house.port.workers[1].die()
        await asyncio.sleep(0)
        while len(house.port.workers) < 3 or not house.port.workers[2].frames:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert house.gpus() == [0, 1, 1]

    play(tmp_path, scene, gpus=3)


def test_parallel_workers_get_slices_and_ids_of_their_own(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        config = {"parallelType": "tp", "torchrun": {"nproc-per-node": 2, "OMP_NUMBER_THREADS": 3}}
        assert await house.register("a", 2, config) == "2 workers"
        first, second = (worker.spec for worker in house.port.workers)
        assert (first.slot, second.slot) == (29500, 29502)
        assert (first.environment["CUDA_VISIBLE_DEVICES"], second.environment["CUDA_VISIBLE_DEVICES"]) == (
            "5,GPU-x",
            "7,0",
        )
        assert first.environment["OMP_NUM_THREADS"] == "3"
        assert (first.threads, first.ranks, first.to_all_ranks) == (3, 2, True)
        assert "a_29502" in second.launcher
        assert house.gpus() == [0, 2]
        await house.register("b")
        assert house.port.workers[2].spec.slot == 9000

    play(tmp_path, scene, gpus=4, names=("5", "GPU-x", "7", "0"))


def test_a_custom_parallel_worker_is_one_process_with_several_gpus(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register("a", 1, {"parallelType": "custom", "parallelLevel": 2, "deviceIds": [3, 1]})
        (worker,) = house.port.workers
        assert (worker.spec.slot, worker.spec.launcher, worker.spec.ranks) == (29500, (), 1)
        assert worker.spec.environment == {"CUDA_VISIBLE_DEVICES": "3,1"}
        assert house.gpus() == [0]
        assert (await house.engine.observe("a", None))[0].workers[0].gpu_usage == "gpuId::3"

    play(tmp_path, scene, gpus=4)


def test_parallel_workers_on_the_cpu_know_no_gpu_and_no_limit(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        config = {"parallelType": "pp", "parallelLevel": 4, "deviceType": "cpu"}
        await house.register("a", 3, config)
        assert house.gpus() == [None, None, None]
        assert "CUDA_VISIBLE_DEVICES" not in house.port.workers[0].spec.environment
        assert not house.port.workers[0].spec.to_all_ranks

    play(tmp_path, scene, gpus=2)


def test_parallel_workers_are_as_many_as_there_are_gpus_for(tmp_path: Path) -> None:
    """Answers tell the number that was asked for."""

    async def scene(house: House) -> None:
        assert await house.register("a", 3, {"parallelType": "tp", "parallelLevel": 2}) == "3 workers"
        assert len(house.port.workers) == 2
        assert "INFO model a set minWorkers: 2, maxWorkers: 2 for parallelLevel: 2 " in house.journal.lines
        scaled = await house.engine.scale("a", None, 4, 5, synchronous=True)
        assert (scaled.complete, len(house.port.workers)) == (True, 2)
        (status,) = house.engine.describe("a", None)
        assert (status.min_workers, status.max_workers) == (2, 2)

    play(tmp_path, scene, gpus=5)


def test_a_model_that_needs_more_gpus_than_there_are_is_refused(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        with pytest.raises(WorkerInitialization) as refused:
            await house.register("a", 1, {"parallelType": "tp", "parallelLevel": 3, "deviceIds": [0, 1]})
        assert refused.value.message == "No enough gpu devices for model:a parallelLevel:3"
        assert "ERROR there are no enough gpu devices to support this parallelLever: 3" in house.journal.lines
        with pytest.raises(ModelNotFound):
            house.engine.describe("a", None)
        assert list((house.settings.temp_dir / "models").iterdir()) == []

    play(tmp_path, scene, gpus=4)


def test_threads_follow_the_number_of_workers(tmp_path: Path) -> None:
    """Of those that start from now on; running workers keep theirs."""

    async def scene(house: House) -> None:
        await house.register("a", 0)
        await house.engine.scale("a", None, 2, 2, synchronous=True)
        await house.engine.scale("a", None, 4, 4, synchronous=True)
        assert [worker.spec.threads for worker in house.port.workers] == [4, 4, 2, 2]

    play(tmp_path, scene)


def test_scaling_divides_the_cores_anew(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register("a", 1)
        (old,) = house.port.workers
        assert old.spec.launcher == ("-m", "torch.backends.xeon.run_cpu", "--x")
        assert old.spec.threads == 0, "the launcher tells"
        assert (await house.engine.scale("a", None, 3, 3, synchronous=True)).complete
        assert old.dead
        assert [worker.spec.launcher[3:] for worker in house.port.workers[1:]] == [
            ("--ninstances", "3", "--rank", str(place)) for place in range(3)
        ]
        assert [line for line in house.journal.lines if "thread(s)" in line] == [
            "WARN removing 1 current thread(s) prior to restarting 3 thread(s)",
            "WARN restarting 3 thread(s)",
        ]
        await house.engine.scale("a", None, 2, 4, synchronous=True)
        assert len(house.port.workers) == 4, "three are within the bounds"
        await house.engine.scale("a", None, 2, 2, synchronous=True)
        assert [worker.dead for worker in house.port.workers] == [True] * 4 + [False] * 2
        (status,) = house.engine.describe("a", None)
        assert [worker.id for worker in status.workers] == ["9004", "9005"]

    play(tmp_path, scene, cpu_launcher=["--x"])
