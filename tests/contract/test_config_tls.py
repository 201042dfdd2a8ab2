"""https as the configuration asks for it: key material in its forms, versions, plain clients."""

from __future__ import annotations

import socket
import ssl
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat

from contract.server import PATIENCE, ContractServer, free_ports, start
from harness.certificates import Certified, ecdsa_key, rsa_key

check = pytest.mark.check
fixed = pytest.mark.fixed

Start = Callable[..., ContractServer]


def https() -> dict[str, str]:
    return {"inference_address": f"https://127.0.0.1:{free_ports(1)[0]}"}


@pytest.fixture(scope="module")
def certified() -> Certified:
    return Certified.make(rsa_key())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, certified: Certified) -> Iterator[ContractServer]:
    """With a PEM pair."""
    directory = tmp_path_factory.mktemp("server")
    with ExitStack() as stack:
        yield start(stack, directory, config=https() | certified.write_pair(directory))


def place(server: ContractServer) -> tuple[str, int]:
    url = httpx.URL(server.url())
    assert url.port is not None
    return url.host, url.port


def agreed(server: ContractServer, context: ssl.SSLContext) -> str | None:
    """The version that a client with this context speaks."""
    with (
        socket.create_connection(place(server), PATIENCE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        return client.version()


def client_of(version: ssl.TLSVersion) -> ssl.SSLContext:
    """A client that speaks this version only, and trusts everybody."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore"):  # of old versions
        context.minimum_version = context.maximum_version = version
    return context


@check("config", 15)
def test_a_pem_pair(server: ContractServer, certified: Certified) -> None:
    assert server.request("GET", "/ping", verify=certified.trusting()).json() == {"status": "Healthy"}


@check("config", 15)
def test_a_key_in_the_older_form(start_server: Start, certified: Certified, tmp_path: Path) -> None:
    pair = certified.write_pair(tmp_path)
    (tmp_path / "key.pem").write_bytes(certified.key_pem(PrivateFormat.TraditionalOpenSSL))
    server = start_server(config=https() | pair)
    assert server.request("GET", "/ping", verify=certified.trusting()).status_code == 200


@check("config", 15)
def test_a_key_store(start_server: Start, certified: Certified, tmp_path: Path) -> None:
    (tmp_path / "store.p12").write_bytes(certified.pkcs12("secret"))
    server = start_server(config=https() | {"keystore": str(tmp_path / "store.p12"), "keystore_pass": "secret"})
    assert server.request("GET", "/ping", verify=certified.trusting()).status_code == 200


@check("config", 15)
@check("rest inference", 26)
def test_plain_http(server: ContractServer) -> None:
    """Is answered in plain HTTP."""
    host, port = place(server)
    answer = httpx.get(f"http://{host}:{port}/ping", timeout=PATIENCE)
    assert answer.status_code == 403
    assert answer.text == '{\n  "status": "This TorchServe instance only accepts HTTPS requests"\n}\n'
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["connection"] == "close"
    assert "x-request-id" not in answer.headers


@check("config", 16)
def test_versions(server: ContractServer) -> None:
    """1.2 is the oldest."""
    assert agreed(server, client_of(ssl.TLSVersion.TLSv1_2)) == "TLSv1.2"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        agreed(server, client_of(ssl.TLSVersion.TLSv1_1))


@fixed("tls 1.3")
def test_the_newest_version(server: ContractServer) -> None:
    assert agreed(server, client_of(ssl.TLSVersion.TLSv1_3)) == "TLSv1.3"


@fixed("kinds of keys")
def test_a_key_of_another_kind(start_server: Start, tmp_path: Path) -> None:
    """ECDSA, and encrypted."""
    certified = Certified.make(ecdsa_key())
    pair = certified.write_pair(tmp_path)
    (tmp_path / "key.pem").write_bytes(certified.key_pem(password="secret"))
    server = start_server(config=https() | pair | {"private_key_pass": "secret"})
    assert server.request("GET", "/ping", verify=certified.trusting()).status_code == 200


@fixed("no certificate")
def test_https_without_key_material(start_server: Start) -> None:
    server = start_server(config=https())
    assert server.request("GET", "/ping").status_code == 200
    assert "SHA-256 fingerprint" in server.output
