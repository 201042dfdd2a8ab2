"""A kill every second, against a stand-in for TorchServe: one request fails for each worker that dies."""

from __future__ import annotations

import sys
from pathlib import Path

import psutil

from benchmarks.archives import Archives
from benchmarks.contenders import Contender, everything
from benchmarks.crowd import Tally
from benchmarks.figures import KILL_LOOP, KILLS, KILLS_LOST, KILLS_UNANSWERED, KILLS_UNEXPLAINED, Samples
from benchmarks.kills import DEPLOYMENT, KillBench, Killer, kill_figures
from benchmarks.plan import Plan
from benchmarks.servers import RestServer
from benchmarks.targets import MODELSERVER, TORCHSERVE
from harness.server import ended, eventually


def contender(name: str, program: Path, archives: Archives) -> Contender:
    def launch(directory: Path) -> RestServer:
        return RestServer(program, archives, directory)

    return Contender(name, "1", lambda deployments, directory: launch(directory), everything, launch)


def test_figures_of_both_runs() -> None:
    calm = Tally(good=1000, slowest=0.1)
    tally = Tally(good=900, failures={500: 3, 507: 1}, unexplained=2, cut=1, given_up=5, slowest=2.0)
    figures = kill_figures(calm, tally, kills=4, seconds=10)
    assert tuple(figures) == KILL_LOOP
    assert list(figures.values()) == [100.0, 90.0, 0.9, 4, 2.5, 2, 6, 2.0]


def test_workers_are_killed_in_turns(standin: RestServer) -> None:
    standin.start()
    standin.deploy(DEPLOYMENT)
    standin.scale(DEPLOYMENT, 2)
    workers = [psutil.Process(pid) for pid in standin.worker_pids(DEPLOYMENT)]
    killer = Killer(standin, DEPLOYMENT)
    killer.kill_one()
    eventually(lambda: [ended(worker) for worker in workers] == [True, False])
    killer.kill_one()
    eventually(lambda: all(map(ended, workers)))
    assert killer.kills == 2


def test_nothing_is_killed_where_nothing_is_ready(standin: RestServer) -> None:
    standin.start()
    standin.deploy(DEPLOYMENT)
    standin.scale(DEPLOYMENT, 0)
    killer = Killer(standin, DEPLOYMENT)
    killer.kill_one()
    assert killer.kills == 0


def test_kill_loop_counts_what_the_kills_cost(tmp_path: Path, standin_program: Path, archives: Archives) -> None:
    broken = tmp_path / "broken"
    broken.write_text(f"#!{sys.executable}\nraise SystemExit(3)\n")
    broken.chmod(0o755)
    contenders = [contender(MODELSERVER, broken, archives), contender(TORCHSERVE, standin_program, archives)]
    samples = Samples()
    plan = Plan((), rounds=1, duration=1, warm_up=1, kills=3)
    KillBench(contenders, plan, tmp_path, samples, lambda line: None).run()
    assert set(samples.values) == {TORCHSERVE}
    figures = samples.summary()[TORCHSERVE]
    assert set(figures) == set(KILL_LOOP)
    assert all(figures[figure] > 0 for figure in set(KILL_LOOP) - {KILLS_UNANSWERED})
    assert (figures[KILLS], figures[KILLS_UNEXPLAINED]) == (2, 2)
    assert (figures[KILLS_LOST], figures[KILLS_UNANSWERED]) == (1, 0)
    (void,) = samples.void
    assert void.startswith("modelserver, kill loop, start: server ended")
