"""Workers that somebody starts by hand: the pool says how, serves through them, and kills nobody."""

from __future__ import annotations

import subprocess
from pathlib import Path

from pool_stage import ECHO, Model, environment, pool_of, run

from modelserver.errors import Cause
from modelserver.pool.nursery import Nursery


def order_file(directory: Path) -> list[Path]:
    return list((directory / "tmp").glob("ms-*/order-*"))


def start(command: str, directory: Path) -> subprocess.Popen[bytes]:
    """What somebody does in a terminal."""
    return subprocess.Popen(["sh", "-c", "exec env " + command], env=environment(directory), stdout=subprocess.PIPE)


def test_the_command_in_the_log_starts_the_worker(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path, by_hand=True) as pool:
            model = Model(pool, tmp_path / "m", ECHO)
            worker = model.start()
            (line,) = model.owner.lines["stdout"]
            prefix = "debug=true: start worker 9000 by hand: "
            assert line.startswith(prefix)
            (order,) = order_file(tmp_path)
            assert order.stat().st_mode & 0o777 == 0o600
            with start(line.removeprefix(prefix), tmp_path) as terminal:
                await model.loaded(worker)
                assert order_file(tmp_path) == []
                assert model.owner.pid == terminal.pid
                assert await model.ask(worker, b"hello") == b"hello"
                assert worker.memory() > 1 << 20
                worker.kill()
                assert (await model.owner.death()).cause is Cause.EXIT
                output, _ = terminal.communicate(timeout=60)
            assert terminal.returncode == 0
            assert b"Frontend disconnected." in output

    run(main(Nursery.launch(environment(tmp_path))))


def test_one_that_is_never_started_can_be_given_up(tmp_path: Path) -> None:
    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, tmp_path, by_hand=True) as pool:
            model = Model(pool, tmp_path / "m", ECHO)
            worker = model.start()
            worker.kill()
            await model.owner.death()
            assert order_file(tmp_path) == []

    run(main(Nursery.launch(environment(tmp_path))))
