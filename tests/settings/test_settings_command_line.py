"""Flags of the command."""

from __future__ import annotations

import pytest

from modelserver.settings.command_line import CommandLine, parse


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], CommandLine()),
        (["-v"], CommandLine(version=True)),
        (["--start", "--model-store=/m"], CommandLine(start=True, model_store="/m")),
        (["--models", "a=x.mar", "y.mar"], CommandLine(models=("a=x.mar", "y.mar"))),
        (["--models=a=x.mar,b=y.mar"], CommandLine(models=("a=x.mar,b=y.mar",))),
        (
            ["--ncs", "--dt", "--ppath", "/p"],
            CommandLine(no_config_snapshots=True, disable_token_auth=True, plugins_path="/p"),
        ),
        (
            ["--disable", "--enable", "--fore"],
            CommandLine(disable_token_auth=True, enable_model_api=True, foreground=True),
        ),
        (["--ts-config", "a", "--ts-config", "b"], CommandLine(ts_config="b")),
    ],
)
def test_flags(arguments: list[str], expected: CommandLine) -> None:
    assert parse(arguments) == expected


@pytest.mark.check("cli", 5)
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--start", "--stop"], "torchserve: error: argument --stop: not allowed with argument --start"),
        (["--bogus"], "torchserve: error: unrecognized arguments: --bogus"),
        (["--models"], "torchserve: error: argument --models: expected at least one argument"),
    ],
)
def test_misuse_exits_with_two(arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments)
    assert ended.value.code == 2
    stderr = capsys.readouterr().err
    assert stderr.startswith("usage: torchserve [-h] [-v | --start | --stop] [--ts-config TS_CONFIG]")
    assert complaint in stderr
