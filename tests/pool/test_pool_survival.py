"""What happens to workers when the nursery or the frontend dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from pool_stage import ECHO, ROOT, Model, children, environment, eventually, exists, pool_of, run

from harness.signals import kill, suspend
from modelserver.errors import Cause
from modelserver.pool.nursery import Nursery

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


# Starts a program in its own group, and one in a session of its own; answers with their pids.
FAMILY = """
import json, subprocess
def handle(data, context):
    if data is None:
        return None
    own = subprocess.Popen(["sleep", "600"])
    away = subprocess.Popen(["sleep", "600"], start_new_session=True)
    return [json.dumps([own.pid, away.pid])]
"""


def zombies() -> list[int]:
    """Children of this process that nobody has reaped, which may be an earlier test's: pools adopt orphans."""
    states = {pid: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children(os.getpid())}
    return [pid for pid, state in states.items() if state == "Z"]


@pytest.mark.parametrize("factory", LOOPS)
def test_a_killed_nursery_is_replaced_and_its_workers_are_declared_gone(
    tmp_path: Path, factory: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    earlier = set(zombies())

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            forked, executed, late = (Model(pool, tmp_path / name, ECHO) for name in "abc")
            await forked.load(slot=1)
            await executed.load(slot=2, fork=False)
            first = nursery.pid
            os.kill(first, signal.SIGKILL)
            late.start(slot=3)  # an order into the gap
            for model in (forked, executed):
                certificate = await model.owner.death()
                assert certificate.cause is Cause.SIGNAL
                assert "nursery" in certificate.detail
                assert not exists(model.owner.pid)
            await late.owner.until(lambda: bool(late.owner.calls))  # told, one way or the other
            again = Model(pool, tmp_path / "d", ECHO)
            worker = await again.load(slot=4)
            assert await again.ask(worker, b"alive") == b"alive"
            assert nursery.pid != first
            assert not exists(first)
            assert set(zombies()) <= earlier

    run(main(Nursery.launch(environment(tmp_path))), factory)


def test_orders_that_a_dead_nursery_never_saw_fail_or_reach_its_successor(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            await Model(pool, tmp_path / "a", ECHO).load(slot=1)
            suspend(nursery.pid)
            models = [Model(pool, tmp_path / f"m{slot}", ECHO) for slot in range(2, 5)]
            for slot, model in enumerate(models, 2):
                model.start(slot=slot)
            os.kill(nursery.pid, signal.SIGKILL)
            for model in models:
                assert (await model.owner.death()).cause is Cause.SPAWN

    run(main(Nursery.launch(environment(tmp_path))))


def test_a_nursery_that_cannot_start_fails_the_orders(tmp_path: Path) -> None:
    """Here its own imports fail: the order is answered, and the next attempt does not come at once."""

    async def main() -> None:
        environ = environment(tmp_path)
        (tmp_path / "modules" / "setproctitle.py").write_text("raise SystemExit('no')")
        nursery = Nursery.launch(environ)
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", ECHO)
            model.start()
            certificate = await model.owner.death()
            assert certificate.cause is Cause.SPAWN
            (tmp_path / "modules" / "setproctitle.py").unlink()
            worker = await Model(pool, tmp_path / "n", ECHO).load(slot=2)
            assert worker.connected

    run(main())


def test_nothing_survives_the_end_of_the_pool(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", FAMILY)
            worker = await model.load()
            family = await model.ask(worker)
        pids = [model.owner.pid, nursery.pid, *map(int, family.strip(b"[]").split(b","))]
        assert [pid for pid in pids if exists(pid)] == []
        assert model.owner.certificate is not None
        assert model.owner.certificate.cause is Cause.STOPPED
        assert list((tmp_path / "tmp").iterdir()) == []

    run(main(Nursery.launch(environment(tmp_path))))


FRONTEND = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from pool_stage import Model, environment, pool_of
from modelserver.pool.nursery import Nursery

directory = Path(sys.argv[1])

async def main(nursery):
    async with pool_of(nursery, directory) as pool:
        pids = [nursery.pid]
        for slot, fork in enumerate((True, False)):
            model = Model(pool, directory / f"m{slot}", (directory / "family.py").read_text())
            worker = await model.load(slot=slot, fork=fork)
            pids += [model.owner.pid, *await model.ask_json(worker)]
        print(*pids, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(Nursery.launch(environment(directory))))
"""


@pytest.mark.parametrize("nursery_too", [False, True])
def test_nothing_survives_a_killed_frontend(tmp_path: Path, nursery_too: bool) -> None:
    (tmp_path / "family.py").write_text(textwrap.dedent(FAMILY))
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'modelserver'}"}
    command = [sys.executable, "-c", FRONTEND, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as frontend:
        assert frontend.stdout is not None
        nursery, *family = map(int, frontend.stdout.readline().split())
        assert len(family) == 6
        if nursery_too:
            suspend(frontend.pid)  # it must not get to replace the nursery
            kill(nursery)
        frontend.kill()
    workers = [family[0], family[3]]
    eventually(lambda: not any(map(alive, workers if nursery_too else [nursery, *family])))
    kill(*filter(alive, family))  # without its nursery nobody is left to end what a handler started


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
