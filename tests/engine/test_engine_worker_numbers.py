"""More workers than any machine could run are refused: starting them would keep the event loop for minutes."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from harness.scene import Journal, MemoryPort
from modelserver.archives.dependencies import Dependencies
from modelserver.archives.store import ArchiveStore
from modelserver.engine.assembly import Assembly
from modelserver.engine.engine import Engine
from modelserver.engine.placement import Placement
from modelserver.engine.requests import Registration
from modelserver.errors import BadRequest
from modelserver.settings.table import Settings

TOO_MANY = "Too many workers for model m: 1025. At most 1024 can be asked for."


def engine_of(path: Path, port: MemoryPort, **settings: int) -> Engine:
    """An engine whose store has one directory model, `m`."""
    given = Settings(model_store=path / "store", temp_dir=path / "temp", **settings)  # type: ignore[arg-type]
    folder = path / "store" / "m"
    (folder / "MAR-INF").mkdir(parents=True)
    manifest = {"model": {"modelName": "m", "modelVersion": "1.0", "handler": "h.py"}}
    (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (folder / "h.py").touch()
    assembly = Assembly(given, placement=Placement(0), port=port, events=Journal(), cpus=2, environ={})
    dependencies = Dependencies(enabled=False, temp_dir=given.temp_dir, environment={}, hidden=None)
    return Engine(given, ArchiveStore(given.model_store, given.temp_dir, []), dependencies, assembly, Journal())


@pytest.mark.parametrize("where", ["parameter", "default_workers_per_model"])
def test_a_registration_with_too_many_workers_leaves_nothing(tmp_path: Path, where: str) -> None:
    port = MemoryPort()
    stated = where == "parameter"
    engine = engine_of(tmp_path, port, default_workers_per_model=0 if stated else 1025)

    async def register() -> None:
        with pytest.raises(BadRequest) as refusal:
            await engine.register(Registration(url="m", initial_workers=1025 if stated else None))
        assert refusal.value.message == TOO_MANY
        assert (engine.list_models(), list((tmp_path / "temp" / "models").iterdir())) == ([], [])

    asyncio.run(register())
    assert not port.workers


def test_the_processes_of_a_parallel_worker_count(tmp_path: Path) -> None:
    engine = engine_of(tmp_path, MemoryPort())
    manifest = {"model": {"modelName": "m", "modelVersion": "1.0", "handler": "h.py", "configFile": "c.yaml"}}
    (tmp_path / "store" / "m" / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
    (tmp_path / "store" / "m" / "c.yaml").write_text("parallelType: tp\ndeviceType: cpu\nparallelLevel: 2000000000\n")

    async def register() -> None:
        with pytest.raises(BadRequest, match=r"for model m: 1 of 2000000000 processes\. At most 1024 "):
            await engine.register(Registration(url="m", initial_workers=1))

    asyncio.run(register())


def test_scaling_to_too_many_workers_changes_nothing(tmp_path: Path) -> None:
    port = MemoryPort()
    engine = engine_of(tmp_path, port)

    async def scale() -> None:
        await engine.register(Registration(url="m", initial_workers=0))
        with pytest.raises(BadRequest) as refusal:
            await engine.scale("m", None, 1025, 1025, synchronous=False)
        assert refusal.value.message == TOO_MANY
        (status,) = engine.describe("m", None)
        assert (status.min_workers, status.max_workers, status.workers) == (0, 0, ())
        await engine.scale("m", None, 0, 2**31 - 1, synchronous=False)  # a bound is no order
        await engine.close(0)

    asyncio.run(scale())
    assert not port.workers
