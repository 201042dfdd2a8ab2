"""Who may call what, on ports of their own and on a shared one."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from contract.rest_server import WITNESS, error, make
from contract.server import ContractServer, free_ports
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
KINDS = ("inference", "management", "API")
REFUSED = (
    400,
    "InvalidKeyException",
    "Token Authorization failed. Token either incorrect, expired, or not provided correctly",
)
NOT_RENEWED = (*REFUSED[:2], REFUSED[2].replace("Authorization", "Authentication"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    """A server with tokens and one model."""
    directory = tmp_path_factory.mktemp("server")
    with make(directory, archives={"m": WITNESS}, startup=("m",), tokens=True, model_api=False) as server:
        yield server


def keys(server: ContractServer) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((server.directory / "key_file.json").read_text())
    return found


def ask(
    server: ContractServer, path: str, kind: str = "", api: str = "Inference", method: str = "GET"
) -> httpx.Response:
    """A request with the key of this kind, or with none."""
    headers = {"Authorization": f"Bearer {keys(server)[kind]['key']}"} if kind else {}
    return server.request(method, path, api, headers=headers)


@check("rest management", 23)
def test_the_key_file(server: ContractServer) -> None:
    """Its owner alone may read it."""
    path = server.directory / "key_file.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    found = keys(server)
    assert [list(found[kind]) for kind in ("management", "inference", "API")] == [
        ["key", "expiration time"],
        ["key", "expiration time"],
        ["key"],
    ]
    assert all(re.fullmatch("[A-Za-z0-9_-]{8}", found[kind]["key"]) for kind in found)


@check("rest management", 23)
@check("rest inference", 27)
@pytest.mark.parametrize(
    ("path", "api", "kind", "status"),
    [
        ("/ping", "Inference", "inference", 200),
        ("/predictions/m", "Inference", "inference", 200),
        ("/invocations", "Inference", "inference", 200),
        ("/m/predict", "Inference", "inference", 200),
        ("/v1/models/m:predict", "Inference", "inference", 200),
        ("/nothing", "Inference", "inference", 404),
        ("/models", "Management", "management", 200),
        ("/v1/models/m", "Management", "management", 200),
        ("/nothing", "Management", "management", 404),
    ],
)
def test_each_port_takes_its_own_key(server: ContractServer, path: str, api: str, kind: str, status: int) -> None:
    """Whoever shows none or another one is not even told what exists."""
    for shown in {"", *KINDS} - {kind}:
        assert error(ask(server, path, shown, api)) == REFUSED
    assert ask(server, path, kind, api).status_code == status


@check("rest management", 23)
@pytest.mark.parametrize("value", ["", "Bearer", "Bearer wrong", "Basic {}", "bearer {}", "Bearer {} {}", "{}"])
def test_what_is_no_key(server: ContractServer, value: str) -> None:
    """Only `Bearer`, a blank and the key will do."""
    key = keys(server)["inference"]["key"]
    headers = {"Authorization": value.replace("{}", key)}
    assert error(server.request("GET", "/ping", headers=headers)) == REFUSED


@check("rest management", 1)
def test_a_key_does_not_open_the_model_api(server: ContractServer) -> None:
    """Which is off here."""
    answer = ask(server, "/models?url=m.mar", "management", "Management", "POST")
    assert error(answer)[:2] == (405, "MethodNotAllowedException")


@check("rest inference", 22)
@check("rest management", 26)
@check("metrics", 10)
@pytest.mark.parametrize(
    ("method", "path", "api"),
    [
        ("OPTIONS", "/", "Inference"),
        ("GET", "/api-description", "Inference"),
        ("OPTIONS", "/", "Management"),
        ("GET", "/api-description", "Management"),
        ("OPTIONS", "/", "Metrics"),
        ("GET", "/metrics", "Metrics"),
    ],
)
def test_what_needs_no_key(server: ContractServer, method: str, path: str, api: str) -> None:
    """Descriptions and metrics."""
    assert ask(server, path, api=api, method=method).status_code == 200


@check("rest management", 24)
def test_a_key_is_renewed(server: ContractServer) -> None:
    """The old one counts no more, and the others stay."""
    before = keys(server)
    answer = ask(server, "/token?type=inference", "API", "Management")
    assert (answer.status_code, answer.content) == (200, b"\n")
    assert answer.headers["content-type"] == "application/json"
    after = keys(server)
    assert after["inference"] != before["inference"]
    assert {**after, "inference": None} == {**before, "inference": None}
    old = {"Authorization": f"Bearer {before['inference']['key']}"}
    assert error(server.request("GET", "/ping", headers=old)) == REFUSED
    assert ask(server, "/ping", "inference").status_code == 200
    assert ask(server, "/models", "management", "Management").status_code == 200


@fixed("token in a header")
def test_a_header_renews_no_key(server: ContractServer) -> None:
    """Whatever it says."""
    before = keys(server)
    headers = {"Authorization": f"Bearer {before['management']['key']}", "Referer": "http://pages.example/token"}
    assert server.request("GET", "/models", "Management", headers=headers).status_code == 200
    assert keys(server) == before


@check("rest management", 24)
@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/token?type=inference", ""),
        ("/token?type=inference", "management"),
        ("/token", "API"),
        ("/token?type=Inference", "API"),
        ("/token?type=API", "API"),
    ],
)
def test_a_key_is_not_renewed(server: ContractServer, path: str, kind: str) -> None:
    """Without the API key, or for a kind that there is not."""
    before = keys(server)
    assert error(ask(server, path, kind, "Management")) == NOT_RENEWED
    assert keys(server) == before


@check("rest management", 25)
def test_keys_expire(tmp_path: Path) -> None:
    """All but the one that renews them."""
    with make(tmp_path, tokens=True, config={"token_expiration_min": 0.02}) as server:
        eventually(lambda: ask(server, "/ping", "inference").status_code == 400)
        assert error(ask(server, "/ping", "inference")) == REFUSED
        eventually(lambda: ask(server, "/models", "management", "Management").status_code == 400)
        assert ask(server, "/token?type=inference", "API", "Management").status_code == 200


@fixed("key file")
def test_the_keys_end_with_their_server(tmp_path: Path) -> None:
    """However it is told to stop."""
    with make(tmp_path, tokens=True) as server:
        assert keys(server)
        server.stop()
        assert not (tmp_path / "key_file.json").exists()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    """A server with tokens and one port for everything."""
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    config = {"inference_address": address, "management_address": address}
    directory = tmp_path_factory.mktemp("shared")
    with make(directory, archives={"m": WITNESS}, startup=("m",), tokens=True, config=config) as server:
        yield server


@check("rest inference", 29)
@pytest.mark.parametrize(
    ("method", "path", "kinds"),
    [
        ("GET", "/ping", {"inference"}),
        ("GET", "/predictions/m", {"inference"}),
        ("GET", "/models/m/invoke", {"inference"}),
        ("OPTIONS", "/", {"", *KINDS}),
        pytest.param("GET", "/v1/models/m", {"inference"}, marks=fixed("shared port")),
        pytest.param("GET", "/models", {"management"}, marks=fixed("shared port")),
        pytest.param("GET", "/models/m/1.0", {"management"}, marks=fixed("shared port")),
        pytest.param("OPTIONS", "/models/m/1.0", {"management"}, marks=fixed("shared port")),
        pytest.param("GET", "/metrics", {"inference", "management"}, marks=fixed("shared port")),
    ],
)
def test_each_route_of_a_shared_port_takes_its_own_key(
    shared: ContractServer, method: str, path: str, kinds: set[str]
) -> None:
    """And a version is described there."""
    for kind in ("", *KINDS):
        answer = ask(shared, path, kind, method=method)
        if kind in kinds:
            assert answer.status_code == 200, answer.text
        else:
            assert error(answer) == REFUSED


@check("rest inference", 29)
@check("rest inference", 23)
def test_a_shared_port_describes_all_apis(shared: ContractServer) -> None:
    """Inference first."""
    paths = list(ask(shared, "/", method="OPTIONS").json()["paths"])
    assert paths[:2] == ["/", "/ping"]
    assert len(paths) == len(set(paths)) == 12
    assert {"/predictions/{model_name}", "/models/{model_name}/{model_version}/set-default", "/metrics"} < set(paths)


@check("rest inference", 29)
@fixed("shared port")
def test_unknown_paths_of_a_shared_port(shared: ContractServer) -> None:
    """Either key will do to learn that there is nothing."""
    for kind in ("inference", "management"):
        assert ask(shared, "/nothing", kind).status_code == 404
        assert ask(shared, "/models/m/1.0/foo", kind).status_code == 404
    assert error(ask(shared, "/nothing")) == REFUSED
