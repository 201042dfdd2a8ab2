"""The command as far as no server starts: messages, their order, exit statuses."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelserver.cli import main

Command = Callable[..., tuple[object, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in a directory and a temporary directory of its own; gives exit status and stdout."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in ("TEMP", "TS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)

    def run(*flags: str) -> tuple[object, str]:
        with pytest.raises(SystemExit) as ended:
            main(flags)
        return ended.value.code, capsys.readouterr().out

    return run


@pytest.mark.check("cli", 1)
def test_version(command: Command) -> None:
    for flag in ("--version", "-v"):
        status, output = command(flag)
        assert status == 0
        assert output.startswith("TorchServe Version is 0.") and output.count("\n") == 1


@pytest.mark.check("cli", 2)
def test_stop_without_a_server(command: Command, tmp_path: Path) -> None:
    (tmp_path / "key_file.json").touch()
    assert command("--stop") == (0, "TorchServe is not currently running.\n")
    assert command("--stop", "--foreground", "--ts-config", "gone") == (0, "TorchServe is not currently running.\n")
    assert (tmp_path / "key_file.json").exists()


@pytest.mark.check("cli", 10)
def test_orphans_are_removed_by_every_action(command: Command, tmp_path: Path) -> None:
    pid_file = tmp_path / ".model_server.pid"
    for flags, rest in (
        (("--stop",), "TorchServe is not currently running.\n"),
        (("--start",), "Missing mandatory parameter --model-store\n"),
    ):
        pid_file.write_text("")
        assert command(*flags)[1] == f"Removing orphan pid file.\n{rest}"
        assert not pid_file.exists()
    pid_file.write_text("nonsense")
    assert command("--version")[1].startswith("Removing orphan pid file.\nTorchServe Version is ")


@pytest.mark.check("cli", 3)
@pytest.mark.parametrize("flags", [(), ("--start",), ("--foreground",), ("--models", "a.mar", "--ncs")])
def test_a_model_store_is_mandatory(command: Command, flags: tuple[str, ...]) -> None:
    assert command(*flags) == (1, "Missing mandatory parameter --model-store\n")


@pytest.mark.check("cli", 4)
def test_checks_in_their_order(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = {
        "--log-config": "l.xml",
        "--ts-config": "c.cfg",
        "--model-store": "store",
        "--workflow-store": "flows",
        "--cpp-log-config": "cpp.cfg",
    }
    given = [word for pair in flags.items() for word in pair]
    monkeypatch.setenv("TEMP", "tmp")
    expected = [
        (f"--log-config file not found: {tmp_path}/l.xml", tmp_path / "l.xml"),
        ("Invalid temp directory: tmp, please check TEMP environment variable.", tmp_path / "tmp"),
        ("--ts-config file not found: c.cfg", tmp_path / "c.cfg"),
        ("--model-store directory not found: store", tmp_path / "store"),
        ("--workflow-store directory not found: flows", tmp_path / "flows"),
        (f"--cpp-log-config file not found: {tmp_path}/cpp.cfg", None),
    ]
    for message, cure in expected:
        assert command(*given) == (1, f"{message}\n")
        if cure is not None and cure.suffix:
            cure.touch()
        elif cure is not None:
            cure.mkdir()


@pytest.mark.check("cli", 13)
def test_variable_beats_flag(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "c.cfg").write_text("model_store=there")
    monkeypatch.setenv("TS_CONFIG_FILE", "gone.cfg")
    assert command("--ts-config", "c.cfg") == (1, "--ts-config file not found: gone.cfg\n")


@pytest.mark.parametrize("text", ["model_store=/gone", "model_store : /gone", "model_store=\\\n $$ROOT$$gone"])
def test_the_store_of_the_file_counts(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setenv("ROOT", "/")
    (tmp_path / "config.properties").write_text(text)
    (tmp_path / "other.cfg").write_text(text)
    assert command() == (1, "--model-store directory not found: /gone\n")
    assert command("--ts-config", "other.cfg") == (1, "--model-store directory not found: /gone\n")
    assert command("--model-store", "gone") == (1, "--model-store directory not found: gone\n")


def test_the_store_of_the_environment_counts_if_allowed(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TS_MODEL_STORE", "/gone")
    assert command() == (1, "Missing mandatory parameter --model-store\n")
    (tmp_path / "config.properties").write_text("enable_envvars_config=true")
    assert command() == (1, "--model-store directory not found: /gone\n")


@pytest.mark.check("config", 29)
def test_jvm_options_are_warned_about(command: Command, tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("vmargs=-Xmx1g -XX:+UseG1GC")
    warning = "Warning: TorchServe is using non-default JVM parameters: -Xmx1g -XX:+UseG1GC\n"
    assert command() == (1, f"{warning}Missing mandatory parameter --model-store\n")


def test_unreadable_configuration(command: Command, tmp_path: Path) -> None:
    (tmp_path / "config.properties").write_text("a=$$UNSET_FOR_SURE$$")
    status, output = command("--model-store", ".")
    assert status == 1
    assert output.startswith("Invalid configuration: Invalid Environment Variable UNSET_FOR_SURE")


def test_help_imports_little() -> None:
    code = """if True:
        import sys
        from modelserver.cli import main
        try:
            main(["--help"])
        except SystemExit as ended:
            assert ended.code == 0
        heavy = {"psutil", "javaproperties", "subprocess", "importlib.metadata", "json", "socket", "torch"}
        assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: torchserve [-h] [-v | --start | --stop]")
