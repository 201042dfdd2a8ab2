"""REST on Unix sockets: served like ports, and careful with what lies at their paths."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from harness.archives import ECHO, pack
from harness.server import DEADLINE, ServerProcess

NAMES = ("inference", "management", "metrics")


def sockets(directory: Path) -> dict[str, str]:
    return {f"{name}_address": f"unix:{directory}/{name[:2]}" for name in NAMES}


def request(path: Path, method: str, target: str, **options: object) -> httpx.Response:
    """One request over a Unix socket."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=DEADLINE) as client:
        return client.request(method, f"http://localhost{target}", **options)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A short path: a Unix socket's has 107 bytes at most."""
    yield tmp_path_factory.mktemp("u")


def test_every_api_has_a_socket_of_its_own(folder: Path) -> None:
    server = ServerProcess(folder, config=sockets(folder))
    pack(server.store, "echo", ECHO)
    old = os.umask(0o077)  # of the server, too
    try:
        server.start()
    finally:
        os.umask(old)
    try:
        for name in NAMES:
            assert f"{name.capitalize()} API bind to: unix:{folder}/{name[:2]}" in server.output
            assert stat.S_IMODE((folder / name[:2]).lstat().st_mode) == 0o700
        assert request(folder / "in", "GET", "/ping").json() == {"status": "Healthy"}
        parameters = {"url": "echo.mar", "initial_workers": 1, "synchronous": "true"}
        assert request(folder / "ma", "POST", "/models", params=parameters).status_code == 200
        body = b"x" * 100_000
        assert request(folder / "in", "POST", "/predictions/echo", content=body).content == body
        assert request(folder / "me", "GET", "/metrics").status_code == 200
    finally:
        server.stop()
    assert not [name for name in NAMES if (folder / name[:2]).exists()]


def test_apis_may_share_one(folder: Path) -> None:
    config = sockets(folder) | {"management_address": f"unix:{folder}/in"}
    with ServerProcess(folder, config=config):
        assert request(folder / "in", "GET", "/ping").status_code == 200
        assert request(folder / "in", "GET", "/models").status_code == 200


def test_a_socket_of_a_dead_server_is_replaced(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(folder / "i"))
    assert (folder / "i").is_socket()
    with ServerProcess(folder, config={"inference_address": f"unix:{folder}/i"}):
        assert request(folder / "i", "GET", "/ping").status_code == 200


def test_a_socket_of_a_living_server_is_not(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(folder / "i"))
        other.listen()
        assert refusal(folder, f"unix:{folder}/i") == f"Failed to bind to address: unix:{folder}/i: {BUSY}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(folder / "i"))


def test_nor_is_a_file(folder: Path) -> None:
    (folder / "i").write_text("precious")
    assert refusal(folder, f"unix:{folder}/i") == f"Failed to bind to address: unix:{folder}/i: {BUSY}"
    assert (folder / "i").read_text() == "precious"


def test_a_folder_that_is_missing(folder: Path) -> None:
    address = f"unix:{folder}/gone/i"
    assert refusal(folder, address) == f"Failed to bind to address: {address}: No such file or directory"


def test_a_path_that_is_too_long(folder: Path) -> None:
    address = f"unix:{folder}/{'i' * 100}"
    assert refusal(folder, address) == (
        f"Invalid configuration: Invalid binding address: {address}: a path of more than 107 bytes "
        "(inference_address, config.properties:1): expected http://HOST[:PORT], https://HOST[:PORT] or unix:/PATH"
    )


def test_the_end_leaves_alone_what_another_server_has_put_there(folder: Path) -> None:
    with ServerProcess(folder, config={"inference_address": f"unix:{folder}/i"}) as server:
        (folder / "i").unlink()
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(folder / "i"))
            assert server.stop() == 0
        assert (folder / "i").is_socket()


BUSY = "Address already in use"


def refusal(folder: Path, address: str) -> str:
    """What a server says on its console, not in its log, that cannot start on this address."""
    server = ServerProcess(folder, config={"inference_address": address})
    server.start(wait=False)
    assert server.wait() == 1
    (line,) = [line for line in server.lines if line.startswith(("Failed", "Invalid configuration"))]
    return line
