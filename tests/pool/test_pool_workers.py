"""Workers as processes: how they start, what they find, what they may do."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop
from pool_stage import (
    DEADLINE,
    ECHO,
    EVAL,
    ROOT,
    Model,
    command_line,
    environment,
    exists,
    oom_score,
    pool_of,
    run,
    threads_of,
)

from modelserver.engine.ports import WorkerOwner, WorkerPort
from modelserver.errors import Cause
from modelserver.pool.contract import Owner as PoolOwner
from modelserver.pool.nursery import Nursery
from modelserver.pool.pool import Pool
from modelserver.wire.frames import Hello, Loaded, Replies, Stop, encode

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]
BOTH_WAYS = pytest.mark.parametrize("fork", [True, False], ids=["fork", "exec"])


def as_engine_sees_it(pool: Pool, owner: WorkerOwner) -> tuple[WorkerPort, PoolOwner]:
    """Type-checked: a pool is the engine's worker port, and the engine's owners are the pool's."""
    return pool, owner


@pytest.mark.parametrize("factory", LOOPS)
@BOTH_WAYS
def test_a_worker_loads_serves_and_stops(
    tmp_path: Path, factory: Callable[[], asyncio.AbstractEventLoop], fork: bool
) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", ECHO)
            worker = await model.load(fork=fork)
            owner = model.owner
            assert owner.frames == [Loaded(200, "loaded model m")]
            assert await model.ask(worker, b"\x00\xff" * 100_000) == b"\x00\xff" * 100_000
            assert command_line(owner.pid) == f"W-9000-m_1.0 {owner.command[-1]}"
            worker.send(Stop())
            certificate = await owner.death()
            assert certificate.detail == "process exited with status 0"
            assert certificate.cause is Cause.EXIT
            assert (certificate.max_rss or 0) > 1 << 20
            assert owner.calls == ["spawned", "connected", "received", "received", "gone"]
            assert not owner.unread
            assert owner.lines["stdout"][:5] == [
                f"[PID]{owner.pid}",
                "Torch worker started.",
                f"Python runtime: {platform.python_version()}",
                f"Connection accepted: {owner.command[-1]}.",
                "model_name: m, batchSize: 1",
            ]
            assert owner.lines["stderr"] == []

    run(main(Nursery.launch(environment(tmp_path))), factory)


FACTS = """
import json, logging, os, signal, sys

def descriptors():
    with os.scandir("/proc/self/fd") as entries:
        own = [os.readlink(entry.path) for entry in entries]
    return sorted(link.split(":")[0] for link in own if not link.endswith("/fd"))  # less that of the scan

def handle(data, context):
    if data is None:
        return None
    return [json.dumps({
        "environ": dict(os.environ),
        "cwd": os.getcwd(),
        "path": sys.path[:2],
        "argv": sys.argv,
        "descriptors": descriptors(),
        "leads_session": os.getsid(0) == os.getpid(),
        "wakeup": signal.set_wakeup_fd(-1),
        "child_signal": signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL,
        "logging": [logging.getLogger().level, len(logging.getLogger().handlers)],
        "victim": int(open("/proc/self/oom_score_adj").read()),
    })]
"""


@BOTH_WAYS
@pytest.mark.parametrize("user_threads", [None, "3"])
def test_what_a_worker_finds(tmp_path: Path, fork: bool, user_threads: str | None) -> None:
    """The user's environment and the order's, nothing of the nursery's; a clean process."""
    environ = environment(tmp_path, MY_SECRET_X="1", FOO="2", FOOBAR="3", CHANGED="old")
    environ |= {"OMP_NUM_THREADS": user_threads} if user_threads else {}

    async def main(nursery: Nursery) -> None:
        variables = {"TS_DECODE_INPUT_REQUEST": "true", "POOL_SECRET": "x"}
        async with pool_of(nursery, tmp_path, hidden=".*SECRET.*|FOO", variables=variables) as pool:
            model = Model(pool, tmp_path / "m", FACTS)
            inherited = environ["PYTHONPATH"].split(":")
            path = (inherited[0], str(model.directory))
            worker = await model.load(fork=fork, environment={"CHANGED": "new"}, python_path=path)
            seen = json.loads(await model.ask(worker))
            expected = {
                **environ,
                "CHANGED": "new",
                "TS_DECODE_INPUT_REQUEST": "true",
                "PYTHONPATH": ":".join([*path, *inherited[1:]]),
            }
            del expected["MY_SECRET_X"], expected["FOO"]
            seen["environ"].pop("LC_CTYPE", None)  # set by every Python that starts in the C locale
            expected.pop("LC_CTYPE", None)
            assert seen["environ"] == expected
            assert seen["cwd"] == str(model.directory)
            assert seen["path"] == list(path)
            assert seen["argv"] == model.owner.command[-3:]
            assert seen["leads_session"]
            assert seen["wakeup"] == -1
            assert seen["child_signal"]
            assert seen["logging"] == [logging.INFO, 1]
            assert seen["descriptors"] == ["/dev/null", "pipe", "pipe", "socket"]
            assert seen["victim"] > oom_score()

    run(main(Nursery.launch(environ)))


@BOTH_WAYS
def test_terminals_and_service_managers_do_not_end_a_worker(tmp_path: Path, fork: bool) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", EVAL)
            worker = await model.load(fork=fork)
            for target in (model.owner.pid, nursery.pid):
                os.killpg(target, signal.SIGTERM)
                os.killpg(target, signal.SIGINT)
            # A program that the handler starts is not shielded.
            assert await model.ask(worker, b"os.waitstatus_to_exitcode(os.system('kill -TERM $$'))") == b"-15"
            assert exists(nursery.pid)

    run(main(Nursery.launch(environment(tmp_path))))


def test_a_hello_that_overtakes_the_report_of_its_process_waits_for_it(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            loop = asyncio.get_running_loop()
            model = Model(pool, tmp_path / "m", ECHO)
            worker = model.start()
            loop.remove_reader(nursery._control)
            async with asyncio.timeout(DEADLINE):
                while not worker.connected:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert model.owner.calls == []
            loop.add_reader(nursery._control, nursery._read)
            await model.owner.until(lambda: len(model.owner.calls) == 2)
            assert model.owner.calls == ["spawned", "connected"]

    run(main(Nursery.launch(environment(tmp_path))))


def test_a_model_with_names_of_loaded_modules_gets_a_fresh_interpreter(tmp_path: Path) -> None:
    """Its json.py must neither break the start nor be hidden from, nor forced upon, anybody."""

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", EVAL)
            (model.directory / "json.py").write_text("raise RuntimeError('not the real one')")
            worker = await model.load()
            assert model.owner.frames == [Loaded(200, "loaded model m")]
            assert b"/json/__init__.py" in await model.ask(worker, b"json.__file__")
            assert await model.ask(worker, b"'modelserver.worker.nursery' in sys.modules") == b"false"  # not forked
            assert await model.ask(worker, b"sys.path[0]") == json.dumps(str(model.directory)).encode()

    run(main(Nursery.launch(environment(tmp_path))))


def test_a_flood_of_output_arrives_and_leaves_the_loop_its_turns(tmp_path: Path) -> None:
    lines = 100_000

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", EVAL)
            worker = await model.load()
            start = len(model.owner.lines["stdout"])
            flood = f"sys.stdout.write(('x' * 79 + chr(10)) * {lines})"
            worker.send(model.batch(f"{flood} and print('no end', end='', file=sys.stderr, flush=True)".encode()))
            loop = asyncio.get_running_loop()
            slowest = 0.0
            while len(model.owner.lines["stdout"]) < start + lines:
                began = loop.time()
                await asyncio.sleep(0)
                slowest = max(slowest, loop.time() - began)
            assert slowest < 0.5  # a whole flood takes seconds; the machine may be busy
            await model.owner.until(lambda: len(model.owner.frames) == 2)
            worker.kill()
            certificate = await model.owner.death()
            assert model.owner.lines["stderr"] == ["no end"]
            assert len(certificate.last_output) == 50

    run(main(Nursery.launch(environment(tmp_path))))


@pytest.mark.parametrize("shared", ["numpy", "numpy.random"])
def test_forked_workers_draw_different_numbers(tmp_path: Path, shared: str) -> None:
    """Also where each of them imports the generators by itself."""

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            drawn = []
            for slot in (1, 2):
                model = Model(pool, tmp_path / "m", "import numpy\n" + EVAL)
                worker = await model.load(slot=slot)
                drawn.append(json.loads(await model.ask(worker, b"[random.random(), numpy.random.rand()]")))
            assert drawn[0][0] != drawn[1][0]
            assert drawn[0][1] != drawn[1][1]

    run(main(Nursery.launch(environment(tmp_path), modules=[shared])))


def test_parallel_torch_operations_in_forked_workers(tmp_path: Path) -> None:
    """OpenMP hangs in children of a process that ran a parallel operation: the nursery never runs one."""
    product = b"[torch.get_num_threads(), float((torch.ones(1500, 1500) @ torch.ones(1500, 1500))[0, 0])]"

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            for slot, threads in enumerate((2, 2, 0)):
                model = Model(pool, tmp_path / "m", "import torch\n" + EVAL)
                worker = await model.load(slot=slot, threads=threads)
                used, result = json.loads(await model.ask(worker, product))
                assert result == 1500
                assert used == (threads or fresh_threads())
                assert await model.ask(worker, b"'modelserver.worker.nursery' in sys.modules") == b"true"  # forked
                assert threads_of(nursery.pid) == 1
            assert nursery.ready is not None
            assert nursery.ready.torch

    run(main(Nursery.launch(environment(tmp_path), modules=["torch"])))


@pytest.mark.parametrize("chosen", [None, 1])
def test_thread_settings_of_an_interpreter_of_its_own(tmp_path: Path, chosen: int | None) -> None:
    handler = "import torch\n" + (f"torch.set_num_threads({chosen})\n" if chosen else "") + EVAL

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", handler)
            worker = await model.load(threads=3, fork=False)
            assert json.loads(await model.ask(worker, b"torch.get_num_threads()")) == (chosen or 3)

    run(main(Nursery.launch(environment(tmp_path))))


def fresh_threads() -> int:
    """Threads of torch in an interpreter that nobody has prepared."""
    command = [sys.executable, "-c", "import torch; print(torch.get_num_threads())"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "MKL_"))}
    return int(subprocess.run(command, capture_output=True, env=environ, check=True).stdout)


def test_strangers_and_late_workers_are_sent_away(tmp_path: Path) -> None:
    def attempt(path: str, words: bytes) -> bytes:
        with socket.socket(socket.AF_UNIX) as stranger:
            stranger.settimeout(DEADLINE)
            stranger.connect(path)
            try:
                stranger.sendall(words)
                return stranger.recv(1)
            except ConnectionError:
                return b""

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path, hello_timeout=1.0) as pool:
            model = Model(pool, tmp_path / "m", ECHO)
            worker = await model.load()
            path, token = model.owner.command[-1], worker.token
            assert stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
            for hello in (
                Hello(9000, 1, 0, 1, token, ""),  # connected already
                Hello(9000, 2, 0, 1, token, ""),
                Hello(9001, 1, 0, 1, token, ""),
            ):
                assert await asyncio.to_thread(attempt, path, encode(hello)) == b""
            assert await asyncio.to_thread(attempt, path, b"") == b""  # silent
            waiting = Model(pool, tmp_path / "w", ECHO)
            sleeping = waiting.start(slot=9005, executable="/bin/sleep")
            wrong = Hello(9005, 1, 0, 1, "0" * len(sleeping.token), "")
            assert await asyncio.to_thread(attempt, path, encode(wrong)) == b""
            assert "connected" not in waiting.owner.calls
            assert await model.ask(worker, b"still here") == b"still here"

    run(main(Nursery.launch(environment(tmp_path))))


def test_metrics_outside_a_batch_are_reported(tmp_path: Path) -> None:
    handler = """
    def handle(data, context):
        if data is None:
            context.metrics.add_counter("Loads", 1)
            return None
        return [b"ok"]
    """

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", handler)
            worker = await model.load()
            assert await model.ask(worker) == b"ok"
            assert [metric.name for metric in model.owner.metrics] == ["Loads"]
            assert isinstance(model.owner.frames[-1], Replies)

    run(main(Nursery.launch(environment(tmp_path))))


def test_the_package_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's way to its own package (a path edit, an editable install) need not work in another interpreter."""

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            for fork in (True, False):
                model = Model(pool, tmp_path / "m", ECHO)
                worker = await model.load(slot=9000 + fork, fork=fork)
                assert await model.ask(worker, b"x") == b"x"

    environ: dict[str, Any] = environment(tmp_path)
    environ["PYTHONPATH"] = environ["PYTHONPATH"].split(":")[0]  # nothing but what hides torch
    monkeypatch.chdir(tmp_path)
    assert str(ROOT) not in environ["PYTHONPATH"]
    run(main(Nursery.launch(environ)))
