"""Servers under measurement: the prototype for real, the REST interface against a stand-in for TorchServe."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks.archives import Archives
from benchmarks.client import NotInTime, Unreachable, call, poll
from benchmarks.contenders import Contender, everything
from benchmarks.figures import (
    CLIENT_CPU,
    IDLE,
    IDLE_FRONTEND,
    LIFECYCLE,
    P50,
    P99,
    RATE,
    SERVER_CPU,
    Samples,
    load_figure,
)
from benchmarks.lifecycle import measure_lifecycle
from benchmarks.load import LoadBench
from benchmarks.plan import MLP, NOOP, Deployment, Plan, Point
from benchmarks.servers import CallFailed, PrototypeServer, RestServer, clean_environment, free_ports, predict
from benchmarks.targets import MODELSERVER, PROTOTYPE

DEPLOYMENTS = (Deployment(NOOP, 1), Deployment(MLP, 16))


def executable(path: Path, script: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)
    return path


def test_prototype_serves_both_archives(tmp_path: Path, archives: Archives) -> None:
    server = PrototypeServer(DEPLOYMENTS, archives, tmp_path / "run")
    server.start()
    try:
        for deployment in DEPLOYMENTS:
            assert predict(server, deployment)
        answer = call("POST", server.url(DEPLOYMENTS[1]), MLP.body.encode(), MLP.mime).json()
        assert answer.keys() == {"class", "score"}
        assert not predict(server, Deployment(NOOP, 7))
    finally:
        server.stop()


def test_life_of_a_worker(standin: RestServer) -> None:
    samples = Samples()
    measure_lifecycle("standin", standin, 0.5, samples)
    figures = samples.values["standin"]
    assert set(figures) == set(LIFECYCLE)
    assert all(value > 0 for runs in figures.values() for value in runs)
    assert figures[IDLE] >= figures[IDLE_FRONTEND]
    assert standin.tree.processes() == []


def test_a_deployment_has_one_worker(standin: RestServer) -> None:
    standin.start()
    deployment = DEPLOYMENTS[0]
    standin.deploy(deployment)
    (pid,) = standin.worker_pids(deployment)
    assert psutil.Process(pid) in standin.tree.processes()
    assert predict(standin, deployment)


def test_a_refused_call_is_told_with_its_answer(standin: RestServer) -> None:
    standin.start()
    with pytest.raises(CallFailed, match="describe: 404 no such route"):
        standin.worker_pids(Deployment(NOOP, 99))


def test_a_server_that_ends_at_once_is_told(tmp_path: Path, archives: Archives) -> None:
    server = RestServer(executable(tmp_path / "broken", "raise SystemExit(3)\n"), archives, tmp_path / "run")
    try:
        with pytest.raises(CallFailed, match=r"ended while it started, see .*console\.log"):
            server.start()
    finally:
        server.stop()


@pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")
def test_load_measures_the_good_and_leaves_out_the_broken(tmp_path: Path, archives: Archives) -> None:
    good = Contender(PROTOTYPE, "1", lambda models, logs: PrototypeServer(models, archives, logs), everything)
    script = executable(tmp_path / "broken", "raise SystemExit(3)\n")
    broken = Contender(MODELSERVER, "1", lambda models, logs: RestServer(script, archives, logs), everything)
    point = Point(DEPLOYMENTS[0], 2)
    samples = Samples()
    LoadBench(
        [broken, good], Plan((point,), rounds=1, duration=1, warm_up=1), tmp_path, samples, lambda line: None
    ).run()
    assert set(samples.values) == {PROTOTYPE}
    figures = samples.values[PROTOTYPE]
    assert set(figures) == {load_figure(point, kind) for kind in (RATE, P50, P99, SERVER_CPU, CLIENT_CPU)}
    assert all(value > 0 for runs in figures.values() for value in runs)
    (void,) = samples.void
    assert void.startswith("modelserver, load: ")


def test_no_answer_is_unreachable() -> None:
    (port,) = free_ports(1)
    with pytest.raises(Unreachable):
        call("GET", f"http://127.0.0.1:{port}/")


def test_poll_takes_unreachable_as_not_yet() -> None:
    calls = 0

    def done() -> bool:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise Unreachable("down")
        return calls == 3

    poll(done, "answer", interval=0)
    assert calls == 3


def test_poll_gives_up() -> None:
    with pytest.raises(NotInTime, match="the sun: not within"):
        poll(lambda: False, "the sun", interval=0, limit=0)


def test_free_ports_differ() -> None:
    assert len(set(free_ports(20))) == 20


def test_a_server_gets_no_settings_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "TS_CONFIG_FILE", "TS_JOB_QUEUE_SIZE", "LOG_LOCATION", "TMP"):
        monkeypatch.setenv(name, "/ours")
    environment = clean_environment(tmp_path)
    assert "/ours" not in environment.values()
    assert environment["TMPDIR"] == environment["TEMP"] == str(tmp_path)
    assert environment["PATH"] == os.environ["PATH"]
