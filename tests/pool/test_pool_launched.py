"""Workers of several processes, made by a launcher of the test's own."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from pool_stage import DEADLINE, ECHO, Model, children, environment, eventually, exists, pool_of, run

from harness.signals import suspend
from modelserver.errors import Cause
from modelserver.pool.nursery import Nursery
from modelserver.pool.orphans import Exit
from modelserver.pool.pool import Pool
from modelserver.pool.worker import Patience, Worker
from modelserver.wire.frames import Loaded, Replies, Stop

# Starts as many ranks as its first argument says. REAP: notices the end of one at once, before anybody else.
LAUNCHER = """
import os, subprocess, sys, time
count, program = int(sys.argv[1]), [sys.executable, *sys.argv[2:]]
if os.environ.get("BREAK"):
    sys.exit("no rendezvous today")
ranks = [
    subprocess.Popen(program, env={**os.environ, "LOCAL_RANK": str(rank)}, start_new_session=True)
    for rank in range(count)
]
while os.environ.get("REAP"):
    for rank in ranks:
        rank.poll()
time.sleep(1000)
"""
RANKED = """
import json, os, socket, sys, time
rank = int(os.environ["LOCAL_RANK"])

def handle(data, context):
    if data is None:
        if os.environ.get("FAIL") == str(rank):
            raise ValueError("not on this rank")
        if os.environ.get("HANG"):
            time.sleep(1000)
        return
    print("saw", len(data))
    context.metrics.add_counter("Seen", 1)
    return [json.dumps(eval(bytes(row["body"]).decode())) for row in data]

def close_sockets():
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        try:
            socket.socket(fileno=os.dup(descriptor)).shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
    time.sleep(1000)
"""


class Stage:
    """A nursery that knows the launcher, a pool, and one model."""

    def __init__(self, nursery: Nursery, pool: Pool, directory: Path) -> None:
        self.nursery = nursery
        self.pool = pool
        self.model = Model(pool, directory / "m", RANKED)
        self.owner = self.model.owner

    def start(self, ranks: int = 2, **spec: Any) -> Worker:
        spec.setdefault("launcher", ("-m", "launch", str(ranks)))
        return self.model.start(ranks=ranks, **spec)

    async def load(self, ranks: int = 2, *, to_all_ranks: bool = True, **variables: str) -> Worker:
        return await self.model.load(
            ranks=ranks, launcher=("-m", "launch", str(ranks)), to_all_ranks=to_all_ranks, environment=variables
        )

    def ranks(self) -> list[int]:
        return children(self.owner.pid)

    def printed(self, line: str) -> int:
        return self.owner.lines["stdout"].count(line)


def play(path: Path, scene: Any, patience: Patience | None = None) -> None:
    (path / "launchers").mkdir()
    (path / "launchers" / "launch.py").write_text(LAUNCHER)
    environ = environment(path)
    environ["PYTHONPATH"] += f":{path / 'launchers'}"

    async def main(nursery: Nursery) -> None:
        async with pool_of(nursery, path, patience=patience) as pool:
            await scene(Stage(nursery, pool, path))

    run(main(Nursery.launch(environ)))


async def gone(pids: list[int]) -> None:
    """Reaped, too."""
    await asyncio.to_thread(eventually, lambda: not any(map(exists, pids)))


def test_all_ranks_load_and_compute_and_the_first_answers(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        worker = await stage.load(ranks=3)
        assert stage.owner.frames == [Loaded(200, "loaded model m")], "once"
        assert json.loads(await stage.model.ask(worker, b"rank")) == 0
        skips = [f"skip sending response at rank {rank}" for rank in (1, 2)]
        await stage.owner.until(lambda: [stage.printed(line) for line in ("saw 1", *skips)] == [3, 1, 1])
        assert sum("Backend received inference at: " in line for line in stage.owner.lines["stdout"]) == 2
        await stage.owner.until(lambda: [metric.name for metric in stage.owner.metrics].count("Seen") == 2)
        assert worker.memory() > 3 * (1 << 20)
        pids = [stage.owner.pid, *stage.ranks()]
        assert len(pids) == 4
        worker.kill()
        certificate = await stage.owner.death()
        assert certificate.cause is Cause.STOPPED
        await gone(pids)

    play(tmp_path, scene)


def test_a_pipeline_begins_at_the_first_rank(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        worker = await stage.load(to_all_ranks=False)
        assert json.loads(await stage.model.ask(worker, b"rank")) == 0
        await stage.owner.until(lambda: stage.printed("saw 1") == 1)
        worker.send(Stop())
        await stage.owner.death()

    play(tmp_path, scene)


def test_one_rank_under_a_launcher(tmp_path: Path) -> None:
    """Its exit status is the worker's, not the launcher's."""

    async def scene(stage: Stage) -> None:
        worker = await stage.load(ranks=1)
        worker.send(stage.model.batch(b"os._exit(7)"))
        certificate = await stage.owner.death()
        assert (certificate.exit_code, certificate.detail) == (7, "process exited with status 7")
        assert (certificate.max_rss or 0) > 1 << 20

    play(tmp_path, scene)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_end_of_one_rank_is_the_end_of_all(tmp_path: Path, rank: int) -> None:
    async def scene(stage: Stage) -> None:
        worker = await stage.load()
        pids = [stage.owner.pid, *stage.ranks()]
        worker.send(stage.model.batch(f"os._exit(9) if rank == {rank} else time.sleep(1000)".encode()))
        certificate = await stage.owner.death()
        assert (certificate.cause, certificate.exit_code) == (Cause.EXIT, 9)
        assert certificate.detail == f"rank {rank}: process exited with status 9"
        assert not stage.owner.unread
        await gone(pids)

    play(tmp_path, scene)


def test_a_rank_that_finishes_slowly_keeps_its_exit_status(tmp_path: Path) -> None:
    """Its connection ends long before its process does."""

    async def scene(stage: Stage) -> None:
        worker = await stage.load()
        worker.send(stage.model.batch(b"rank == 1 and (__import__('atexit').register(time.sleep, 0.3), sys.exit(5))"))
        certificate = await stage.owner.death()
        assert (certificate.exit_code, certificate.detail) == (5, "rank 1: SystemExit: 5")

    play(tmp_path, scene)


def test_a_killed_launcher_is_the_reason_itself(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.load()
        ranks = stage.ranks()
        os.kill(stage.owner.pid, signal.SIGTERM)  # shielded
        os.kill(stage.owner.pid, signal.SIGSEGV)
        certificate = await stage.owner.death()
        assert (certificate.cause, certificate.detail) == (Cause.SIGNAL, "killed by SIGSEGV")
        await gone(ranks)

    play(tmp_path, scene)


def test_a_launcher_that_reaps_its_ranks_first_costs_the_status_only(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.load(REAP="1")
        pids = [stage.owner.pid, *stage.ranks()]
        os.kill(pids[2], signal.SIGSEGV)
        certificate = await stage.owner.death()
        assert certificate.detail in ("rank 1: process ended, its exit status is unknown", "rank 1: killed by SIGSEGV")
        await gone(pids)

    play(tmp_path, scene)


def test_the_first_rank_that_cannot_load_is_the_reason(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.load(FAIL="1", HANG="1")
        (loaded,) = stage.owner.frames
        assert isinstance(loaded, Loaded)
        assert loaded.code == 500
        certificate = await stage.owner.death()
        assert (certificate.cause, certificate.detail) == (Cause.INITIALIZE, "rank 1: ValueError: not on this rank")
        assert "raise ValueError" in certificate.traceback

    play(tmp_path, scene)


def test_a_launcher_that_makes_no_ranks(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.load(BREAK="1")
        certificate = await stage.owner.death()
        assert certificate.cause is Cause.EXIT
        assert "Process exited with status 1 before it connected: no rendezvous today" in certificate.detail

    play(tmp_path, scene)


def test_a_rank_that_never_connects_is_not_waited_for_without_limit(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        stage.start(ranks=3, launcher=("-m", "launch", "2"))  # the third will never come
        certificate = await stage.owner.death()
        assert (certificate.cause, certificate.detail) == (Cause.LOAD_TIMEOUT, "Backend worker startup time out.")
        assert "connected" not in stage.owner.calls
        await gone([stage.owner.pid])

    play(tmp_path, scene, Patience(connect=3.0))


def test_a_rank_that_lets_go_of_its_connection_and_stays_is_killed(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        worker = await stage.load()
        pids = [stage.owner.pid, *stage.ranks()]
        worker.send(stage.model.batch(b"close_sockets() if rank == 1 else time.sleep(1000)"))
        certificate = await stage.owner.death()
        assert certificate.detail == "closed its connection, but did not exit"
        await gone(pids)

    play(tmp_path, scene, Patience(exit=0.3))


def test_a_batch_that_no_rank_has_read_was_not_begun(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        worker = await stage.load()
        ranks = stage.ranks()
        for pid in ranks:
            suspend(pid)
        worker.send(stage.model.batch(b"1"))
        for pid in ranks:
            os.kill(pid, signal.SIGKILL)
        await stage.owner.death()
        assert stage.owner.unread
        assert not [frame for frame in stage.owner.frames if isinstance(frame, Replies)]

    play(tmp_path, scene)


def test_ranks_that_have_not_connected_end_with_the_worker(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        worker = stage.start()
        async with asyncio.timeout(DEADLINE):
            while len(stage.ranks() if stage.owner.pid else []) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        pids = [stage.owner.pid, *stage.ranks()]
        worker.kill()
        await stage.owner.death()
        await gone(pids)

    play(tmp_path, scene)


class Witness:
    """Watches a process."""

    def __init__(self) -> None:
        self.ends: asyncio.Queue[Exit | None] = asyncio.Queue()

    def exited(self, end: Exit | None, *, orphaned: bool = False) -> None:
        self.ends.put_nowait(end)


def test_a_rank_cannot_take_the_place_of_another_worker(tmp_path: Path) -> None:
    async def scene(stage: Stage) -> None:
        await stage.load()
        other = Model(stage.pool, tmp_path / "other", ECHO)
        worker = await other.load(slot=1)
        witness = Witness()
        stage.nursery.adopt(other.owner.pid, stage.owner.pid, witness)
        assert await witness.ends.get() is None
        worker.kill()
        await other.owner.death()
        assert stage.owner.certificate is None

    play(tmp_path, scene)
