"""Kinds of logging against a stand-in for TorchServe, which logs nothing."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.archives import Archives
from benchmarks.contenders import Contender, everything
from benchmarks.figures import ACCESS_ONLY, BUILT_IN, EVERYTHING, LOGGED, P99, RATE, SERVER_CPU, Samples, log_figure
from benchmarks.logs import CONFIGURATIONS, LogBench, Writing
from benchmarks.plan import Plan
from benchmarks.servers import RestServer
from benchmarks.targets import MODELSERVER, TARGETS, TORCHSERVE

PLAN = Plan((), rounds=2, duration=1, warm_up=1)
needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


class Launches:
    """Makes servers and remembers with which configuration."""

    def __init__(self, program: Path, archives: Archives) -> None:
        self.configurations: list[Path | None] = []
        self._program = program
        self._archives = archives

    def launch(self, directory: Path, config: Path | None) -> RestServer:
        self.configurations.append(config)
        return RestServer(self._program, self._archives, directory)

    def contender(self, name: str = MODELSERVER) -> Contender:
        return Contender(name, "1", None, everything, launch_logging=self.launch)


def run(contenders: list[Contender], directory: Path, *kinds: str, **more: Writing | None) -> Samples:
    samples = Samples()
    configurations = {kind: CONFIGURATIONS[kind] for kind in kinds}
    LogBench(contenders, PLAN, directory, samples, lambda line: None, {**configurations, **more}).run()
    return samples


@pytest.mark.parametrize("kind", [ACCESS_ONLY, EVERYTHING])
def test_configurations_are_log4j2s(tmp_path: Path, kind: str) -> None:
    write = CONFIGURATIONS[kind]
    assert write is not None
    root = ElementTree.parse(write(tmp_path / "x.xml")).getroot()
    appenders = root.find("Appenders")
    assert root.tag == "Configuration"
    assert appenders is not None
    references = {each.get("ref") for each in root.iter("AppenderRef")}
    assert references == {each.get("name") for each in appenders}


def test_every_kind_has_a_target() -> None:
    assert [target.figure for target in TARGETS if target.figure in {log_figure(kind, RATE) for kind in LOGGED}] == [
        log_figure(kind, RATE) for kind in LOGGED
    ]


@needs_wrk
def test_all_servers_are_measured_with_the_same_file(tmp_path: Path, standin_program: Path, archives: Archives) -> None:
    launches = Launches(standin_program, archives)
    samples = run([launches.contender(), launches.contender(TORCHSERVE)], tmp_path, BUILT_IN, ACCESS_ONLY)
    assert samples.void == []
    figures = {log_figure(kind, figure) for kind in (BUILT_IN, ACCESS_ONLY) for figure in (RATE, P99, SERVER_CPU)}
    for name in (MODELSERVER, TORCHSERVE):
        counts = {figure: len(values) for figure, values in samples.values[name].items()}
        assert counts == dict.fromkeys(figures, PLAN.rounds)
    config = tmp_path / "access-log-only.xml"
    assert launches.configurations == [None, None, config, config]


def test_server_that_does_not_start_is_void(tmp_path: Path, archives: Archives) -> None:
    samples = run([Launches(Path("/bin/false"), archives).contender()], tmp_path, BUILT_IN)
    assert not samples.values
    assert samples.void[0].startswith("modelserver, default logging: server ended while it started")


def test_contenders_without_logs_to_compare_are_left_out(tmp_path: Path) -> None:
    samples = run([Contender(MODELSERVER, "1", None, everything)], tmp_path, BUILT_IN)
    assert (samples.values, samples.void) == ({}, [])
