"""KServe's protocols over REST, versions 1 and 2: TorchServe's routes, its envelopes, and the whole of version 2."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest

from contract.rest_server import error, make, serving
from contract.server import ContractServer
from harness.archives import pack
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed

JSON = {"content-type": "application/json"}
OCTETS = {"content-type": "application/octet-stream"}

# Answers rows with themselves, of tensors with their data.
ECHO = """
def handle(data, context):
    if data is None:
        return None
    return [row["data"] if isinstance(row, dict) and "data" in row else row for row in data]
"""

BYTES_AS_TEXT = """
def handle(data, context):
    return None if data is None else [str(row) for row in data]
"""

# Knows the protocol: echoes the first input, whatever it is.
AWARE = """
def handle(data, context):
    if data is None:
        return None
    answers = []
    for row in data:
        (first, *_) = row["body"]["inputs"]
        output = {name: first[name] for name in ("datatype", "shape", "data")}
        answers.append({"id": row["body"].get("id"), "model_name": "aware", "model_version": "1.0",
                        "outputs": [{"name": "echo", **output}]})
    return answers
"""

# Knows nothing of it.
SCALE = """
def handle(data, context):
    return None if data is None else [{"sum": row["body"].sum(), "twice": row["body"] * 2} for row in data]
"""
SCALE_CONFIG = """
openInference:
  mapping: rows
  inputs:
    - {name: x, datatype: FP32, shape: [-1, 2]}
  outputs:
    - {name: sum, datatype: FP64, shape: [-1]}
    - {name: twice, datatype: FP32, shape: [-1, 2]}
"""

SUMS = """
def handle(data, context):
    return None if data is None else [str(sum(row["body"])) for row in data]
"""

SLOW_TO_LOAD = """
import os, time

class Slow:
    def initialize(self, context):
        while not os.path.exists(os.path.join(os.environ["CONTRACT_RECORD"], "slow.gate")):
            time.sleep(0.01)

    def handle(self, data, context):
        return ["ok"] * len(data)
"""

DATATYPES = {
    "BOOL": "?", "UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q", "INT8": "b", "INT16": "h", "INT32": "i",
    "INT64": "q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
V2: dict[str, Any] = {
    "id": "abc",
    "inputs": [{"name": "in0", "shape": [2, 2], "datatype": "FP32", "data": [1, 2, 3, 4]}],
}
FLOATS = struct.pack("<4f", 1, 2, 3, 4)


def post(server: ContractServer, path: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
    """Without a content type unless one is given; an object is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return server.request("POST", path, content=content, headers=headers or {})


def binary_request(*tensors: tuple[str, str, list[int], bytes], **members: Any) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a request whose inputs are bytes."""
    inputs = [
        {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": len(data)}}
        for name, datatype, shape, data in tensors
    ]
    text = json.dumps({"inputs": inputs, **members}).encode()
    return text + b"".join(tensor[3] for tensor in tensors), {"Inference-Header-Content-Length": str(len(text))}


def binary_answer(answer: httpx.Response) -> tuple[dict[str, Any], bytes]:
    """The JSON of an answer, and the tensors behind it."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    return json.loads(answer.content[:length]), answer.content[length:]


def protocol_error(answer: httpx.Response, status: int) -> str:
    """The message of an error, which stands in it twice."""
    assert error(answer)[0] == status
    body = answer.json()
    assert body["error"] == body["message"]
    said: str = body["error"]
    return said


def started(factory: pytest.TempPathFactory, **options: Any) -> Iterator[ContractServer]:
    with ExitStack() as stack:
        yield stack.enter_context(make(factory.mktemp("server"), **options))


@pytest.fixture(scope="module")
def kserve_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    config = {"service_envelope": "kserve"}
    yield from started(tmp_path_factory, config=config, archives={"m": ECHO}, startup=("m",))


@pytest.fixture(scope="module")
def kservev2_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    config = {"service_envelope": "kservev2"}
    yield from started(tmp_path_factory, config=config, archives={"v2echo": ECHO}, startup=("v2echo",))


@pytest.fixture(scope="module")
def json_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    archives = {"m": ECHO, "text": BYTES_AS_TEXT}
    options = {"config": {"service_envelope": "json"}, "archives": archives, "startup": tuple(archives)}
    yield from started(tmp_path_factory, **options)


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    environment = {"TS_OPEN_INFERENCE_PROTOCOL": "oip"}
    archives = {"aware": AWARE}
    yield from started(tmp_path_factory, environment=environment, archives=archives, startup=("aware",))


@pytest.fixture(scope="module")
def guarded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    config = {"service_envelope": "kfserving", "ts_open_inference_protocol": "true"}
    archives = {"m": ECHO}
    yield from started(tmp_path_factory, config=config, archives=archives, startup=("m",), tokens=True)


@pytest.fixture(scope="module")
def scale(open_server: ContractServer) -> Iterator[str]:
    with serving(open_server, "scale", SCALE, config=SCALE_CONFIG) as name:
        yield name


class TestVersion1:
    """Envelope `kserve`."""

    @pytest.fixture
    def server(self, kserve_server: ContractServer) -> ContractServer:
        return kserve_server

    @check("kserve", 1)
    @pytest.mark.parametrize("headers", [JSON, {}])
    @pytest.mark.parametrize(
        ("path", "member"),
        [("/v1/models/m:predict", "predictions"), ("/v1/models/m:explain", "explanations")],
    )
    def test_instances(self, server: ContractServer, path: str, member: str, headers: dict[str, str]) -> None:
        answer = post(server, path, {"instances": [1, {"a": "x"}]}, headers)
        expected = f'{{\n  "{member}": [\n    1,\n    {{\n      "a": "x"\n    }}\n  ]\n}}'
        assert (answer.status_code, answer.text) == (200, expected)

    @check("kserve", 1)
    def test_explanations_by_the_other_route(self, server: ContractServer) -> None:
        answer = post(server, "/explanations/m", {"instances": [1, 2]}, JSON)
        assert answer.json() == {"explanations": [1, 2]}

    @fixed("types of kserve's answers")
    def test_answers_are_labelled(self, server: ContractServer) -> None:
        answer = post(server, "/v1/models/m:predict", {"instances": [1]})
        assert answer.headers["content-type"] == "application/json"

    @fixed("envelopes and bad requests")
    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (b"{", "request is not valid JSON"),
            ([1], "request is not a JSON object"),
            ({"x": 1}, "request has no list 'instances'"),
        ],
    )
    def test_what_is_no_request(self, server: ContractServer, body: Any, text: str) -> None:
        status, _, message = error(post(server, "/v1/models/m:predict", body, JSON))
        assert (status, message[: len(text)]) == (400, text)

    @fixed("envelopes and bad requests")
    def test_no_instances(self, server: ContractServer) -> None:
        assert post(server, "/v1/models/m:predict", {"instances": []}, JSON).json() == {"predictions": []}

    @check("kserve", 16)
    @fixed("envelopes and batches")
    def test_each_request_of_a_batch_gets_its_own(self, server: ContractServer) -> None:
        with (
            serving(server, "pair", ECHO, batch_size=2, max_batch_delay=20_000) as name,
            ThreadPoolExecutor(2) as pool,
        ):
            bodies = [{"instances": [1, 2]}, {"instances": ["x"]}]
            answers = pool.map(lambda body: post(server, f"/v1/models/{name}:predict", body, JSON), bodies)
            assert [answer.json() for answer in answers] == [{"predictions": [1, 2]}, {"predictions": ["x"]}]

    @check("kserve", 5)
    def test_an_unknown_model(self, server: ContractServer) -> None:
        answer = post(server, "/v1/models/nope:predict", {"instances": []}, JSON)
        assert error(answer) == (404, "ModelNotFoundException", "Model not found: nope")
        assert "error" not in answer.json()

    @check("kserve", 6)
    @pytest.mark.parametrize("path", ["/v1/models/m:foo", "/v1/models/m/1.0:predict", "/v1/models/m:predict/x"])
    def test_other_verbs_and_places(self, server: ContractServer, path: str) -> None:
        assert error(post(server, path, {}, JSON))[:2] == (404, "ResourceNotFoundException")

    @check("kserve", 7)
    def test_readiness(self, server: ContractServer) -> None:
        with serving(server, "ready", ECHO) as name:
            ask = f"/v1/models/{name}"
            assert server.request("GET", ask, "Management").json() == {"name": name, "ready": True}
            assert server.rescale(name, min_worker=0, max_worker=0, synchronous="true").status_code == 200
            answer = server.request("GET", ask, "Management")
            assert (answer.status_code, answer.json()) == (200, {"name": name, "ready": False})

    @fixed("readiness of models")
    def test_readiness_on_the_inference_port(self, server: ContractServer) -> None:
        assert server.request("GET", "/v1/models/m").json() == {"name": "m", "ready": True}
        assert "m" in server.request("GET", "/v1/models").json()["models"]
        assert server.request("GET", "/").json() == {"status": "alive"}

    @fixed("envelopes and describe")
    def test_describe_calls_pass_by(self, server: ContractServer) -> None:
        source = "def handle(data, context):\n    return data and [{'me': 1}]\n"
        with serving(server, "telling", source) as name:
            answer = server.request("GET", f"/models/{name}", "Management", params={"customized": "true"})
            assert answer.json()[0]["customizedMetadata"] == {"me": 1}


class TestVersion2OfTorchServe:
    """Envelope `kservev2`; the rest of the protocol is switched off."""

    @pytest.fixture
    def server(self, kservev2_server: ContractServer) -> ContractServer:
        return kservev2_server

    EXPECTED = (
        '{\n  "id": "abc",\n  "model_name": "v2echo",\n  "model_version": "1.0",\n  "outputs": [\n    {\n      '
        '"name": "in0",\n      "datatype": "INT64",\n      "data": [\n        1,\n        2,\n        3,\n        4\n'
        '      ],\n      "shape": [\n        4\n      ]\n    }\n  ]\n}'
    )

    @check("kserve", 2)
    @pytest.mark.parametrize("verb", ["infer", "explain"])
    @pytest.mark.parametrize("headers", [JSON, {}])
    def test_byte_for_byte(self, server: ContractServer, verb: str, headers: dict[str, str]) -> None:
        answer = post(server, f"/v2/models/v2echo/{verb}", V2, headers)
        assert (answer.status_code, answer.text) == (200, self.EXPECTED)

    @check("kserve", 2)
    def test_the_id_of_the_request(self, server: ContractServer) -> None:
        answer = post(server, "/v2/models/v2echo/infer", {"inputs": V2["inputs"]})
        assert answer.json()["id"] == answer.headers["x-request-id"]

    @fixed("envelopes and bad requests")
    def test_what_is_no_request(self, server: ContractServer) -> None:
        answer = post(server, "/v2/models/v2echo/infer", {"inputs": [{**V2["inputs"][0], "shape": [3]}]})
        assert protocol_error(answer, 400).startswith("data of input 'in0' do not fit its shape")

    @fixed("tensors over rest")
    def test_a_binary_request_is_unpacked_before(self, server: ContractServer) -> None:
        body, headers = binary_request(("in0", "FP32", [2, 2], FLOATS), id="abc")
        (output,) = post(server, "/v2/models/v2echo/infer", body, headers).json()["outputs"]
        assert (output["datatype"], output["data"]) == ("FP64", [1.0, 2.0, 3.0, 4.0])

    @check("kserve", 8)
    @pytest.mark.parametrize("path", ["/v2", "/v2/health/live", "/v2/health/ready", "/v2/models/v2echo/versions/1.0"])
    def test_nothing_else_is_served(self, server: ContractServer, path: str) -> None:
        assert error(server.request("GET", path))[:2] == (404, "ResourceNotFoundException")


class TestJson:
    """Envelope `json`."""

    @pytest.fixture
    def server(self, json_server: ContractServer) -> ContractServer:
        return json_server

    @check("kserve", 3)
    def test_compact_text(self, server: ContractServer) -> None:
        for path in ("/v1/models/m:predict", "/predictions/m"):
            assert post(server, path, {"instances": [1, 2, 3]}, JSON).text == '{"predictions": [1, 2, 3]}'

    @check("kserve", 3)
    def test_base64_reaches_the_handler_as_bytes(self, server: ContractServer) -> None:
        body = {"instances": [{"b64": "/+8="}, {"image": {"b64": "eA=="}, "n": 1}]}
        expected = {"predictions": ["b'\\xff\\xef'", "{'image': b'x', 'n': 1}"]}
        assert post(server, "/v1/models/text:predict", body, JSON).json() == expected


class TestVersion2:
    """The whole protocol, switched on."""

    @pytest.fixture
    def server(self, open_server: ContractServer) -> ContractServer:
        return open_server

    @check("kserve", 8)
    def test_health(self, server: ContractServer) -> None:
        assert server.request("GET", "/v2/health/live").json() == {"live": True}
        assert server.request("GET", "/v2/health/ready").json() == {"ready": True}

    @check("kserve", 8)
    @pytest.mark.parametrize("path", ["/v2", "/v2/"])
    def test_server_metadata(self, server: ContractServer, path: str) -> None:
        found = server.request("GET", path).json()
        assert (found["name"], found["extenstion"]) == ("Torchserve", ["kserve", "kubeflow"])
        assert found["version"]

    @check("kserve", 8)
    @fixed("open inference over rest")
    def test_extensions(self, server: ContractServer) -> None:
        found = server.request("GET", "/v2").json()
        assert found["extensions"] == ["kserve", "kubeflow", "binary_tensor_data", "statistics"]

    @check("kserve", 5)
    @fixed("open inference over rest")
    @pytest.mark.parametrize(
        ("path", "text"),
        [
            ("/v2/models/nope/infer", "Model not found: nope"),
            ("/v2/models/nope/versions/1.0/infer", "Model not found: nope"),
            ("/v2/models/aware/versions/9/infer", "Model version: 9 does not exist for model: aware"),
        ],
    )
    def test_unknown_models(self, server: ContractServer, path: str, text: str) -> None:
        assert protocol_error(post(server, path, V2), 404) == text

    @fixed("open inference over rest")
    def test_metadata(self, server: ContractServer, scale: str) -> None:
        aware = {"name": "aware", "versions": ["1.0"], "platform": "", "inputs": [], "outputs": []}
        assert server.request("GET", "/v2/models/aware").json() == aware
        found = server.request("GET", f"/v2/models/{scale}/versions/1.0").json()
        assert found["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 2]}]
        assert [output["name"] for output in found["outputs"]] == ["sum", "twice"]
        assert server.request("GET", "/v2/models").json() == {"models": ["aware", "scale"]}

    @check("kserve", 17)
    @fixed("open inference over rest")
    def test_ready_once_it_has_loaded(self, server: ContractServer) -> None:
        pack(server.store, name := "slow", SLOW_TO_LOAD)
        assert server.register(f"{name}.mar", workers=1, synchronous="false").status_code == 202
        try:
            path = f"/v2/models/{name}/ready"
            answer = server.request("GET", path)
            expected = {"name": name, "ready": False, "error": "Model with name slow is not ready."}
            assert (answer.status_code, answer.json()) == (503, expected)
            assert [entry["state"] for entry in self.index(server) if entry["name"] == name] == ["UNAVAILABLE"]
            server.open("slow")
            eventually(lambda: server.request("GET", path).status_code == 200)
            assert server.request("GET", f"/v2/models/{name}/versions/1.0/ready").json() == {
                "name": name,
                "ready": True,
            }
            assert name in [entry["name"] for entry in self.index(server, ready=True)]
        finally:
            server.open("slow")
            server.delete(name)

    def index(self, server: ContractServer, **members: Any) -> Any:
        return server.request("POST", "/v2/repository/index", json=members).json()

    @fixed("open inference over rest")
    def test_models_come_and_go(self, server: ContractServer) -> None:
        with serving(server, "guest", ECHO) as name:
            path = f"/v2/repository/models/{name}"
            assert server.request("POST", f"{path}/unload").json() == {"name": name, "unload": True}
            assert protocol_error(server.request("GET", f"/v2/models/{name}/ready"), 404)
            assert server.request("POST", f"{path}/load").json() == {"name": name, "load": True}
            assert server.request("GET", f"/v2/models/{name}/ready").status_code == 200

    @fixed("open inference over rest")
    def test_extensions_that_are_not_offered(self, server: ContractServer) -> None:
        answer = server.request("GET", "/v2/models/aware/config")
        assert protocol_error(answer, 501) == "The model configuration extension is not supported"

    def statistics(self, server: ContractServer, path: str) -> Any:
        return server.request("GET", f"/v2/models/{path}").json()["model_stats"]

    @fixed("open inference over rest")
    def test_statistics(self, server: ContractServer) -> None:
        with serving(server, "sums", SUMS) as name:
            (idle,) = self.statistics(server, f"{name}/stats")
            assert (idle["name"], idle["version"], idle["last_inference"]) == (name, "1.0", 0)
            assert (idle["inference_stats"]["success"], idle["batch_stats"]) == ({"count": 0, "ns": 0}, [])
            for numbers, status in (([1, 2], 200), ([3], 200), (["no"], 503)):
                assert post(server, f"/predictions/{name}", numbers, JSON).status_code == status
            (told,) = self.statistics(server, f"{name}/versions/1.0/stats")
            times = told["inference_stats"]
            assert (told["inference_count"], told["execution_count"]) == (2, 2)
            assert (times["success"]["count"], times["fail"]["count"], times["queue"]["count"]) == (2, 1, 2)
            assert 0 < times["queue"]["ns"] < times["success"]["ns"]
            assert [(batch["batch_size"], batch["compute_infer"]["count"]) for batch in told["batch_stats"]] == [(1, 2)]
            assert {"aware", name} <= {each["name"] for each in self.statistics(server, "stats")}
            server.request("POST", f"/v2/repository/models/{name}/unload")
            answer = server.request("GET", f"/v2/models/{name}/stats")
            assert protocol_error(answer, 404) == f"Model not found: {name}"
            server.request("POST", f"/v2/repository/models/{name}/load")
            assert self.statistics(server, f"{name}/stats") == [idle]

    @fixed("tensors over rest")
    @pytest.mark.parametrize("path", ["/v2/models/aware/infer", "/v2/models/aware/versions/1.0/infer"])
    def test_an_aware_handler_gets_the_request(self, server: ContractServer, path: str) -> None:
        body, headers = binary_request(("in0", "FP32", [2, 2], FLOATS), id="9")
        expected = {"name": "echo", "datatype": "FP32", "shape": [2, 2], "data": [1.0, 2.0, 3.0, 4.0]}
        answer = post(server, path, body, headers)
        assert answer.headers["content-type"] == "application/json"
        assert (answer.json()["id"], answer.json()["outputs"]) == ("9", [expected])

    @fixed("tensors over rest")
    @pytest.mark.parametrize("datatype", DATATYPES)
    def test_there_and_back_in_bytes(self, server: ContractServer, datatype: str) -> None:
        sent = struct.pack(f"<3{DATATYPES[datatype]}", 1, 0, 1)
        body, headers = binary_request(("a", datatype, [3], sent), parameters={"binary_data_output": True})
        document, tail = binary_answer(post(server, "/v2/models/aware/infer", body, headers))
        (output,) = document["outputs"]
        assert (output["datatype"], output["parameters"], tail) == (datatype, {"binary_data_size": len(sent)}, sent)

    @fixed("tensors over rest")
    def test_text_and_bfloat16(self, server: ContractServer) -> None:
        for datatype, sent in (("BYTES", b"\x02\0\0\0ab\x02\0\0\0\xc3\xa9"), ("BF16", b"\x80\x3f\0\xc0")):
            body, headers = binary_request(("a", datatype, [2], sent), outputs=[{"name": "echo"}])
            (output,) = post(server, "/v2/models/aware/infer", body, headers).json()["outputs"]
            assert output["data"] == (["ab", "\u00e9"] if datatype == "BYTES" else [1.0, -2.0])
            body, headers = binary_request(("a", datatype, [2], sent), parameters={"binary_data_output": True})
            assert binary_answer(post(server, "/v2/models/aware/infer", body, headers))[1] == sent

    @fixed("tensors over rest")
    def test_outputs_in_bytes_for_json(self, server: ContractServer) -> None:
        """As clients of Triton ask that send JSON."""
        body = {**V2, "outputs": [{"name": "echo", "parameters": {"binary_data": True}}]}
        document, tail = binary_answer(post(server, "/v2/models/aware/infer", body, JSON))
        assert (document["id"], tail) == ("abc", FLOATS)

    @fixed("tensors over rest")
    @pytest.mark.parametrize("binary", [False, True])
    def test_a_handler_that_knows_nothing_of_it(self, server: ContractServer, scale: str, binary: bool) -> None:
        if binary:
            body, headers = binary_request(("x", "FP32", [2, 2], FLOATS), parameters={"binary_data_output": True})
            document, tail = binary_answer(post(server, f"/v2/models/{scale}/infer", body, headers))
            assert tail == struct.pack("<2d4f", 3, 7, 2, 4, 6, 8)
        else:
            sent = {"inputs": [{**V2["inputs"][0], "name": "x"}], "outputs": [{"name": "twice"}, {"name": "sum"}]}
            document = post(server, f"/v2/models/{scale}/infer", sent).json()
            assert [output.pop("data") for output in document["outputs"]] == [[2.0, 4.0, 6.0, 8.0], [3.0, 7.0]]
            document["outputs"].reverse()
        assert (document["model_name"], document["model_version"]) == ("scale", "1.0")
        assert [(output["name"], output["datatype"], output["shape"]) for output in document["outputs"]] == [
            ("sum", "FP64", [2]),
            ("twice", "FP32", [2, 2]),
        ]

    @fixed("tensors over rest")
    @pytest.mark.parametrize(
        ("changes", "text"),
        [
            ({"name": "y"}, "unknown input 'y': the model has 'x'"),
            ({"datatype": "INT8"}, "input 'x': the model takes datatype FP32, got 'INT8'"),
            ({"shape": [4]}, "input 'x': the model takes shape [-1, 2], got [4]"),
            ({"data": [1]}, "input 'x': shape [2, 2] needs 4 elements, got 1"),
        ],
    )
    def test_what_is_not_declared(self, server: ContractServer, scale: str, changes: Any, text: str) -> None:
        sent = {"inputs": [{**V2["inputs"][0], "name": "x", **changes}]}
        assert protocol_error(post(server, f"/v2/models/{scale}/infer", sent, JSON), 400) == text

    @check("kserve", 14)
    @fixed("tensors over rest")
    def test_binary_bodies_that_do_not_fit(self, server: ContractServer) -> None:
        """Each is told what is wrong, and the worker goes on."""
        body, headers = binary_request(("in0", "FP32", [2, 2], FLOATS))
        wrong_size, its_headers = binary_request(("in0", "FP32", [2, 2], FLOATS[:12]))
        length = "Inference-Header-Content-Length"
        refused = {
            "input 'in0': binary_data_size is 16, but only 15 bytes are left": (body[:-1], headers),
            "1 bytes are left over behind the last binary input": (body + b"x", headers),
            "input 'in0': expected 16 bytes for shape [2, 2] of FP32, got 12": (wrong_size, its_headers),
            f"{length} is 9999, but the body has only {len(body)} bytes": (body, {length: "9999"}),
            f"{length} must be a number of bytes, got 'x'": (body, {length: "x"}),
        }
        before = {worker["pid"] for worker in server.workers("aware")}
        for text, (content, sent) in refused.items():
            assert protocol_error(post(server, "/v2/models/aware/infer", content, sent), 400) == text
        assert post(server, "/v2/models/aware/infer", body, headers).status_code == 200
        assert {worker["pid"] for worker in server.workers("aware")} == before

    @fixed("tensors over rest")
    def test_compressed_requests(self, server: ContractServer) -> None:
        body, headers = binary_request(("in0", "FP32", [2, 2], FLOATS))
        answer = post(server, "/v2/models/aware/infer", gzip.compress(body), {**headers, "Content-Encoding": "gzip"})
        assert answer.json()["outputs"][0]["data"] == [1.0, 2.0, 3.0, 4.0]
        bomb = gzip.compress(bytes(20 << 20))
        answer = post(server, "/v2/models/aware/infer", bomb, {**JSON, "Content-Encoding": "gzip"})
        assert (
            protocol_error(answer, 413) == "Request body exceeds max_request_size of 6553500 bytes once it is inflated."
        )

    @fixed("tensors over rest")
    def test_compressed_answers(self, server: ContractServer) -> None:
        """For who names one coding; what libraries name of themselves is several."""
        tensors = [{"name": "in0", "datatype": "INT8", "shape": [2000], "data": [7] * 2000}]
        for accepted, expected in {"gzip": "gzip", "deflate": "deflate", "gzip, deflate": None}.items():
            answer = post(server, "/v2/models/aware/infer", {"inputs": tensors}, {**JSON, "Accept-Encoding": accepted})
            assert answer.headers.get("content-encoding") == expected
            assert (int(answer.headers["content-length"]) < 500) == (expected is not None)
            assert answer.json()["outputs"][0]["data"] == [7] * 2000


class TestTokens:
    """The protocol behind keys, and the envelope under its old name."""

    @pytest.fixture
    def server(self, guarded_server: ContractServer) -> ContractServer:
        return guarded_server

    def key(self, server: ContractServer, kind: str) -> dict[str, str]:
        keys = json.loads((server.directory / "key_file.json").read_text())
        return {"Authorization": f"Bearer {keys[kind]['key']}"}

    @check("kserve", 4)
    @fixed("older envelopes")
    def test_the_old_name_of_the_envelope(self, server: ContractServer) -> None:
        answer = post(server, "/v1/models/m:predict", {"instances": [1]}, self.key(server, "inference"))
        assert answer.json() == {"predictions": [1]}

    @check("kserve", 18)
    @fixed("older envelopes")
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/v1/models/m:predict"),
            ("POST", "/v2/models/m/infer"),
            ("GET", "/v1/models/m"),
            ("GET", "/v2"),
            ("GET", "/v2/health/live"),
            ("GET", "/v2/models/m/ready"),
            ("POST", "/v2/repository/index"),
        ],
    )
    def test_the_key_for_inference(self, server: ContractServer, method: str, path: str) -> None:
        content = json.dumps({"instances": [], "inputs": []} if "index" not in path else {}).encode()
        for headers in ({}, self.key(server, "management")):
            refused = server.request(method, path, content=content, headers=headers)
            assert error(refused)[:2] == (400, "InvalidKeyException")
            assert ("error" in refused.json()) is path.startswith("/v2")
        key = self.key(server, "inference")
        eventually(lambda: server.request(method, path, content=content, headers=key).status_code == 200)
