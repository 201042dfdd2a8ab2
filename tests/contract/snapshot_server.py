"""A server that saves its configuration, and what its files say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import javaproperties

from contract.rest_server import make
from contract.server import ContractServer
from harness.archives import NOOP, pack


def saving(directory: Path, *flags: str, archives: tuple[str, ...] = ("noop",), **options: Any) -> ContractServer:
    """A server that is not started yet, configured by `./config.properties`; it loads nothing by itself."""
    server = make(directory, **options)
    for flag in ("--ncs", "--ts-config", "config.properties"):
        server.command.remove(flag)
    server.command += flags
    for name in archives:
        pack(server.store, name, NOOP)
    return server


def again(server: ContractServer, *flags: str, wait: bool = True) -> None:
    """Start once more where the server has stopped, with these flags besides."""
    server.lines.clear()
    command = list(server.command)
    server.command += flags
    try:
        server.start(wait=wait)
    finally:
        server.command = command


def fails(server: ContractServer, *flags: str) -> str:
    """Start, expecting that the server ends by itself; returns everything it said."""
    again(server, *flags, wait=False)
    server.wait()
    assert not server.started, server.output
    return server.output


def files(server: ContractServer, kind: str = "*") -> list[Path]:
    """Saved configurations, oldest first."""
    return sorted((server.directory / "logs" / "config").glob(f"*-{kind}.cfg"))


def properties(path: Path) -> dict[str, str]:
    """What a file holds, read as Java reads it."""
    return javaproperties.loads(path.read_bytes())


def models(path: Path) -> dict[str, Any]:
    """The models of a file."""
    found: dict[str, Any] = json.loads(properties(path)["model_snapshot"])
    return found


def registered(server: ContractServer) -> list[str]:
    """Names of the models that the server lists."""
    answer = server.request("GET", "/models", "Management").json()
    return sorted(model["modelName"] for model in answer["models"])


def configure(server: ContractServer, **keys: str) -> None:
    """Add keys to `./config.properties`."""
    with (server.directory / "config.properties").open("a") as file:
        file.writelines(f"{key}={text}\n" for key, text in keys.items())
