"""What the command line and the models it names do."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from contract.rest_server import make
from contract.server import ContractServer
from harness.archives import NOOP, pack

check = pytest.mark.check
fixed = pytest.mark.fixed
CONFIG = {"default_workers_per_model": 1}


def named(directory: Path, *models: str) -> ContractServer:
    """A server, not started yet, with archives x, y and a directory z in its store, and these models to load."""
    server = make(directory, archives={"x": NOOP, "y": NOOP}, config=CONFIG)
    server.command += ["--models", *models]
    return server


def names(server: ContractServer) -> list[str]:
    return [model["modelName"] for model in server.request("GET", "/models", "Management").json()["models"]]


@check("cli", 16)
@pytest.mark.parametrize(
    ("models", "loaded"),
    [
        (("all",), ["x", "y"]),
        (("ALL",), ["x", "y"]),
        (("a=x.mar", "b=y.mar"), ["a", "b"]),
        (("a=x.mar,b=y.mar",), ["a", "b"]),
    ],
    ids=["all", "ALL", "two", "one"],
)
def test_models_to_load(tmp_path: Path, models: tuple[str, ...], loaded: list[str]) -> None:
    """By name, or the whole store."""
    with named(tmp_path, *models) as server:
        assert names(server) == loaded
        assert all(server.describe(name)["loadedAtStartup"] for name in loaded)


@check("cli", 17)
@check("cli", 18)
@fixed("start-up models")
def test_a_model_that_fails_is_left_out(tmp_path: Path) -> None:
    """So is one that is there already; without snapshots none is written, and what is there is not read."""
    saved = tmp_path / "logs" / "config"
    saved.mkdir(parents=True)
    (saved / "20200101000000000-startup.cfg").write_text("job_queue_size=3\n")
    with named(tmp_path, "gone.mar", "x=x.mar", "x=x.mar", "../y.mar", "a..b.mar") as server:
        assert names(server) == ["x"]
        assert server.describe("x")["jobQueueStatus"]["remainingCapacity"] == 100
        log = server.log("ts_log.log")
    for url, reason in (
        ("gone.mar", "ModelNotFoundException: Model not found at: gone.mar"),
        ("x.mar", "ConflictStatusException: Model version 1.0 is already registered for model x"),
        ("../y.mar", "ModelNotFoundException: Relative path is not allowed in url: ../y.mar"),
        ("a..b.mar", "ModelNotFoundException: Relative path is not allowed in url: a..b.mar"),
    ):
        assert f"Failed to load model: {url}\n{reason}" in log, url
    assert [path.name for path in saved.iterdir()] == ["20200101000000000-startup.cfg"]


@check("config", 27)
@fixed("blanks between models")
def test_blanks_between_models(tmp_path: Path) -> None:
    """Belong to nobody's name."""
    server = make(tmp_path, archives={"x": NOOP, "y": NOOP}, config={**CONFIG, "load_models": " x.mar, b = y.mar,"})
    with server:
        assert names(server) == ["b", "x"]


@check("cli", 21)
@fixed("exit status")
def test_a_port_in_use_ends_the_foreground_with_an_error(tmp_path: Path) -> None:
    """The console names the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        server = make(tmp_path, config={"management_address": address})
        server.start(wait=False)
        assert server.wait() == 1
    assert f"Failed to bind to address: {address}: Address already in use" in server.output


@check("cli", 19)
def test_the_key_file(tmp_path: Path) -> None:
    """Is written for its owner alone, and is gone after the stop."""
    keys = tmp_path / "key_file.json"
    with make(tmp_path, tokens=True) as server:
        assert keys.stat().st_mode & 0o777 == 0o600
        assert server.request("GET", "/ping").status_code == 400
        assert server.launch("--stop").stdout == "TorchServe has stopped.\n"
        server.wait()
    assert not keys.exists()


@check("cli", 20)
def test_short_flags(tmp_path: Path) -> None:
    """`--dt` and beginnings of long ones."""
    server = make(tmp_path)
    for long, short in (
        ("--disable-token-auth", "--dt"),
        ("--enable-model-api", "--enable"),
        ("--foreground", "--fore"),
    ):
        server.command[server.command.index(long)] = short
    pack(server.store, "m", NOOP)
    with server:
        assert server.register("m.mar").status_code == 200
