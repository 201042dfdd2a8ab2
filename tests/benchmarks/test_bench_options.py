"""The command line: what is measured, and what is said about what cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.__main__ import command_line, find_contenders, main, make_plan, parse
from benchmarks.archives import Archives
from benchmarks.plan import FULL, QUICK
from benchmarks.torchserve import Unavailable, prepare_torchserve


def test_defaults_are_the_full_plan() -> None:
    options = parse([])
    assert make_plan(options) == FULL
    assert options.servers == ["modelserver", "torchserve", "torchserve-access", "prototype", "grpc-echo", "triton"]
    assert command_line(options, FULL) == "python -m benchmarks --rounds 3 --duration 4"


def test_options_change_the_plan() -> None:
    arguments = ["--quick", "--rounds", "2", "--duration", "7", "--only", "noop b1", "--servers", "prototype"]
    options = parse(arguments)
    plan = make_plan(options)
    assert (plan.rounds, plan.duration) == (2, 7)
    assert [point.key for point in plan.points] == ["noop b1 c1", "noop b1 c32", "noop b16 c1", "noop b16 c32"]
    repeated = parse(command_line(options, plan).replace("'noop b1'", "noop_b1").split()[3:])
    assert (repeated.quick, repeated.rounds, repeated.duration) == (True, 2, 7)
    assert repeated.servers == ["prototype"]


@pytest.mark.parametrize("part", ["lifecycle", "kills", "refused", "grpc", "kserve", "handlers"])
def test_only_one_part(part: str) -> None:
    assert make_plan(parse(["--quick", "--only", part])).points == ()


def test_named_places_are_not_part_of_the_command() -> None:
    options = parse(["--quick", "--torchserve-env", "/somewhere", "--cache", "/elsewhere"])
    assert command_line(options, QUICK) == "python -m benchmarks --rounds 1 --duration 1 --quick"


def test_unknown_server_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--servers", "modelserver,tritonserver"])
    assert "unknown servers: tritonserver" in capsys.readouterr().err


def test_without_java_the_others_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    options = parse(["--servers", "torchserve,torchserve-access,prototype", "--cache", str(tmp_path)])
    found, missing = find_contenders(options, Archives(tmp_path / "store"))
    assert [contender.name for contender in found] == ["prototype"]
    assert set(missing) == {"torchserve", "torchserve-access"}
    assert "needs Java" in missing["torchserve"]


def test_a_given_environment_without_torchserve_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    java = tmp_path / "java" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.touch()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "java"))
    with pytest.raises(Unavailable, match="there is no"):
        prepare_torchserve(tmp_path / "unused", tmp_path / "empty")
    assert not (tmp_path / "unused").exists()


def test_without_wrk_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["--cache", str(tmp_path / "cache")]) == 1
    assert "wrk" in capsys.readouterr().err
    assert not (tmp_path / "cache").exists()
