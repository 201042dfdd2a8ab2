"""A file of the model store from which several versions came stays until the last of them has gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from harness.archives import NOOP, pack
from harness.scene import Journal, MemoryPort
from modelserver.archives.dependencies import Dependencies
from modelserver.archives.store import ArchiveStore
from modelserver.engine.assembly import Assembly
from modelserver.engine.engine import Engine
from modelserver.engine.placement import Placement
from modelserver.engine.requests import Registration
from modelserver.errors import WorkerError
from modelserver.settings.table import Settings


def engine_of(path: Path, port: MemoryPort | None = None) -> Engine:
    """An engine with an empty store, which may copy files from anywhere into it."""
    settings = Settings(model_store=path / "store", temp_dir=path / "temp")
    (path / "store").mkdir()
    assembly = Assembly(
        settings,
        placement=Placement(0),
        port=port or MemoryPort(),
        events=Journal(),
        cpus=2,
        environ={"PYTHONPATH": ""},
    )
    store = ArchiveStore(settings.model_store, settings.temp_dir, ["file://.*"])
    dependencies = Dependencies(enabled=False, temp_dir=settings.temp_dir, environment={}, hidden=None)
    return Engine(settings, store, dependencies, assembly, Journal())


@pytest.mark.parametrize("leaves_first", ["downloaded", "named"])
def test_a_copy_goes_once_no_version_is_of_that_file(tmp_path: Path, leaves_first: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    url = f"file://{tmp_path}/elsewhere/{pack(tmp_path / 'elsewhere', 'm', NOOP)}"
    engine = engine_of(tmp_path)
    copy = tmp_path / "store" / "m.mar"

    async def share() -> None:
        await engine.register(Registration(url=url, model_name="downloaded", initial_workers=0))
        await engine.register(Registration(url="m.mar", model_name="named", initial_workers=0))
        await engine.unregister(leaves_first, None)
        assert copy.exists()  # without it, a restart could not bring the other one back
        await engine.close(0)

    asyncio.run(share())


def test_a_copy_that_nobody_shares_goes_with_its_model(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    url = f"file://{tmp_path}/elsewhere/{pack(tmp_path / 'elsewhere', 'm', NOOP)}"
    engine = engine_of(tmp_path)

    async def come_and_go() -> None:
        await engine.register(Registration(url=url, initial_workers=0))
        assert (tmp_path / "store" / "m.mar").exists()
        await engine.unregister("m", None)
        assert not list((tmp_path / "store").iterdir())
        await engine.close(0)

    asyncio.run(come_and_go())


def test_a_copy_outlives_the_failure_of_the_registration_that_made_it(tmp_path: Path) -> None:
    """Where another model was registered from it while the workers of the first one loaded."""
    (tmp_path / "elsewhere").mkdir()
    url = f"file://{tmp_path}/elsewhere/{pack(tmp_path / 'elsewhere', 'm', NOOP)}"
    port = MemoryPort()
    port.manual = True
    engine = engine_of(tmp_path, port)
    copy = tmp_path / "store" / "m.mar"

    async def fail() -> None:
        first = asyncio.ensure_future(
            engine.register(Registration(url=url, model_name="downloaded", initial_workers=1))
        )
        while not port.workers:  # noqa: ASYNC110 -- a thread opens the archive: nothing tells when it has
            await asyncio.sleep(0.01)
        await engine.register(Registration(url="m.mar", model_name="named", initial_workers=0))
        port.workers[0].die()
        with pytest.raises(WorkerError):
            await first
        assert ([name for name, _ in engine.list_models()], copy.exists()) == (["named"], True)
        assert len(list((tmp_path / "temp" / "models").iterdir())) == 1
        await engine.close(0)

    asyncio.run(fail())
