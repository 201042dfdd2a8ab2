"""Addresses: which are looked at, and who has them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from modelserver.checkup.ports import examine_ports, places_of
from modelserver.pidfile import MARKER
from modelserver.settings.addresses import Address
from modelserver.settings.table import Settings

FREE = Address("http", "127.0.0.1", 0)
LISTENER = """
import socket, sys
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
sys.stdin.read()
"""


def settings(**addresses: Address | str | int) -> Settings:
    keys = ("inference_address", "management_address", "metrics_address")
    given = {**dict.fromkeys(keys, FREE), "grpc_inference_port": 0, "grpc_management_port": 0, **addresses}
    return Settings(**given)  # type: ignore[arg-type]


def test_every_address_once() -> None:
    shown = [place.shown for place in places_of(Settings())]
    assert shown == [
        *("http://127.0.0.1:8080", "http://127.0.0.1:8081", "http://127.0.0.1:8082"),
        *("127.0.0.1:7070", "127.0.0.1:7071"),
    ]
    one = Address("http", "127.0.0.1", 8085)
    shared = Settings(inference_address=one, management_address=one, enable_metrics_api=False)
    assert [place.key for place in places_of(shared)] == [
        *("inference_address", "grpc_inference_port", "grpc_management_port"),
    ]


def test_free_ports_need_no_words() -> None:
    assert not list(examine_ports(settings()))


def test_a_port_that_is_taken_names_who_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("http", "127.0.0.1", taken.getsockname()[1])
        (found,) = examine_ports(settings(management_address=address))
        assert str(found).startswith(
            f"ERROR management_address: Failed to bind to address: {address}: Address already in use: "
            f"process {os.getpid()}, "
        )
        (found,) = examine_ports(settings(grpc_inference_port=address.port))
        assert found.where == "grpc_inference_port"
    assert not list(examine_ports(settings(management_address=address))), "what was tried is let go"


def test_the_server_that_is_to_be_replaced_is_no_error() -> None:
    """Whoever moves checks beside the old server."""
    command = [sys.executable, "-c", LISTENER, MARKER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdin is not None
        port = int(server.stdout.readline())
        (found,) = examine_ports(settings(inference_address=Address("http", "127.0.0.1", port)))
        server.stdin.close()
    assert str(found).startswith("WARN inference_address: ") and "stop it first, by torchserve --stop" in found.remedy


def test_an_address_of_nobody() -> None:
    """192.0.2.0/24 belongs to documents."""
    (found,) = examine_ports(settings(inference_address=Address("http", "192.0.2.1", 8080)))
    assert found.severity == "ERROR" and "Cannot assign requested address" in found.what


def test_unix_sockets(tmp_path: Path) -> None:
    """A dead one gives way; one that somebody listens on, and anything else of the name, does not."""
    path = tmp_path / "s"
    unix = settings(inference_address=Address("unix", path=str(path)))
    assert not list(examine_ports(unix))
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        assert not list(examine_ports(unix)), "bound, and nobody listens"
        listening.listen()
        assert [finding.severity for finding in examine_ports(unix)] == ["ERROR"]
    assert not list(examine_ports(unix))
    path.unlink()
    path.write_text("a file")
    assert [finding.severity for finding in examine_ports(unix)] == ["ERROR"]
    gone = settings(inference_address=Address("unix", path=str(tmp_path / "gone" / "s")))
    (found,) = examine_ports(gone)
    assert "is no directory that can be written to" in found.what
