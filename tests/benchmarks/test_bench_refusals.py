"""The price of a refusal, against a stand-in for TorchServe that asks for keys."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.archives import Archives
from benchmarks.contenders import Contender, everything
from benchmarks.figures import REFUSED, SERVED, Samples, cost_of
from benchmarks.plan import Plan
from benchmarks.refusals import REFUSED_ONES, SERVED_ONE, RefusalBench, Request, refusal_figures
from benchmarks.servers import RestServer
from benchmarks.targets import MODELSERVER, TORCHSERVE
from benchmarks.wrk import WrkReport, write_script

PLAN = Plan((), rounds=2, duration=1, warm_up=1)


def report(bad: int, socket_errors: int = 0, requests: int = 10) -> WrkReport:
    return WrkReport(requests, 1.0, 1.0, 1.0, bad, socket_errors)


def contender(program: Path, archives: Archives, *, keys: bool = True) -> Contender:
    def launch(directory: Path) -> RestServer:
        return RestServer(program, archives, directory, keys=keys)

    return Contender(MODELSERVER, "1", lambda deployments, directory: launch(directory), everything, launch, launch)


def run(contenders: list[Contender], directory: Path) -> Samples:
    samples = Samples()
    RefusalBench(contenders, PLAN, directory, samples, lambda line: None).run()
    return samples


def test_refusals_are_compared_with_what_is_served() -> None:
    costs = {SERVED: 200.0, **dict.fromkeys(REFUSED, 100.0)}
    assert refusal_figures(costs) == {
        **{cost_of(name): cost for name, cost in costs.items()},
        **dict.fromkeys(REFUSED, 0.5),
    }


@pytest.mark.parametrize("request_", REFUSED_ONES, ids=lambda request: request.name)
def test_a_run_counts_if_every_request_is_refused(request_: Request) -> None:
    assert request_.is_answered(report(10))
    assert not any(request_.is_answered(each) for each in (report(9), report(0), report(10, 1), report(0, 0, 0)))


def test_a_run_counts_if_every_request_is_served() -> None:
    assert SERVED_ONE.is_answered(report(0))
    assert not any(SERVED_ONE.is_answered(each) for each in (report(1), report(10), report(0, 1), report(0, 0, 0)))


def test_a_script_may_have_headers(tmp_path: Path) -> None:
    write_script(tmp_path / "script", "text/plain", "x", {"Authorization": "Bearer a"})
    assert (tmp_path / "script").read_text().splitlines() == [
        'wrk.method = "POST"',
        'wrk.headers["Content-Type"] = "text/plain"',
        'wrk.body = "x"',
        'wrk.headers["Authorization"] = "Bearer a"',
    ]


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_every_kind_is_measured_in_every_round(tmp_path: Path, standin_program: Path, archives: Archives) -> None:
    samples = run([contender(standin_program, archives)], tmp_path)
    assert samples.void == []
    figures = {*REFUSED, *map(cost_of, (SERVED, *REFUSED))}
    counts = {name: len(values) for name, values in samples.values[MODELSERVER].items()}
    assert counts == dict.fromkeys(figures, PLAN.rounds)


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_a_server_that_refuses_nothing_is_void(tmp_path: Path, standin_program: Path, archives: Archives) -> None:
    samples = run([contender(standin_program, archives, keys=False)], tmp_path)
    assert not samples.values
    assert samples.void[0].startswith("modelserver, refusals: bad key refused: ")


def test_servers_that_ask_for_no_keys_are_left_out(tmp_path: Path) -> None:
    def never(directory: Path) -> RestServer:
        raise AssertionError

    samples = run(
        [Contender(TORCHSERVE, "1", lambda deployments, directory: never(directory), everything, never)], tmp_path
    )
    assert (samples.values, samples.void) == ({}, [])
