"""Every change of what is registered is reported once, with what a later start needs to bring it back."""

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
from modelserver.engine.placement import Placement
from modelserver.engine.requests import Registration
from modelserver.errors import Cause, Certificate, ServerError
from modelserver.settings.snapshot import SavedModels, SavedVersion
from modelserver.settings.table import Settings


class Listener:
    """Remembers every state it was told."""

    def __init__(self) -> None:
        self.states: list[SavedModels] = []

    async def models_changed(self, models: SavedModels) -> None:
        self.states.append(models)


class Stage:
    """An engine that tells a listener, with models in a store and one beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = path / "store"
        for place, version, handler in (
            ("store/one", "1.0", "h.py"),
            ("store/two", "2.0", ""),
            ("away/far", "3.0", ""),
        ):
            self._make(path / place, {"modelName": "m", "modelVersion": version, "handler": handler})
        self.settings = Settings(model_store=self.store, temp_dir=path / "temp", default_service_handler="h.py")
        self.port, self.listener, journal = MemoryPort(), Listener(), Journal()
        assembly = Assembly(self.settings, placement=Placement(0), port=self.port, events=journal, cpus=2, environ={})
        archives = ArchiveStore(self.store, path / "temp", [])
        dependencies = Dependencies(enabled=False, temp_dir=path / "temp", environment={}, hidden=None)
        self.engine = Engine(self.settings, archives, dependencies, assembly, journal, changes=self.listener)

    def _make(self, directory: Path, model: dict[str, str]) -> None:
        (directory / "MAR-INF").mkdir(parents=True)
        manifest = {"model": {name: value for name, value in model.items() if value}}
        (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
        (directory / "h.py").touch()

    async def register(self, url: str, **options: object) -> None:
        await self.engine.register(Registration(**{"url": url, "initial_workers": 1, **options}))  # type: ignore[arg-type]

    @property
    def last(self) -> SavedModels:
        return self.listener.states[-1]


def play(path: Path, scene: Callable[[Stage], Awaitable[None]]) -> None:
    async def main() -> None:
        await asyncio.wait_for(scene(Stage(path)), 20)

    asyncio.run(main())


def test_what_is_told_of_a_version(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.register("one", batch_size=4, max_batch_delay=50, response_timeout=9, startup_timeout=8)
        expected = SavedVersion(
            mar_name="one",
            default=True,
            min_workers=1,
            max_workers=1,
            batch_size=4,
            max_batch_delay=50,
            response_timeout=9,
            startup_timeout=8,
        )
        assert stage.listener.states == [{"m": {"1.0": expected}}]

    play(tmp_path, scene)


def test_every_change_is_told_once(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        states = stage.listener.states
        await stage.register("one", initial_workers=0)
        await stage.register("two", synchronous=False)
        await stage.engine.scale("m", None, 2, 3, synchronous=False)
        assert len(states) == 3
        assert (stage.last["m"]["1.0"].min_workers, stage.last["m"]["1.0"].max_workers) == (2, 3)
        await stage.engine.scale("m", None, 2, 3, synchronous=True)
        assert len(states) == 4, "a change that changes nothing is one too"
        await stage.engine.set_default("m", "2.0")
        assert {version: entry.default for version, entry in stage.last["m"].items()} == {"1.0": False, "2.0": True}
        await stage.engine.unregister("m", "1.0")
        await stage.engine.unregister("m", None)
        assert len(states) == 7
        assert stage.last == {}

    play(tmp_path, scene)


def test_what_fails_or_only_looks_is_not_told(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.register("one")
        for failing in (
            stage.register("one"),
            stage.register("nowhere"),
            stage.engine.scale("x", None, 1, 1, synchronous=True),
            stage.engine.scale("m", None, 2, 1, synchronous=True),
            stage.engine.set_default("m", "9"),
            stage.engine.unregister("m", "9"),
        ):
            with pytest.raises(ServerError):
                await failing
        stage.engine.list_models()
        stage.engine.describe("m", None)
        assert len(stage.listener.states) == 1

    play(tmp_path, scene)


def test_a_registration_that_is_undone_is_told_twice(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        stage.port.manual = True
        registering = asyncio.ensure_future(stage.register("one"))
        for _ in range(20_000):  # a thread opens the archive: nothing tells when it is done
            if stage.port.workers:
                break
            await asyncio.sleep(0.001)
        await settle()
        stage.port.workers[0].die(Certificate(Cause.INITIALIZE, "because"))
        with pytest.raises(ServerError):
            await registering
        assert [sorted(state) for state in stage.listener.states] == [["m"], []]

    play(tmp_path, scene)


def test_only_a_handler_that_was_given_is_kept(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.register("one")
        await stage.register("two")
        await stage.register("one", model_name="n", handler="other.py:f")
        assert [stage.last["m"][version].handler for version in ("1.0", "2.0")] == ["", ""]
        assert stage.last["n"]["1.0"].handler == "other.py:f"

    play(tmp_path, scene)


def test_a_model_outside_the_store_keeps_its_place(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        away = tmp_path / "away" / "far"
        await stage.register(str(away))
        assert stage.last["m"]["3.0"].mar_name == str(away)
        await stage.register(str(stage.store / "one"))
        assert stage.last["m"]["1.0"].mar_name == "one"

    play(tmp_path, scene)


def test_a_saved_version_comes_back_with_its_options(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        saved = SavedVersion(
            mar_name="two",
            default=True,
            min_workers=2,
            max_workers=3,
            batch_size=5,
            max_batch_delay=6,
            response_timeout=7,
            startup_timeout=8,
        )
        await stage.register("two", initial_workers=None, model_name="m", synchronous=False, saved=saved)
        (status,) = stage.engine.describe("m", None)
        assert (status.min_workers, status.max_workers, len(status.workers)) == (2, 3, 2)
        assert (status.options.batch_size, status.options.max_batch_delay) == (5, 6)
        assert not status.loaded_at_startup
        assert stage.last == {"m": {"2.0": saved}}

    play(tmp_path, scene)


def test_a_file_that_is_no_archive_any_more(tmp_path: Path) -> None:
    """Comes back as a model without anything, and a registration of it is refused as ever."""

    async def scene(stage: Stage) -> None:
        (stage.store / "junk.mar").write_text("junk")
        with pytest.raises(ServerError):
            await stage.register("junk.mar", model_name="j")
        saved = SavedVersion(
            mar_name="junk.mar", default=True, min_workers=1, max_workers=1, batch_size=1, max_batch_delay=1
        )
        await stage.register("junk.mar", model_name="j", synchronous=False, saved=saved)
        assert stage.engine.list_models() == [("j", "junk.mar")]

    play(tmp_path, scene)
