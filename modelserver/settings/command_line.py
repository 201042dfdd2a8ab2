"""The flags of the `torchserve` command, read by the launcher and again by the server process."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandLine:
    """What was given; None, () or False where a flag was not."""

    version: bool = False
    start: bool = False
    stop: bool = False
    ts_config: str | None = None
    model_store: str | None = None
    workflow_store: str | None = None
    models: tuple[str, ...] = ()
    log_config: str | None = None
    cpp_log_config: str | None = None
    foreground: bool = False
    no_config_snapshots: bool = False
    plugins_path: str | None = None
    disable_token_auth: bool = False
    enable_model_api: bool = False
    show_config: str | None = None  # text, json
    check: str | None = None  # text, json


def parse(arguments: Sequence[str] | None = None) -> CommandLine:
    """Read flags, by default those of this process. Prints and exits on `--help` (0) and on misuse (2)."""
    given = vars(parser().parse_args(arguments))
    return CommandLine(**{**given, "models": tuple(given["models"] or ())})


def flags() -> list[tuple[str, str]]:
    """Every flag with its other spellings and its argument, and its help."""
    actions = [action for action in parser()._actions if action.dest != "help"]
    return [(_spelled(action), action.help or "") for action in actions]


def _spelled(action: argparse.Action) -> str:
    name = f"[{'|'.join(action.choices)}]" if action.choices else action.metavar or action.dest.upper()
    return ", ".join(sorted(action.option_strings, key=len, reverse=True)) + (f" {name}" if action.nargs != 0 else "")


def parser() -> argparse.ArgumentParser:
    """What knows all flags."""
    flag_parser = argparse.ArgumentParser(
        prog="torchserve",
        description="Torchserve",
        epilog="To try a handler without a server: modelserver run-handler --help",
    )
    _add_actions(flag_parser)
    _add_sources(flag_parser)
    _add_switches(flag_parser)
    return flag_parser


def _add_actions(parser: argparse.ArgumentParser) -> None:
    action = parser.add_mutually_exclusive_group()
    action.add_argument("-v", "--version", action="store_true", help="print the version and exit")
    action.add_argument("--start", action="store_true", help="start the server (the default)")
    action.add_argument("--stop", action="store_true", help="stop the running server")


def _add_sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ts-config", help="configuration file (config.properties)")
    parser.add_argument(
        "--model-store", help="directory of model archives, mandatory here or in the configuration file"
    )
    parser.add_argument("--workflow-store", help="directory of workflow archives; default: the model store")
    parser.add_argument(
        "--models",
        nargs="+",
        metavar="MODEL_PATH1 MODEL_NAME=MODEL_PATH2...",
        help="models to load at start-up: [name=]archive, archive in the model store, URL or directory; or `all`",
    )
    parser.add_argument("--log-config", help="log configuration that replaces the built-in one")
    parser.add_argument("--cpp-log-config", help="log configuration of native workers")


def _add_switches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--foreground", action="store_true", help="stay until the server ends; with --stop: wait for it"
    )
    parser.add_argument(
        "--no-config-snapshots", "--ncs", action="store_true", help="neither save nor restore configurations"
    )
    parser.add_argument("--plugins-path", "--ppath", help="plugins to load, besides those of the configuration file")
    parser.add_argument("--disable-token-auth", "--dt", action="store_true", help="serve without tokens")
    parser.add_argument("--enable-model-api", action="store_true", help="allow registering and deleting models")
    parser.add_argument(
        "--show-config",
        nargs="?",
        const="text",
        choices=("text", "json"),
        help="print every setting with its value and source, and exit; nothing starts",
    )
    parser.add_argument(
        "--check",
        nargs="?",
        const="text",
        choices=("text", "json"),
        help="look configuration, archives, handlers, ports and installation over, and exit: 1 if a server with these "
        "flags would not serve them all; nothing starts",
    )
