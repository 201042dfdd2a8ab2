"""gRPC as a server of connections: addresses, keys, limits, TLS, ages, and the end."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.grpc_server import PATIENCE, GrpcServer, refused, request, start_grpc, unstarted
from contract.server import TORCHSERVE, ContractServer
from harness.server import eventually
from harness.stubs import message, module

check, fixed = pytest.mark.check, pytest.mark.fixed
Code = grpc.StatusCode
REFUSED = "Token Authorization failed. Token either incorrect, expired, or not provided correctly"
Start = Callable[..., GrpcServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with ExitStack() as stack:
        yield lambda config=None, **options: start_grpc(stack, tmp_path, config, **options)


def ping(served: GrpcServer, channel: grpc.Channel | None = None, **options: Any) -> str:
    empty = module("google.protobuf.empty_pb2").Empty()
    health: str = served.inference(channel).Ping(empty, timeout=PATIENCE, **options).health
    return health


def answers(served: GrpcServer, api: str, channel: grpc.Channel) -> str:
    """What one of the two services says to anybody."""
    if api == "inference":
        return ping(served, channel)
    said: str = served.management(channel).ListModels(message("ListModelsRequest"), timeout=PATIENCE).msg
    return said


def assert_ends_at_start(server: ContractServer) -> None:
    """With status 1; the launcher of TorchServe, which is what is seen here, ends with 0 all the same."""
    server.start(wait=False)
    status = server.wait()
    assert not server.started and (status == 1 or TORCHSERVE), server.output


@check("grpc", 1)
def test_addresses(start: Start) -> None:
    """Where nothing else is said, the server listens on the loopback interface only."""
    served = start(oracle=False)
    assert {served.target(api).rpartition(":")[0] for api in ("inference", "management")} == {"127.0.0.1"}
    assert ping(served)


@pytest.mark.parametrize(
    "hosts",
    [{"inference": "localhost", "management": "0.0.0.0"}, {"inference": "127.0.0.2", "management": "::"}],
    ids=lambda hosts: " ".join(hosts.values()),
)
def test_other_addresses(start: Start, hosts: dict[str, str]) -> None:
    served = start({f"grpc_{api}_address": host for api, host in hosts.items()}, oracle=False)
    for api, host in hosts.items():
        port = served.target(api).rpartition(":")[2]
        reached = "127.0.0.2" if host == "127.0.0.2" else "127.0.0.1"
        with grpc.insecure_channel(f"{reached}:{port}") as channel:
            assert answers(served, api, channel)


@check("grpc", 21)
@fixed("grpc unix sockets")
def test_unix_sockets(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "grpc.sock"
    served = start({"grpc_inference_address": f"unix:{path}"}, oracle=False)
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert ping(served, channel)
    served.server.stop()
    assert not path.exists()


@check("grpc", 21)
@pytest.mark.parametrize(
    "config", [{"grpc_inference_port": "abc"}, {"grpc_inference_max_connection_age_ms": 0}, {"grpc_inference_port": -1}]
)
def test_settings_that_no_server_starts_with(tmp_path: Path, config: dict[str, Any]) -> None:
    server = unstarted(tmp_path, config)
    assert_ends_at_start(server)


@check("grpc", 21)
def test_a_port_in_use(start: Start, tmp_path: Path) -> None:
    served = start(oracle=False)
    for api in ("inference", "management"):
        second = tmp_path / api
        second.mkdir()
        taken = served.target(api).rpartition(":")[2]
        assert_ends_at_start(unstarted(second, {f"grpc_{api}_port": taken}))
    assert ping(served)


@check("grpc", 4)
@check("grpc", 36)
@fixed("grpc refused keys")
def test_keys(start: Start, tmp_path: Path) -> None:
    served = start(without=("--disable-token-auth",), oracle=False)
    keys = json.loads((tmp_path / "key_file.json").read_text())
    inference, management, api = (keys[kind]["key"] for kind in ("inference", "management", "API"))
    stub, listing = served.management(), message("ListModelsRequest")

    def shown(*values: str) -> dict[str, Any]:
        return {"metadata": [("authorization", value) for value in values]}

    wrong = ["", "Bearer", "bearer " + inference, inference, "Basic " + inference, "Bearer " + management]
    for value in [*wrong, "Bearer " + api, f"Bearer {inference} x"]:
        with refused(Code.PERMISSION_DENIED, REFUSED):
            ping(served, **shown(value))
    with refused(Code.PERMISSION_DENIED, REFUSED):
        served.inference().Predictions(request(), timeout=PATIENCE)
    with refused(Code.PERMISSION_DENIED, REFUSED):
        list(served.inference().StreamPredictions2(iter([request()]), timeout=PATIENCE))
    with refused(Code.PERMISSION_DENIED, REFUSED):
        stub.ListModels(listing, timeout=PATIENCE, **shown("Bearer " + inference))
    assert ping(served, **shown("Bearer   " + inference))
    assert ping(served, **shown("Bearer nonsense", "Bearer " + inference))
    assert stub.ListModels(listing, timeout=PATIENCE, **shown("Bearer " + management)).msg
    with refused(Code.PERMISSION_DENIED, REFUSED):
        ping(served, **shown("Bearer " + inference, "Bearer nonsense"))
    refusals = eventually(lambda: [line for line in served.access_lines("Ping") if ' HTTP/2.0" 7 ' in line])
    assert refusals
    with refused(Code.UNIMPLEMENTED, "Method not found: a.B/C"):  # what does not exist needs no key
        served.channel().unary_unary("/a.B/C")(b"", timeout=PATIENCE)


@check("grpc", 17)
@fixed("grpc message size")
def test_the_limit_of_messages(start: Start) -> None:
    served = start({"max_request_size": 1000}, oracle=False)
    assert_limited(served, "inference", "inference.InferenceAPIsService", "Predictions")
    assert_limited(served, "management", "management.ManagementAPIsService", "ScaleWorker")
    assert "Traceback" not in served.server.output and "library.grpc" not in served.server.output


def assert_limited(served: GrpcServer, api: str, service: str, method: str) -> None:
    """Requests of that method may have 1000 bytes."""
    call = served.channel(api).unary_unary(f"/org.pytorch.serve.grpc.{service}/{method}")
    field = b"\x0a\xe5\x07" + b"m" * 997  # a name that makes a message of 1000 bytes
    with pytest.raises(grpc.RpcError) as error:
        call(field, timeout=PATIENCE)
    assert "Model not found: mmm" in error.value.details()
    with refused(Code.RESOURCE_EXHAUSTED):
        call(field + b"m", timeout=PATIENCE)
    with refused(Code.RESOURCE_EXHAUSTED):  # what is packed small is as large as it is
        call(b"\x0a\xe6\x07" + b"m" * 998, timeout=PATIENCE, compression=grpc.Compression.Gzip)

    def codes() -> list[str]:
        return [line.split('" ')[1].split()[0] for line in served.access_lines(method)]

    eventually(lambda: len(codes()) == 3)
    assert codes()[1:] == ["8", "8"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of localhost, vouching for itself."""
    path = tmp_path_factory.mktemp("tls")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=localhost"
    extension = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command.split(), *extension], cwd=path, check=True, capture_output=True)
    return path


def tls(certificate: Path, **more: Any) -> dict[str, Any]:
    return {
        "enable_grpc_ssl": "true",
        "certificate_file": certificate / "cert.pem",
        "private_key_file": certificate / "key.pem",
        **more,
    }


@check("grpc", 19)
@check("config", 17)
def test_tls(start: Start, certificate: Path) -> None:
    served = start(tls(certificate), oracle=False)
    trusted = grpc.ssl_channel_credentials((certificate / "cert.pem").read_bytes())
    for api in ("inference", "management"):
        host, _, port = served.target(api).rpartition(":")
        context = ssl.create_default_context(cafile=str(certificate / "cert.pem"))
        context.set_alpn_protocols(["h2"])
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context.minimum_version = context.maximum_version = version
            plain = socket.create_connection((host, int(port)))
            with context.wrap_socket(plain, server_hostname="localhost") as spoken:
                assert spoken.selected_alpn_protocol() == "h2"
    with grpc.secure_channel(served.target(), trusted) as channel:
        assert ping(served, channel)
    with refused(Code.UNAVAILABLE):
        ping(served)


@check("grpc", 19)
@fixed("grpc tls")
def test_tls_without_certificate(tmp_path: Path) -> None:
    server = unstarted(tmp_path, {"enable_grpc_ssl": "true"})
    assert_ends_at_start(server)
    assert "TLS needs keystore, or both certificate_file and private_key_file" in server.output


@fixed("kinds of keys")
def test_clients_that_have_to_show_a_certificate(start: Start, certificate: Path) -> None:
    served = start(tls(certificate, client_ca_file=certificate / "cert.pem"), oracle=False)
    chain, key = (certificate / "cert.pem").read_bytes(), (certificate / "key.pem").read_bytes()
    with grpc.secure_channel(served.target(), grpc.ssl_channel_credentials(chain, key, chain)) as channel:
        assert ping(served, channel)
    nobody = grpc.ssl_channel_credentials(chain)
    with grpc.secure_channel(served.target(), nobody) as channel, refused(Code.UNAVAILABLE):
        ping(served, channel)


@check("grpc", 20)
def test_the_age_of_connections(start: Start) -> None:
    """A call that outlives its connection's age and grace is cut; the next one finds another connection."""
    ages = {"grpc_inference_max_connection_age_ms": 600, "grpc_inference_max_connection_age_grace_ms": 300}
    served = start(ages)
    channel = served.channel()
    with refused(Code.UNAVAILABLE):
        served.inference(channel).Predictions(request(do=b"wait old"), timeout=PATIENCE)
    served.open("old")
    assert served.inference(channel).Predictions(request(do=b"echo", data=b"x"), timeout=PATIENCE).prediction == b"x"


@check("grpc", 39)
@fixed("grpc end")
def test_the_end(start: Start) -> None:
    """What runs is answered, what is idle is cut, and nobody comes in any more."""
    served = start({"drain_timeout": 2})
    process = served.server.process
    assert process is not None
    running = served.inference().Predictions.future(request(do=b"wait end"), timeout=PATIENCE)
    served.await_call("wait end")
    idle = served.inference().StreamPredictions2(_one_and_no_end(), timeout=PATIENCE)
    assert next(idle).status.message == "Parameter sequenceId is required."
    target = served.target()
    process.send_signal(signal.SIGTERM)
    eventually(lambda: "Draining: 2 requests in flight" in served.server.output)
    with grpc.insecure_channel(target) as late, refused(Code.UNAVAILABLE):
        ping(served, late)
    served.open("end")
    assert running.result(PATIENCE).prediction
    with refused(Code.UNAVAILABLE, "The server is stopping."):
        next(idle)
    assert served.server.wait() == 0


def _one_and_no_end() -> Iterator[Any]:
    """Requests of a client that sends one and stays."""
    yield request()
    threading.Event().wait(PATIENCE)
