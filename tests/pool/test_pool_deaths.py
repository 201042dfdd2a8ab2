"""Workers that fail to start or die: what their owners are told, and that nothing is left of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import uvloop
from pool_stage import (
    ECHO,
    EVAL,
    Model,
    children,
    descriptors,
    environment,
    eventually,
    exists,
    pool_of,
    run,
)

from harness.signals import suspend
from modelserver.errors import Cause, Certificate
from modelserver.pool.nursery import Nursery
from modelserver.pool.worker import Patience
from modelserver.wire.frames import Loaded

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize(
    ("code", "cause", "exit_code", "signal_name", "http"),
    [
        ("os.kill(os.getpid(), 9)", Cause.OUT_OF_MEMORY, None, "SIGKILL", 507),
        ("os.kill(os.getpid(), 11)", Cause.SIGNAL, None, "SIGSEGV", 500),
        ("os._exit(3)", Cause.EXIT, 3, None, 500),
        ("os._exit(137)", Cause.OUT_OF_MEMORY, 137, None, 507),
        ("sys.exit(4)", Cause.EXIT, 4, None, 500),
    ],
)
def test_the_death_of_a_busy_worker(
    tmp_path: Path, code: str, cause: Cause, exit_code: int | None, signal_name: str | None, http: int
) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", EVAL)
            worker = await model.load()
            worker.send(model.batch(f"print('last words') or {code}".encode()))
            certificate = await model.owner.death()
            assert certificate.cause is cause
            assert certificate.cause.http_status == http
            assert (certificate.exit_code, certificate.signal) == (exit_code, signal_name)
            if "kill" not in code and "_exit" not in code:
                assert certificate.last_output[-1] == "last words"
            assert not model.owner.unread  # it had begun: never to be run again
            assert model.owner.calls[-1] == "gone"
            assert children(nursery.pid) == []

    run(main(Nursery.launch(environment(tmp_path))))


def test_an_exit_that_a_thread_holds_up_is_waited_for_in_vain(tmp_path: Path) -> None:
    """The process is killed, and what it has said of its end counts."""

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path, patience=Patience(last_words=0.2)) as pool:
            model = Model(pool, tmp_path / "m", "import threading, time\n" + EVAL)
            worker = await model.load()
            worker.send(model.batch(b"threading.Thread(target=time.sleep, args=[600]).start() or sys.exit(4)"))
            certificate = await model.owner.death()
            assert (certificate.cause, certificate.detail) == (Cause.EXIT, "SystemExit: 4")
            assert certificate.signal == "SIGKILL"

    run(main(Nursery.launch(environment(tmp_path))))


def test_an_idle_worker_killed_from_outside_and_one_killed_by_us(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            outside, ours, told = (Model(pool, tmp_path / name, ECHO) for name in "abc")
            await outside.load(slot=9000)
            os.kill(outside.owner.pid, signal.SIGKILL)
            assert (await outside.owner.death()).cause is Cause.OUT_OF_MEMORY
            worker = await ours.load(slot=9001)
            worker.kill()
            assert (await ours.owner.death()).cause is Cause.STOPPED
            worker = await told.load(slot=9002)
            worker.kill(Certificate(Cause.RESPONSE_TIMEOUT, "too slow"))
            worker.kill(Certificate(Cause.STOPPED, "second"))
            certificate = await told.owner.death()
            assert (certificate.cause, certificate.detail) == (Cause.RESPONSE_TIMEOUT, "too slow")
            worker.send(told.batch())
            worker.kill()
            assert [model.owner.calls.count("gone") for model in (outside, ours, told)] == [1, 1, 1]

    run(main(Nursery.launch(environment(tmp_path))))


def test_a_batch_that_had_not_started_is_told(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", ECHO)
            worker = await model.load()
            suspend(model.owner.pid)
            worker.send(model.batch())
            await asyncio.sleep(0)
            worker.kill()
            await model.owner.death()
            assert model.owner.unread

    run(main(Nursery.launch(environment(tmp_path))))


def test_a_handler_that_cannot_be_imported(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", "import nothing_of_this_name")
            await model.load()
            certificate = await model.owner.death()
            loaded = model.owner.frames[0]
            assert isinstance(loaded, Loaded)
            assert loaded.code == 500
            assert certificate.cause is Cause.HANDLER_IMPORT
            assert certificate.exit_code == 1
            assert "nothing_of_this_name" in certificate.detail
            assert "h.py" in certificate.traceback
            lines = model.owner.lines["stdout"]
            assert "Backend worker process died." in lines
            assert any("nothing_of_this_name" in line for line in lines[lines.index("Backend worker process died.") :])

    run(main(Nursery.launch(environment(tmp_path))))


def test_processes_that_never_connect(tmp_path: Path) -> None:
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            missing, failing = (Model(pool, tmp_path / name, ECHO) for name in "ab")
            missing.start(slot=1, executable=str(tmp_path / "nowhere"))
            certificate = await missing.owner.death()
            assert certificate.cause is Cause.SPAWN
            assert "nowhere" in certificate.detail
            assert missing.owner.calls == ["gone"]
            failing.start(slot=2, executable="/bin/false")
            certificate = await failing.owner.death()
            assert certificate.cause is Cause.EXIT
            assert certificate.detail.startswith("Backend stream closed.")
            assert failing.owner.calls == ["spawned", "gone"]
        impatient = Nursery.launch(environment(tmp_path))
        async with pool_of(impatient, tmp_path, patience=Patience(connect=1.5)) as pool:
            silent = Model(pool, tmp_path / "c", ECHO)
            silent.start(slot=3, executable=str(sleeper))
            certificate = await silent.owner.death()
            assert certificate.cause is Cause.LOAD_TIMEOUT
            assert certificate.detail == "Backend worker startup time out."
            assert not exists(silent.owner.pid)

    run(main(Nursery.launch(environment(tmp_path))))


def test_an_order_too_large_for_a_packet_fails_as_a_spawn(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", ECHO)
            before = len(descriptors())
            model.start(environment={"BIG": "x" * (1 << 18)})
            assert (await model.owner.death()).cause is Cause.SPAWN
            assert len(descriptors()) == before

    run(main(Nursery.launch(environment(tmp_path))))


def test_garbage_on_the_connection_ends_the_worker(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", EVAL)
            worker = await model.load()
            find = "next(int(f) for f in os.listdir('/proc/self/fd') if 'socket' in os.readlink('/proc/self/fd/' + f))"
            worker.send(model.batch(f"os.write({find}, b'\\xff' * 100)".encode()))
            certificate = await model.owner.death()
            assert certificate.cause is Cause.PROTOCOL
            assert "exceeds the limit" in certificate.detail

    run(main(Nursery.launch(environment(tmp_path))))


def test_descendants_cannot_hold_up_the_end_of_a_worker(tmp_path: Path) -> None:
    """Programs and forks of a handler in sessions of their own hold its pipes; they end with the pool at the latest."""
    program = b"subprocess.Popen(['sleep', '600'], start_new_session=True).pid"
    fork = b"os.fork() or (os.setsid(), time.sleep(600))"

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", "import subprocess, time\n" + EVAL)
            worker = await model.load()
            pids = [int(await model.ask(worker, code)) for code in (program, fork)]
            for pid in pids:
                eventually(partial(has_no_socket, pid))
            os.kill(model.owner.pid, signal.SIGKILL)
            began = asyncio.get_running_loop().time()
            await model.owner.death()
            assert asyncio.get_running_loop().time() - began < 10
        assert not any(map(exists, pids))

    run(main(Nursery.launch(environment(tmp_path))))


def has_no_socket(pid: int) -> bool:
    return not any(link.startswith("socket") for link in descriptors(pid))


@pytest.mark.parametrize("factory", LOOPS)
def test_nothing_leaks_over_twenty_workers(tmp_path: Path, factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            counts: list[tuple[int, int]] = []
            for generation in range(1, 21):
                model = Model(pool, tmp_path / "m", ECHO)
                worker = await model.load(generation=generation, fork=generation % 5 > 0)
                worker.kill()
                await model.owner.death()
                assert children(nursery.pid) == []
                await asyncio.sleep(0)  # transports close in the turn after
                counts.append((len(descriptors()), len(descriptors(nursery.pid))))
            assert counts[-1] == counts[2], counts
        assert list((tmp_path / "tmp").iterdir()) == []
        assert not exists(nursery.pid)

    run(main(Nursery.launch(environment(tmp_path))), factory)
