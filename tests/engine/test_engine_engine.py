"""Registering, scaling and unregistering over real archives, with workers that live in memory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from harness.scene import Journal, MemoryPort, settle
from modelserver.archives.dependencies import Dependencies
from modelserver.archives.store import ArchiveStore
from modelserver.engine.assembly import Assembly
from modelserver.engine.engine import Engine
from modelserver.engine.job import Job
from modelserver.engine.placement import Placement
from modelserver.engine.requests import Registration
from modelserver.errors import (
    BadRequest,
    Cause,
    Certificate,
    Conflict,
    DefaultVersionInUse,
    InternalError,
    ModelNotFound,
    RequestTimeout,
    ServerError,
    ServiceUnavailable,
    WorkerError,
)
from modelserver.settings.table import Settings
from modelserver.wire.frames import Request


class House:
    """An engine with two directory models, `m` in two versions."""

    def __init__(self, path: Path, unregister_timeout: int) -> None:
        self.temp = path / "temp"
        self.settings = Settings(
            model_store=path / "store", temp_dir=self.temp, unregister_model_timeout=unregister_timeout
        )
        for folder, version in (("one", "1.0"), ("two", "2.0")):
            manifest = {"model": {"modelName": "m", "modelVersion": version, "handler": "h.py"}}
            directory = path / "store" / folder
            (directory / "MAR-INF").mkdir(parents=True)
            (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
            (directory / "h.py").touch()
        self.port = MemoryPort()
        self.journal = Journal()
        assembly = Assembly(
            self.settings,
            placement=Placement(0),
            port=self.port,
            events=self.journal,
            cpus=2,
            environ={"PYTHONPATH": "/inherited"},
        )
        store = ArchiveStore(self.settings.model_store, self.temp, [])
        dependencies = Dependencies(enabled=False, temp_dir=self.temp, environment={}, hidden=None)
        self.engine = Engine(self.settings, store, dependencies, assembly, self.journal)

    async def register(self, url: str = "one", workers: int = 1, synchronous: bool = True) -> None:
        await self.engine.register(Registration(url=url, initial_workers=workers, synchronous=synchronous))

    def directories(self) -> list[Path]:
        """Model directories that exist now."""
        return list((self.temp / "models").iterdir())

    async def refused(self, call: Awaitable[object], error: type[ServerError], text: str) -> ServerError:
        """Expect an error with that message."""
        with pytest.raises(error) as raised:
            await call
        assert raised.value.message == text
        return raised.value


async def until(check: Callable[[], bool]) -> None:
    """Threads open and remove archives: nothing tells when they are done."""
    for _ in range(20_000):
        if check():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("it never happens")


def play(path: Path, scene: Callable[[House], Awaitable[None]], unregister_timeout: int = 120) -> None:
    """Run a scene in a house of its own."""

    async def main() -> None:
        await asyncio.wait_for(scene(House(path, unregister_timeout)), 60)

    asyncio.run(main())


def test_a_worker_gets_its_place_and_its_path(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register(workers=2)
        first, second = house.port.workers
        assert (first.spec.slot, second.spec.slot) == (9000, 9001)
        assert first.spec.name == "W-9000-m_1.0"
        assert first.spec.threads == 1, "two cores for two workers"
        assert first.spec.python_path == (
            "/inherited",
            str((tmp_path / "store" / "one").resolve()),
            first.spec.cwd[:-4],
        )
        assert house.engine.list_models() == [("m", "one")]

    play(tmp_path, scene)


def test_the_same_version_twice_leaves_the_first_alone(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register()
        await house.refused(house.register(), Conflict, "Model version 1.0 is already registered for model m")
        assert len(house.directories()) == 1
        assert len(house.engine.describe("m", None)[0].workers) == 1

    play(tmp_path, scene)


@pytest.mark.parametrize(("cause", "status"), [(Cause.INITIALIZE, 500), (Cause.OUT_OF_MEMORY, 507)])
def test_a_failed_registration_leaves_nothing(tmp_path: Path, cause: Cause, status: int) -> None:
    async def scene(house: House) -> None:
        house.port.manual = True
        registering = asyncio.ensure_future(house.register(workers=2))
        await until(lambda: len(house.port.workers) == 2)
        house.port.workers[1].die(Certificate(cause, "because"))
        error = await house.refused(registering, WorkerError, "Failed to start workers for model m version: 1.0")
        assert error.status == status
        assert error.certificate is not None and error.certificate.detail == "because"
        with pytest.raises(ModelNotFound):
            house.engine.describe("m", None)
        assert house.directories() == []
        assert all(worker.dead for worker in house.port.workers)

    play(tmp_path, scene)


def test_an_asynchronous_registration_survives_a_failed_load(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        house.port.manual = True
        await house.register(synchronous=False)
        house.port.workers[0].die(Certificate(Cause.INITIALIZE, "because"))
        await settle()
        (status,) = house.engine.describe("m", None)
        (worker,) = status.workers
        assert not worker.ready
        assert worker.certificate is not None
        assert worker.next_retry is not None and 0 < worker.next_retry <= 1

    play(tmp_path, scene)


def test_scale_checks_its_numbers_before_the_model(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        text = "max_worker cannot be less than min_worker."
        await house.refused(house.engine.scale("x", None, 2, 1, synchronous=True), BadRequest, text)
        await house.register()
        with pytest.raises(InternalError):
            await house.engine.scale("m", None, -1, -1, synchronous=True)
        (status,) = house.engine.describe("m", None)
        assert (status.min_workers, status.max_workers, len(status.workers)) == (1, 1, 1)

    play(tmp_path, scene)


def test_scale_between_the_limits_changes_nothing(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register(workers=3)
        await house.engine.scale("m", None, 1, 3, synchronous=True)
        assert len(house.engine.describe("m", None)[0].workers) == 3
        await house.engine.scale("m", None, 1, 2, synchronous=True)
        assert [worker.id for worker in house.engine.describe("m", None)[0].workers] == ["9000", "9001"]
        await house.engine.scale("m", None, 0, 2, synchronous=True)
        assert house.engine.describe("m", None)[0].workers == ()
        assert all(worker.dead for worker in house.port.workers)

    play(tmp_path, scene)


def test_a_failed_growth_keeps_the_new_minimum_and_names_the_version_as_given(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register()
        house.port.manual = True
        scaling = asyncio.ensure_future(house.engine.scale("m", None, 2, 2, synchronous=True))
        await settle()
        house.port.workers[-1].die()
        await house.refused(scaling, WorkerError, "Failed to start workers for model m version: null")
        assert house.engine.describe("m", None)[0].min_workers == 2

    play(tmp_path, scene)


def test_a_synchronous_scale_call_waits_for_workers_that_load_already(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register(workers=0)
        house.port.manual = True
        await house.engine.scale("m", None, 2, 2, synchronous=False)
        waiting = asyncio.ensure_future(house.engine.scale("m", None, 2, 2, synchronous=True))
        await settle()
        house.port.workers[0].load()
        await settle()
        assert not waiting.done()
        house.port.workers[1].load()
        assert (await waiting).complete
        assert len(house.port.workers) == 2

    play(tmp_path, scene)


def test_workers_that_another_call_removes_while_they_load_are_no_failures(tmp_path: Path) -> None:
    """Neither of the registration nor of the scale call that wait for them."""

    async def scene(house: House) -> None:
        house.port.manual = True
        registering = asyncio.ensure_future(house.register(workers=2))
        await until(lambda: len(house.port.workers) == 2)
        growing = asyncio.ensure_future(house.engine.scale("m", None, 3, 3, synchronous=True))
        await until(lambda: len(house.port.workers) == 3)
        await house.engine.scale("m", None, 1, 1, synchronous=False)
        await settle()
        assert not registering.done() and not growing.done(), "one worker is still loading"
        house.port.workers[0].load()
        await registering
        grown = await growing
        assert (grown.complete, grown.overtaken) == (True, 1)
        assert house.engine.describe("m", None)[0].min_workers == 1

    play(tmp_path, scene)


def test_a_version_that_another_call_unregisters_while_it_loads(tmp_path: Path) -> None:
    """Who waits for it is told, and who unregisters it cleans up."""

    async def scene(house: House) -> None:
        house.port.manual = True
        registering = asyncio.ensure_future(house.register(workers=1))
        await until(lambda: len(house.port.workers) == 1)
        growing = asyncio.ensure_future(house.engine.scale("m", None, 2, 2, synchronous=True))
        await until(lambda: len(house.port.workers) == 2)
        await house.engine.unregister("m", None)
        text = "Model m version 1.0 was unregistered while its workers loaded."
        await house.refused(registering, Conflict, text)
        await house.refused(growing, Conflict, text)
        await until(lambda: not house.directories())

    play(tmp_path, scene)


def test_a_registration_that_waits_when_the_server_stops(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        house.port.manual = True
        registering = asyncio.ensure_future(house.register(workers=1))
        await until(lambda: len(house.port.workers) == 1)
        await house.engine.close(0)
        text = "The server stops: no model is registered any more."
        await house.refused(registering, ServiceUnavailable, text)

    play(tmp_path, scene)


def test_a_worker_that_gave_up_makes_a_scale_call_incomplete(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register()
        house.port.workers[0].die(Certificate(Cause.HANDLER_IMPORT, "gone"))
        await settle()
        assert not (await house.engine.scale("m", None, 1, 1, synchronous=True)).complete
        assert not house.engine.healthy()

    play(tmp_path, scene)


def test_versions_and_the_default_one(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register("one")
        await house.register("two")
        assert [status.model_version for status in house.engine.describe("m", "all")] == ["1.0", "2.0"]
        await house.refused(
            house.engine.unregister("m", None), DefaultVersionInUse, "Cannot remove default version for model m"
        )
        await house.engine.set_default("m", "2.0")
        await house.engine.unregister("m", "1.0")
        assert house.engine.list_models() == [("m", "two")]
        await house.engine.unregister("m", None)
        assert house.engine.list_models() == []
        await until(lambda: not house.directories())
        assert (tmp_path / "store" / "one" / "h.py").exists(), "a directory of the operator is never removed"

    play(tmp_path, scene)


def test_a_version_that_no_url_can_name_is_served_as_the_default_one(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        manifest = tmp_path / "store" / "one" / "MAR-INF" / "MANIFEST.json"
        manifest.write_text(manifest.read_text().replace("1.0", "2026/11"))
        await house.register("one")
        assert house.engine.describe("m", None)[0].model_version == "2026/11"
        text = "WARN Version '2026/11' of model m cannot be named in a URL: "
        assert house.journal.lines.count(f"{text}REST calls reach it only while it is the default.") == 1
        await house.register("two")
        assert sum("cannot be named" in line for line in house.journal.lines) == 1

    play(tmp_path, scene)


def test_the_world_is_told_which_versions_there_are(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register("one")
        await house.register("two")
        await house.engine.set_default("m", "2.0")
        await house.engine.unregister("m", "1.0")
        await house.engine.close(0)
        assert house.journal.versions == [
            ("m", ["1.0"], "1.0"),
            ("m", ["1.0", "2.0"], "1.0"),
            ("m", ["1.0", "2.0"], "2.0"),
            ("m", ["2.0"], "2.0"),
            ("m", [], ""),
        ]

    play(tmp_path, scene)


def test_unregister_without_time_to_clean_up_can_be_repeated(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register()
        call = house.engine.unregister("m", None)
        await house.refused(call, RequestTimeout, "Timed out while cleaning resources: m")
        (status,) = house.engine.describe("m", None)
        assert (status.min_workers, status.max_workers, status.workers) == (0, 0, ())
        await house.engine.unregister("m", None)
        assert house.engine.list_models() == []

    play(tmp_path, scene, unregister_timeout=0)


def test_a_version_registered_anew_wins_over_one_whose_workers_do_not_end(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register()
        (worker,) = house.port.workers
        worker.killed = Certificate(Cause.STOPPED, "hangs in a driver and does not die")
        removing = asyncio.ensure_future(house.engine.unregister("m", None))
        await settle()
        await house.register()
        await house.refused(removing, RequestTimeout, "Timed out while cleaning resources: m")
        (status,) = house.engine.describe("m", None)
        assert [each.id for each in status.workers] == ["9001"]
        worker.die()
        await house.engine.close(0)
        assert house.directories() == []

    play(tmp_path, scene, unregister_timeout=1)


def test_close_answers_what_waits_and_ends_every_worker(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        await house.register()
        answered: list[Job] = []
        for name in ("running", "waiting"):
            house.engine.submit(Job(Request(name, [], [], {}), "m", "default", 0.0, answered.append), None)
        await house.engine.close(0)
        assert [(job.request.id, job.error.status if job.error else None) for job in answered] == [
            ("waiting", 503),
            ("running", 500),
        ]
        assert house.directories() == []

    play(tmp_path, scene)
