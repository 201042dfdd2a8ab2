"""https on real ports: key material in its forms, clients that do not belong there, and the end of the server."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from harness.archives import ECHO, pack
from harness.certificates import Certified
from harness.leaks import Census
from harness.server import DEADLINE, ServerProcess, eventually
from harness.system import needs

HTTPS = {f"{name}_address": "https://127.0.0.1:0" for name in ("inference", "management", "metrics")}

SLOW = """
import pathlib, time
def handle(data, context):
    if data is None:
        return None
    pathlib.Path("begun").write_text("")
    while not pathlib.Path("go").exists():
        time.sleep(0.01)
    return ["done"] * len(data)
"""


@pytest.fixture(scope="module")
def root() -> Certified:
    return Certified.make(name="root", authority=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, root: Certified) -> Iterator[ServerProcess]:
    """Serves a chain of ECDSA keys."""
    directory = tmp_path_factory.mktemp("tls")
    pair = Certified.make(name="leaf", by=Certified.make(name="middle", authority=True, by=root)).write_pair(directory)
    with ServerProcess(directory, config=HTTPS | pair) as running:
        pack(running.store, "echo", ECHO)
        assert running.register("echo.mar").status_code == 200
        yield running


def address(server: ServerProcess, api: str = "Inference") -> tuple[str, int]:
    url = httpx.URL(server.url(api))
    assert url.scheme == "https"
    assert url.port is not None
    return url.host, url.port


def test_every_api_is_served_to_clients_that_check(server: ServerProcess, root: Certified) -> None:
    for api, path in (("Inference", "/ping"), ("Management", "/models"), ("Metrics", "/metrics")):
        assert server.request("GET", path, api, verify=root.trusting()).status_code == 200
    body = bytes(range(256)) * 8000
    assert server.predict("echo", body, verify=root.trusting()).content == body


def test_a_connection_is_kept(server: ServerProcess, root: Certified) -> None:
    with httpx.Client(base_url=server.url(), verify=root.trusting(), timeout=DEADLINE) as client:
        assert [client.post("/predictions/echo", content=b"%d" % n).content for n in range(20)] == [
            b"%d" % n for n in range(20)
        ]


@needs("curl")
def test_curl_is_told_the_whole_chain(server: ServerProcess, root: Certified, tmp_path: Path) -> None:
    (tmp_path / "root.pem").write_bytes(root.chain_pem())
    curl = ["curl", "--silent", "--show-error", "--include", "--max-time", "30", "--cacert", str(tmp_path / "root.pem")]
    done = subprocess.run([*curl, "--http2", f"{server.url()}/ping"], capture_output=True, text=True)
    assert done.stdout.startswith("HTTP/1.1 200 OK"), done.stderr


def test_plain_http_is_told_so(server: ServerProcess) -> None:
    host, port = address(server)
    answer = httpx.get(f"http://{host}:{port}/ping", timeout=DEADLINE)
    assert answer.status_code == 403
    assert answer.json() == {"status": "This TorchServe instance only accepts HTTPS requests"}
    eventually(lambda: "Recieved HTTP request!" in server.log("ts_log.log"))


def test_clients_that_do_not_shake_hands_leave_nothing_behind(server: ServerProcess) -> None:
    before = Census.of(server)
    for said in (
        b"",
        b"\x16",
        b"\x16\x03\x01\x00\x05hello",
        b"\x80\x2e\x01\x00\x02",
        b"\x00" * 1000,
        b"GET / HTTP/1.1",
    ):
        for _ in range(20):
            with socket.create_connection(address(server), DEADLINE) as client:
                client.sendall(said)
    assert server.request("GET", "/ping").status_code == 200
    eventually(lambda: Census.of(server).frontend == before.frontend)
    assert "Traceback" not in server.output


def test_the_private_key_is_nowhere_to_be_read(server: ServerProcess) -> None:
    found = [path for path in server.temp.rglob("*") if path.is_file() and b"PRIVATE KEY" in path.read_bytes()]
    assert found == []
    assert not list(server.temp.rglob("identity-*"))


def test_client_certificates(tmp_path: Path, root: Certified) -> None:
    (tmp_path / "ca.pem").write_bytes(root.chain_pem())
    client = Certified.make(name="client", by=root).write_pair(tmp_path)
    config = {"inference_address": "https://127.0.0.1:0", "client_ca_file": "ca.pem"}
    with ServerProcess(tmp_path, config=config) as server:
        assert "a certificate of its own, which no client trusts" in server.output
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
            server.request("GET", "/ping", verify=context)
        context.load_cert_chain(client["certificate_file"], client["private_key_file"])
        assert server.request("GET", "/ping", verify=context).status_code == 200
        assert server.request("GET", "/models", "Management").status_code == 200, "plain HTTP asks for nothing"


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"keystore": "store.p12"}, r"keystore password was incorrect: \S+/store.p12 \(keystore_pass, default\)"),
        ({"keystore": "gone.p12"}, r"NoSuchFileException: \S+/gone.p12 \(keystore, config.properties:\d+\)"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_started(tmp_path: Path, keys: dict[str, str], text: str) -> None:
    (tmp_path / "store.p12").write_bytes(Certified.make().pkcs12("secret"))
    server = ServerProcess(tmp_path, models=["all"], config=HTTPS | keys)
    server.start(wait=False)
    assert server.wait() == 1
    assert re.fullmatch(f"Invalid configuration: {text}", server.output)
    assert not list(server.temp.rglob("ms-*"))


def test_a_key_store(tmp_path: Path) -> None:
    certified = Certified.make()
    (tmp_path / "store.p12").write_bytes(certified.pkcs12("changeit"))
    with ServerProcess(tmp_path, config=HTTPS | {"keystore": "store.p12"}) as server:
        assert server.request("GET", "/ping", verify=certified.trusting()).status_code == 200


def test_the_end_finishes_what_runs_and_waits_for_nobody_else(tmp_path: Path, root: Certified) -> None:
    pair = Certified.make(name="leaf", by=root).write_pair(tmp_path)
    server = ServerProcess(tmp_path, config=HTTPS | pair)
    pack(server.store, "slow", SLOW)
    with server, ThreadPoolExecutor() as pool:
        assert server.register("slow.mar").status_code == 200
        place = Path(psutil.Process(server.ready_workers("slow")[0]["pid"]).cwd())
        idle = root.trusting().wrap_socket(socket.create_connection(address(server)), server_hostname="localhost")
        idle.sendall(b"GET /ping HTTP/1.1\r\n\r\n")
        assert idle.recv(12) == b"HTTP/1.1 200"
        silent = socket.create_connection(address(server))
        answer = pool.submit(server.predict, "slow")
        eventually((place / "begun").exists)
        assert server.process is not None
        server.process.terminate()
        eventually(lambda: "Draining: 1 request in flight" in server.output)
        (place / "go").write_text("")
        assert answer.result(DEADLINE).content == b"done"
        assert answer.result().headers["connection"] == "close"
        assert server.wait() == 0
        assert "Drain ends with" not in server.output
        for client in (idle, silent):
            client.close()
