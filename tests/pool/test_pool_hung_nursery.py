"""A nursery that hangs: workers end all the same, and in the end it is replaced."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from pool_stage import DEADLINE, ECHO, EVAL, Model, children, descriptors, environment, eventually, exists, pool_of, run
from test_pool_launched import Stage, play

from harness.signals import suspend, suspended
from modelserver.errors import Cause, Certificate
from modelserver.pool.nursery import Nursery
from modelserver.pool.worker import Patience

IMPATIENT = Patience(exit=0.2, kill=0.2)


def is_dead(pid: int) -> bool:
    return not exists(pid) or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.parametrize("fork", [True, False], ids=["fork", "exec"])
def test_a_killed_worker_is_gone_without_the_nursery(tmp_path: Path, fork: bool) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path, patience=IMPATIENT) as pool:
            model = Model(pool, tmp_path / "m", "import time\n" + EVAL)
            worker = await model.load(fork=fork)
            worker.send(model.batch(b"time.sleep(600)"))
            with suspended(nursery.pid):
                worker.kill(Certificate(Cause.RESPONSE_TIMEOUT, "too slow"))
                certificate = await model.owner.death()
                assert (certificate.cause, certificate.detail) == (Cause.RESPONSE_TIMEOUT, "too slow")
                eventually(lambda: is_dead(model.owner.pid))
            other = Model(pool, tmp_path / "n", ECHO)
            again = await other.load(slot=2)
            assert await other.ask(again, b"alive") == b"alive"
            assert children(nursery.pid) == [other.owner.pid]
            assert model.owner.calls.count("gone") == 1

    run(main(Nursery.launch(environment(tmp_path))))


@pytest.mark.parametrize(
    ("code", "cause", "detail"),
    [
        (b"os.kill(os.getpid(), 11)", Cause.SIGNAL, "killed by SIGSEGV"),
        (b"os.kill(os.getpid(), 9)", Cause.OUT_OF_MEMORY, "killed by SIGKILL, as the kernel does when memory runs out"),
        (b"os._exit(3)", Cause.EXIT, "process exited with status 3"),
    ],
)
def test_a_death_is_told_as_it_was_without_the_nursery(tmp_path: Path, code: bytes, cause: Cause, detail: str) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path, patience=IMPATIENT) as pool:
            model = Model(pool, tmp_path / "m", EVAL)
            worker = await model.load()
            with suspended(nursery.pid):
                worker.send(model.batch(code))
                certificate = await model.owner.death()
                assert (certificate.cause, certificate.detail) == (cause, detail)
                assert certificate.max_rss is None

    run(main(Nursery.launch(environment(tmp_path))))


def test_a_launched_worker_is_gone_without_the_nursery(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        worker = await stage.load()
        pids = [stage.owner.pid, *stage.ranks()]
        with suspended(stage.nursery.pid):
            worker.kill(Certificate(Cause.RESPONSE_TIMEOUT, "too slow"))
            assert (await stage.owner.death()).detail == "too slow"
            await asyncio.to_thread(eventually, lambda: all(map(is_dead, pids)))

    play(tmp_path, scene, IMPATIENT)


def test_who_was_given_up_is_not_let_in(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path, patience=Patience(connect=0.2)) as pool:
            model = Model(pool, tmp_path / "m", ECHO)
            with suspended(nursery.pid):
                worker = model.start()
                assert worker.seat(0) is worker
                assert (await model.owner.death()).cause is Cause.LOAD_TIMEOUT
                assert worker.seat(0) is None
            assert model.owner.calls == ["gone"]

    run(main(Nursery.launch(environment(tmp_path))))


def test_a_nursery_that_takes_no_orders_is_replaced(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model, late = Model(pool, tmp_path / "m", ECHO), Model(pool, tmp_path / "n", ECHO)
            worker = await model.load(slot=1)
            first = nursery.pid
            suspend(first)
            worker.kill(Certificate(Cause.RESPONSE_TIMEOUT, "too slow"))
            late.start(slot=2)
            assert (await model.owner.death()).detail == "too slow"
            assert (await late.owner.death()).cause is Cause.SPAWN
            again = Model(pool, tmp_path / "o", ECHO)
            worker = await again.load(slot=3)
            assert await again.ask(worker, b"alive") == b"alive"
            assert nursery.pid != first
            assert not any(map(exists, (first, model.owner.pid)))

    run(main(Nursery.launch(environment(tmp_path), silence=1.0)))


def test_a_nursery_that_answers_or_has_nothing_to_answer_stays(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", ECHO)
            first = nursery.pid
            worker = await model.load()
            assert await model.ask(worker) == b""
            with suspended(first):
                await asyncio.sleep(1.3)  # longer than the silence that is allowed
            worker.kill()
            await model.owner.death()
            assert nursery.pid == first

    run(main(Nursery.launch(environment(tmp_path), silence=1.0)))


def test_a_nursery_that_still_imports_is_waited_for(tmp_path: Path) -> None:
    environ = environment(tmp_path)
    (tmp_path / "modules" / "sluggish.py").write_text("import time\ntime.sleep(1.5)")

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            model = Model(pool, tmp_path / "m", ECHO)
            first = nursery.pid
            worker = await model.load()
            assert await model.ask(worker, b"patience") == b"patience"
            assert nursery.pid == first

    run(main(Nursery.launch(environ, silence=1.0, modules=["sluggish"])))


def test_the_pool_closes_while_no_nursery_can_be_started(tmp_path: Path) -> None:
    async def main() -> None:
        python = tmp_path / "python"
        python.symlink_to("/bin/cat")  # ends at once, whatever it is asked for
        nursery = Nursery(environment(tmp_path), python=str(python))
        async with pool_of(nursery, tmp_path) as pool:
            first = Model(pool, tmp_path / "m", ECHO)
            first.start(slot=1)
            assert (await first.owner.death()).cause is Cause.SPAWN
            python.unlink()
            waiting = Model(pool, tmp_path / "n", ECHO)
            waiting.start(slot=2)
        assert (await waiting.owner.death()).cause is Cause.SPAWN
        closed = Model(pool, tmp_path / "o", ECHO)
        before = len(descriptors())
        closed.start(slot=3)
        assert "the server stops" in (await closed.owner.death()).detail
        assert len(descriptors()) == before

    run(main())


def test_an_order_that_the_kernel_does_not_take_fails_and_the_others_arrive(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path) as pool:
            await Model(pool, tmp_path / "a", ECHO).load(slot=1)
            nursery._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
            before = len(descriptors())
            model = Model(pool, tmp_path / "m", ECHO)
            model.start(slot=2, environment={"BIG": "x" * (1 << 16)})
            certificate = await model.owner.death()
            assert certificate.cause is Cause.SPAWN
            assert "Message too long" in certificate.detail
            assert len(descriptors()) == before
            async with asyncio.timeout(DEADLINE):
                await Model(pool, tmp_path / "n", ECHO).load(slot=3)

    run(main(Nursery.launch(environment(tmp_path))))
