"""Opening archives and installing what they bring, ended at any moment: nothing runs on, nothing stays on disk."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.origin import Origin
from harness.scene import Journal, MemoryPort
from modelserver.archives.archive import Archive
from modelserver.archives.dependencies import Dependencies
from modelserver.archives.store import ArchiveStore
from modelserver.engine.assembly import Assembly
from modelserver.engine.engine import Engine
from modelserver.engine.placement import Placement
from modelserver.engine.requests import Registration
from modelserver.errors import Conflict, ModelError, ServerError, ServiceUnavailable
from modelserver.settings.table import Settings

STOPPING = "The server stops: no model is registered any more."

# Stands for pip: tells its pid, and ends when it is allowed to, as it is told to.
PIP = """#!/bin/sh
echo $$ > "$PLACE/pid.new" && mv "$PLACE/pid.new" "$PLACE/pid"
while ! test -e "$PLACE/go"; do sleep 0.01; done
exit $(cat "$PLACE/go")
"""


class SlowStore(ArchiveStore):
    """Opens nothing before it may."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.entered = threading.Event()
        self.opened = threading.Event()
        self.may_open = threading.Event()
        self.may_open.set()

    def open(self, url: str, **words: Any) -> Archive:
        self.entered.set()
        assert self.may_open.wait(60)
        archive = super().open(url, **words)
        self.opened.set()
        return archive


class House:
    """An engine with one model, `m`, whose packages are installed by the program above."""

    def __init__(self, path: Path, allowed: Sequence[str] = ()) -> None:
        self.path = path
        program = path / "bin" / "python3"
        program.parent.mkdir()
        program.write_text(PIP)
        program.chmod(0o700)
        directory = path / "store" / "one"
        (directory / "MAR-INF").mkdir(parents=True)
        manifest = {"model": {"modelName": "m", "handler": "h.py", "requirementsFile": "r"}, "runtime": "python3"}
        (directory / "MAR-INF" / "MANIFEST.json").write_text(json.dumps(manifest))
        (directory / "r").write_text("brought==1\n")
        settings = Settings(model_store=path / "store", temp_dir=path / "temp", install_py_dep_per_model=True)
        self.store = SlowStore(settings.model_store, settings.temp_dir, allowed)
        self.journal = Journal()
        self.port = MemoryPort()
        environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "PLACE": str(path)}
        dependencies = Dependencies(enabled=True, temp_dir=settings.temp_dir, environment=environment, hidden=None)
        assembly = Assembly(
            settings, placement=Placement(0), port=self.port, events=self.journal, cpus=2, environ=environment
        )
        self.engine = Engine(settings, self.store, dependencies, assembly, self.journal)

    def register(self, url: str = "one") -> asyncio.Task[Any]:
        registration = Registration(url=url, initial_workers=1)
        return asyncio.ensure_future(self.engine.register(registration))

    async def pip(self) -> psutil.Process:
        """The program, once it runs."""
        await until((self.path / "pid").exists)
        return psutil.Process(int((self.path / "pid").read_text()))

    def let_pip_end(self, status: int) -> None:
        (self.path / "go.new").write_text(str(status))
        (self.path / "go.new").rename(self.path / "go")

    def left(self) -> list[Path]:
        with suppress(FileNotFoundError):
            return list((self.path / "temp" / "models").iterdir())
        return []


async def until(check: Callable[[], object]) -> None:
    """Threads and processes do what is waited for."""
    for _ in range(4_000):
        if check():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it never happens")


def over(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def refused(call: Awaitable[object], error: type[ServerError], text: str) -> None:
    with pytest.raises(error) as raised:
        await call
    assert raised.value.message == text


def play(path: Path, scene: Callable[[House], Awaitable[None]], allowed: Sequence[str] = ()) -> None:
    """Run a scene in a house of its own; whatever comes of it, no program runs on."""

    async def main() -> None:
        house = House(path, allowed)
        try:
            await asyncio.wait_for(scene(house), 40)
        finally:
            house.store.may_open.set()
            await house.engine.close(0)

    asyncio.run(main())


def test_workers_start_when_everything_is_installed(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        registering = house.register()
        await house.pip()
        assert house.engine.list_models() == []
        assert house.port.workers == []
        house.let_pip_end(0)
        await registering
        assert house.port.workers[0].spec.executable == "python3"
        assert house.engine.list_models() == [("m", "one")]

    play(tmp_path, scene)


def test_a_failure_is_logged_and_leaves_nothing(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        registering = house.register()
        house.let_pip_end(1)
        text = "Custom pip package installation failed for model m"
        await refused(registering, ModelError, text)
        assert house.left() == []
        assert house.engine.list_models() == []
        assert any(text in str(line) for line in house.journal.lines)

    play(tmp_path, scene)


def test_a_version_that_exists_is_known_before_anything_is_installed(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        house.let_pip_end(0)
        await house.register()
        (house.path / "pid").unlink()
        await refused(house.register(), Conflict, "Model version 1.0 is already registered for model m")
        assert not (house.path / "pid").exists()
        assert len(house.left()) == 1

    play(tmp_path, scene)


def test_two_registrations_at_once(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        both = [house.register(), house.register()]
        await until(lambda: len([path for path in house.left() if path.suffix == ".install"]) == 2)
        house.let_pip_end(0)
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Registered"]
        assert len(house.left()) == 1

    play(tmp_path, scene)


def test_close_ends_an_installation(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        registering = house.register()
        pip = await house.pip()
        await house.engine.close(0)
        await refused(registering, ServiceUnavailable, STOPPING)
        await until(lambda: over(pip))
        assert house.left() == []
        await refused(house.register(), ServiceUnavailable, STOPPING)

    play(tmp_path, scene)


def test_close_ends_a_download(tmp_path: Path) -> None:
    with Origin() as origin:
        url = origin.script("/m.mar", lambda request: origin.hang())

        async def scene(house: House) -> None:
            registering = house.register(url)
            await until(origin.hung.is_set)
            await house.engine.close(0)
            await refused(registering, ServiceUnavailable, STOPPING)
            assert [path.name for path in (house.path / "store").iterdir()] == ["one"]

        play(tmp_path, scene, ["http://.*"])


def test_a_cancelled_registration_waits_for_the_end_of_its_installation(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        registering = house.register()
        pip = await house.pip()
        registering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await registering
        await until(lambda: over(pip))
        assert house.left() == []
        house.let_pip_end(0)
        await house.register()

    play(tmp_path, scene)


def test_an_archive_that_is_open_when_the_server_has_closed(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        house.store.may_open.clear()
        registering = house.register()
        await until(house.store.entered.is_set)
        await house.engine.close(0)
        house.store.may_open.set()
        await refused(registering, ServiceUnavailable, STOPPING)
        assert house.left() == []
        assert not (house.path / "pid").exists()

    play(tmp_path, scene)


def test_an_archive_that_nobody_waits_for_any_more(tmp_path: Path) -> None:
    async def scene(house: House) -> None:
        house.store.may_open.clear()
        registering = house.register()
        await until(house.store.entered.is_set)
        registering.cancel()
        with pytest.raises(asyncio.CancelledError):
            await registering
        house.store.may_open.set()
        await until(house.store.opened.is_set)
        await until(lambda: not house.left())

    play(tmp_path, scene)
