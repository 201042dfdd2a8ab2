"""Routes of the inference port, and what every response has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.rest_server import PUPPET, WITNESS, error, get_as_is, make, serving, told
from contract.server import NOT_ACCEPTING, ContractServer
from harness.archives import pack
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
CORS = {"origin": "https://pages.example", "methods": "GET, POST", "headers": "X-Own"}
CONFIG = {"max_request_size": 1000, **{f"cors_allowed_{name}": value for name, value in CORS.items()}}
NOT_FOUND = (404, "ResourceNotFoundException", "Requested resource is not found, please refer to API document.")
PREDICTIONS = {"/v1/models/{model_name}:predict", "/v2/models/{model_name}/infer"}
INFERENCE = {
    *PREDICTIONS,
    "/",
    "/ping",
    "/predictions/{model_name}",
    "/predictions/{model_name}/{model_version}",
    "/api-description",
    "/metrics",
}
MANAGEMENT = {
    "/",
    "/models",
    "/models/{model_name}",
    "/models/{model_name}/{model_version}",
    "/models/{model_name}/{model_version}/set-default",
    "/api-description",
    "/metrics",
}


@pytest.fixture(scope="module")
def witness(server: ContractServer) -> Iterator[str]:
    with serving(server, "witness", WITNESS) as name:
        yield name


@check("rest inference", 1)
def test_ping(server: ContractServer) -> None:
    """To the byte."""
    answer = server.request("GET", "/ping")
    assert (answer.status_code, answer.content) == (200, b'{\n  "status": "Healthy"\n}\n')
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", answer.headers["x-request-id"])
    assert {name: answer.headers[name] for name in ("content-type", "pragma", "cache-control", "expires")} == {
        "content-type": "application/json",
        "pragma": "no-cache",
        "cache-control": "no-cache; no-store, must-revalidate, private",
        "expires": "Thu, 01 Jan 1970 00:00:00 UTC",
    }
    assert (answer.headers["content-length"], answer.headers["connection"]) == ("26", "keep-alive")


def test_every_response_has_an_id_of_its_own(server: ContractServer) -> None:
    """Not the client's."""
    answers = [server.request("GET", "/ping", headers={"x-request-id": "mine"}) for _ in range(2)]
    assert len({answer.headers["x-request-id"] for answer in answers} | {"mine"}) == 3


@check("rest inference", 2)
def test_ping_tells_of_a_model_that_cannot_load(server: ContractServer) -> None:
    """Not before its time for attempts is over; without it all is well again."""
    server.prepare("hopeless", starting="raise", config="maxRetryTimeoutInSec: 1\n")
    assert server.register("hopeless.mar", synchronous="false").status_code == 202
    assert server.ping() == 200
    eventually(lambda: server.ping() == 500)
    answer = server.request("GET", "/ping")
    assert answer.json()["status"] == "Unhealthy"
    assert answer.headers["connection"] == "close"
    server.delete("hopeless")
    eventually(lambda: server.ping() == 200)


@check("rest inference", 8)
def test_invocations_of_a_server_with_one_startup_model(tmp_path: Path) -> None:
    """It needs no name; the query may give another one."""
    server = make(tmp_path, archives={"one": WITNESS, "other": WITNESS}, startup=("one",))
    with server:
        eventually(lambda: server.ready_workers("one"))
        assert server.register("other.mar").status_code == 200
        assert told(server.request("POST", "/invocations"))["row"] == {"body": ["bytearray", ""]}
        named = server.request("POST", "/invocations", data={"model_name": "unheard"})
        assert told(named)["row"] == {"model_name": ["bytearray", "unheard"]}
        assert told(server.request("POST", "/invocations?model_name=other"))["row"]["model_name"][1] == "other"
        assert error(server.request("POST", "/invocations?model_name=x"))[2] == "Model not found: x"
        server.delete("one")
        server.register("one.mar")
        assert error(server.request("POST", "/invocations"))[2] == "Parameter model_name is required."


@check("rest inference", 8)
def test_invocations_of_a_server_with_two_startup_models(tmp_path: Path) -> None:
    """A field of a form may name one; with one of them gone, the other needs no name."""
    server = make(tmp_path, archives={"one": WITNESS, "two": WITNESS}, startup=("one", "two"))
    with server:
        eventually(lambda: server.ready_workers("one") and server.ready_workers("two"))
        required = (400, "BadRequestException", "Parameter model_name is required.")
        assert error(server.request("POST", "/invocations")) == required
        assert error(server.request("POST", "/invocations", json={"model_name": "one"})) == required
        row = told(server.request("POST", "/invocations", data={"model_name": "one"}))["row"]
        assert row == {"model_name": ["bytearray", "one"]}
        server.delete("one")
        assert told(server.request("POST", "/invocations"))["row"] == {"body": ["bytearray", ""]}


@check("rest inference", 15)
@pytest.mark.parametrize(
    ("path", "type_", "message"),
    [
        ("/predictions/nope", "ModelNotFoundException", "Model not found: nope"),
        ("/explanations/nope", "ModelNotFoundException", "Model not found: nope"),
        ("/models/nope/invoke", "ModelNotFoundException", "Model not found: nope"),
        ("/nope/predict", "ModelNotFoundException", "Model not found: nope"),
        ("/v1/models/nope:predict", "ModelNotFoundException", "Model not found: nope"),
        ("/predictions/{}/2.0", "ModelVersionNotFoundException", "Model version: 2.0 does not exist for model: {}"),
        ("/{}/2.0/predict", "ModelVersionNotFoundException", "Model version: 2.0 does not exist for model: {}"),
    ],
)
def test_unknown_models(server: ContractServer, witness: str, path: str, type_: str, message: str) -> None:
    """To the byte."""
    answer = server.request("POST", path.format(witness))
    text = '{\n  "code": 404,\n  "type": "%s",\n  "message": "%s"\n}\n'
    assert (answer.status_code, answer.text) == (404, text % (type_, message.format(witness)))
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "path",
    [
        "//ping",
        "/predictions",
        "/explanations/",
        "/invocations/x",
        "/models",
        "/models/m",
        "/models/m/foo",
        "/models/m/invoke/x",
        "/models/m/predict",
        "/v1/models/m:foo",
        "/v1/models/m/1.0:predict",
        "/v2/health/live",
        "/execution-parameters",
        "/nothing",
    ],
)
def test_what_the_inference_port_does_not_serve(server: ContractServer, path: str) -> None:
    """Whatever the method."""
    for method in ("GET", "POST", "OPTIONS"):
        assert error(server.request(method, path)) == NOT_FOUND


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "path", ["/predictions/{}", "/predictions/{}/1.0/", "/models/{}/invoke", "/{}/predict", "/ping/x"]
)
def test_any_method_will_do(server: ContractServer, witness: str, method: str, path: str) -> None:
    """And a slash at the end."""
    assert server.request(method, path.format(witness)).status_code == 200


@pytest.mark.parametrize("path", ["/ping", "/predictions/{}", "/nothing"])
def test_head_has_the_headers_alone(server: ContractServer, witness: str, path: str) -> None:
    """With the length that the body would have."""
    head, full = (server.request(method, path.format(witness)) for method in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (full.status_code, b"")
    assert int(head.headers["content-length"]) > 0
    assert head.headers.keys() == full.headers.keys()


@fixed("bad escapes")
@pytest.mark.parametrize("path", ["/predictions/%zz", "/models/{}/invoke?a=%zz"])
def test_bad_escapes(server: ContractServer, witness: str, path: str) -> None:
    """In the path, and in a query that is read."""
    status, type_, message = error(get_as_is(server, path.format(witness)))
    assert (status, type_) == (400, "BadRequestException")
    assert message.startswith("invalid hex byte 'zz' at index ")


@check("rest inference", 16)
def test_a_model_without_workers(server: ContractServer) -> None:
    """The message names the version only if the client did."""
    pack(server.store, "idle", PUPPET)
    assert server.register("idle.mar").status_code == 200
    server.scale("idle", 0)
    expected = NOT_ACCEPTING.format("idle")
    assert error(server.ask("idle")) == (503, "ServiceUnavailableException", expected)
    versioned = expected.replace('"idle" has', '"idle" Version 1.0" has')
    assert error(server.ask("idle/1.0")) == (503, "ServiceUnavailableException", versioned)
    server.delete("idle")


@check("rest inference", 17)
def test_more_requests_than_there_is_room_for(server: ContractServer, tmp_path: Path) -> None:
    """Nine come to a worker that takes four and a queue of three."""
    gate = tmp_path / "gate"
    with serving(server, "narrow", PUPPET, config="jobQueueSize: 3\nbatchSize: 4\nmaxBatchDelay: 100\n") as name:
        calls = [server.ask_aside(name, wait=str(gate)) for _ in range(9)]
        eventually(lambda: sum(call.done() for call in calls) >= 2)
        gate.touch()
        answers = [call.result() for call in calls]
        served = [answer for answer in answers if answer.status_code == 200]
        assert 3 <= len(served) <= 7
        refused = {error(answer) for answer in answers if answer.status_code != 200}
        assert refused == {(503, "ServiceUnavailableException", NOT_ACCEPTING.format(name))}


@check("rest inference", 20)
def test_the_largest_body(server: ContractServer, witness: str) -> None:
    """One byte more is too much, on every port, with and without a length."""
    assert server.predict(witness, b"x" * 1000).status_code == 200
    assert server.predict(witness, b"x" * 1001).status_code == 413
    assert server.request("POST", f"/predictions/{witness}", content=iter([b"x" * 1001])).status_code == 413
    assert server.request("PUT", f"/models/{witness}", "Management", content=b"x" * 1001).status_code == 413


@check("rest inference", 20)
@fixed("body too large")
def test_what_is_said_of_a_body_that_is_too_large(server: ContractServer, witness: str) -> None:
    """As of any error."""
    answer = server.predict(witness, b"x" * 1001)
    assert error(answer)[:2] == (413, "BadRequestException")
    assert "x-request-id" in answer.headers


@check("rest inference", 21)
@pytest.mark.parametrize(
    ("method", "path", "api", "status"),
    [
        ("GET", "/ping", "Inference", 200),
        ("POST", "/predictions/{}", "Inference", 200),
        ("OPTIONS", "/predictions/{}", "Inference", 200),
        ("OPTIONS", "/", "Inference", 200),
        ("GET", "/", "Inference", 405),
        ("OPTIONS", "/nothing", "Inference", 404),
        ("GET", "/predictions/nope", "Inference", 404),
        ("OPTIONS", "/models", "Management", 405),
        ("GET", "/models", "Management", 200),
        ("GET", "/metrics", "Metrics", 200),
    ],
)
def test_headers_for_other_origins(
    server: ContractServer, witness: str, method: str, path: str, api: str, status: int
) -> None:
    """Whatever the client's origin."""
    for headers in ({}, {"Origin": "https://other.example"}):
        answer = server.request(method, path.format(witness), api, headers=headers)
        assert answer.status_code == status
        assert {name: answer.headers[f"access-control-allow-{name}"] for name in CORS} == CORS


@check("rest inference", 21)
def test_a_handler_may_allow_another_origin(server: ContractServer) -> None:
    """It says more than the configuration."""
    with serving(server, "open", PUPPET) as name:
        answer = server.ask(name, headers={"Access-Control-Allow-Origin": "*"})
        assert answer.headers.get_list("access-control-allow-origin") == ["*"]
        assert answer.headers["access-control-allow-methods"] == CORS["methods"]


def paths(server: ContractServer, api: str, method: str = "OPTIONS", path: str = "/") -> set[str]:
    answer = server.request(method, path, api)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    document = answer.json()
    assert (document["openapi"], document["info"]["title"]) == ("3.0.1", "TorchServe APIs")
    return set(document["paths"])


@check("rest inference", 22)
def test_get_of_the_root(server: ContractServer) -> None:
    """It has nothing to get."""
    message = "Requested method is not allowed, please refer to API document."
    for api in ("Inference", "Management", "Metrics"):
        for method in ("GET", "POST"):
            assert error(server.request(method, "/", api)) == (405, "MethodNotAllowedException", message)


@check("rest inference", 23)
@pytest.mark.parametrize(
    ("api", "listed"), [("Inference", INFERENCE), ("Management", MANAGEMENT), ("Metrics", {"/metrics"})]
)
def test_what_each_port_describes(server: ContractServer, api: str, listed: set[str]) -> None:
    """The same on both ways to the document."""
    assert paths(server, api) == listed
    assert paths(server, api, "GET", "/api-description") == listed
    assert paths(server, api, "POST", "/api-description/") == listed


@check("rest inference", 24)
@pytest.mark.parametrize(
    "path", ["/predictions/{}", "/predictions/{}/1.0", "/explanations/{}", "/models/{}/invoke", "/{}/predict"]
)
def test_the_description_of_a_model(server: ContractServer, witness: str, path: str) -> None:
    """Known by its title."""
    document = server.request("OPTIONS", path.format(witness)).json()
    assert document["info"]["title"] == f"RESTful API for: {witness}"
    assert set(document["paths"]) == {f"/prediction/{witness}", *PREDICTIONS}


@check("rest inference", 24)
def test_an_unknown_model_has_no_description(server: ContractServer) -> None:
    """Nor an unknown version."""
    assert error(server.request("OPTIONS", "/predictions/nope"))[2] == "Model not found: nope"


@pytest.mark.added
def test_a_client_may_say_how_long_it_waits(server: ContractServer, tmp_path: Path) -> None:
    """By a header; one that names no time is refused."""
    gate = tmp_path / "gate"
    with serving(server, "patient", PUPPET) as name:
        for patience, status in (("100", 408), ("never", 400)):
            headers = {"X-Request-Timeout-Ms": patience}
            answer = server.request("POST", f"/predictions/{name}", json={"wait": str(gate)}, headers=headers)
            assert error(answer)[0] == status
        gate.touch()


@check("rest inference", 28)
@fixed("client timeout")
def test_a_client_does_not_wait_longer_than_it_may(server: ContractServer, tmp_path: Path) -> None:
    """It is told so, while the handler still works."""
    gate = tmp_path / "gate"
    with serving(server, "slow", PUPPET, config="clientTimeoutInMills: 300\n") as name:
        answer = server.ask(name, wait=str(gate))
        assert error(answer) == (408, "RequestTimeoutException", "Inference request timed out after 300 ms.")
        gate.touch()
