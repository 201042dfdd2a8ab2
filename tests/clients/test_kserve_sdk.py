"""The clients of KServe's own SDK, as its users call them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

from clients.client_server import DOUBLE, DOUBLE_CONFIG, ECHO, SIZES, serve
from harness.server import ServerProcess

FLOATS = np.array([[1.5, -2.0], [0.1, 3.0]], np.float32)
VALUES: dict[str, Any] = {
    "FP32": FLOATS,
    "FP16": np.array([0.5, -1.0], np.float16),
    "INT64": np.array([-(2**63), 2**63 - 1], np.int64),
    "BOOL": np.array([True, False]),
}


@pytest.fixture(scope="module")
def v1(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = {"service_envelope": "kserve"}
    yield from serve(tmp_path_factory.mktemp("v1"), {"sizes": {"handler": SIZES}}, config=config)


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    archives = {"echo": {"handler": ECHO}, "double": {"handler": DOUBLE, "config": DOUBLE_CONFIG}}
    environment = {"TS_OPEN_INFERENCE_PROTOCOL": "oip"}
    yield from serve(tmp_path_factory.mktemp("v2"), archives, environment=environment)


def rest(server: ServerProcess, protocol: str, use: Callable[[Any, str], Awaitable[Any]]) -> Any:
    """What `use` makes of a REST client and the address of the server."""

    async def call() -> Any:
        client = InferenceRESTClient(RESTConfig(protocol=protocol, retries=0))
        try:
            return await use(client, server.url())
        finally:
            await client.close()

    return asyncio.run(call())


def rpc(server: ServerProcess, use: Callable[[Any], Awaitable[Any]]) -> Any:
    """What `use` makes of a gRPC client."""

    async def call() -> Any:
        async with InferenceGRPCClient(server.grpc_target()) as client:
            return await use(client)

    return asyncio.run(call())


def request_of(model: str, name: str, datatype: str, values: Any, *, binary: bool, **options: Any) -> Any:
    tensor = InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, binary_data=binary)
    return InferRequest(model, [tensor], **options)


class TestRestVersion1:
    @pytest.mark.check("kserve", 15)
    def test_health(self, v1: ServerProcess) -> None:
        assert rest(v1, "v1", lambda client, url: client.is_server_live(url)) is True
        assert rest(v1, "v1", lambda client, url: client.is_model_ready(url, "sizes")) is True

    def test_a_model_without_workers(self, v1: ServerProcess) -> None:
        assert v1.register("sizes.mar", workers=0, model_name="idle").status_code == 200
        assert rest(v1, "v1", lambda client, url: client.is_model_ready(url, "idle")) is False

    def test_predictions_and_explanations(self, v1: ServerProcess) -> None:
        data = {"instances": ["ab", "abc"]}
        assert rest(v1, "v1", lambda c, url: c.infer(url, data, model_name="sizes")) == {"predictions": [2, 3]}
        assert rest(v1, "v1", lambda c, url: c.explain(url, "sizes", data)) == {"explanations": [2, 3]}

    @pytest.mark.parametrize(
        ("model", "data", "status", "text"),
        [
            ("nope", {"instances": []}, 404, "Model not found: nope"),
            ("sizes", {"inputs": []}, 400, "request has no list 'instances'"),
        ],
    )
    def test_what_is_refused_can_be_read(
        self, v1: ServerProcess, model: str, data: Any, status: int, text: str
    ) -> None:
        with pytest.raises(httpx.HTTPStatusError, match=text) as caught:
            rest(v1, "v1", lambda client, url: client.infer(url, data, model_name=model))
        assert caught.value.response.status_code == status


class TestRestVersion2:
    @pytest.mark.check("kserve", 15)
    def test_health(self, v2: ServerProcess) -> None:
        assert rest(v2, "v2", lambda client, url: client.is_server_live(url)) is True
        assert rest(v2, "v2", lambda client, url: client.is_server_ready(url)) is True
        assert rest(v2, "v2", lambda client, url: client.is_model_ready(url, "echo")) is True
        assert rest(v2, "v2", lambda client, url: client.is_model_ready(url, "nope")) is False

    @pytest.mark.parametrize("datatype", VALUES)
    def test_there_and_back_in_bytes(self, v2: ServerProcess, datatype: str) -> None:
        asked = request_of(
            "echo",
            "a",
            datatype,
            VALUES[datatype],
            binary=True,
            parameters={"binary_data_output": True},
            request_id="7",
        )
        response = rest(v2, "v2", lambda client, url: client.infer(url, asked, model_name="echo"))
        (output,) = response.outputs
        assert (response.id, response.model_name, output.name, output.datatype) == ("7", "echo", "out-a", datatype)
        np.testing.assert_array_equal(output.as_numpy(), VALUES[datatype])

    @pytest.mark.parametrize("datatype", ["FP32", "INT64", "BOOL"])
    def test_there_and_back_in_json(self, v2: ServerProcess, datatype: str) -> None:
        asked = request_of("echo", "a", datatype, VALUES[datatype], binary=False)
        response = rest(v2, "v2", lambda client, url: client.infer(url, asked, model_name="echo"))
        np.testing.assert_array_equal(response.outputs[0].as_numpy(), VALUES[datatype])

    def test_text(self, v2: ServerProcess) -> None:
        asked = InferRequest("echo", [InferInput("words", [2], "BYTES", ["ab", "\u00fc"])])
        response = rest(v2, "v2", lambda client, url: client.infer(url, asked, model_name="echo"))
        assert response.outputs[0].data == ["ab", "\u00fc"]

    @pytest.mark.parametrize("binary", [True, False])
    def test_a_handler_that_knows_nothing_of_it(self, v2: ServerProcess, binary: bool) -> None:
        wanted = [RequestedOutput("doubled", {"binary_data": binary})]
        asked = request_of("double", "x", "FP32", FLOATS, binary=binary, request_outputs=wanted)
        response = rest(v2, "v2", lambda client, url: client.infer(url, asked, model_name="double"))
        np.testing.assert_array_equal(response.outputs[0].as_numpy(), FLOATS * 2)

    def test_what_is_refused_can_be_read(self, v2: ServerProcess) -> None:
        asked = request_of("double", "y", "FP32", FLOATS, binary=True)
        with pytest.raises(httpx.HTTPStatusError, match="unknown input 'y': the model has 'x', '400 Bad Request'"):
            rest(v2, "v2", lambda client, url: client.infer(url, asked, model_name="double"))


class TestGrpc:
    def test_health(self, v2: ServerProcess) -> None:
        assert rpc(v2, lambda client: client.is_server_live()) is True
        assert rpc(v2, lambda client: client.is_server_ready()) is True
        assert rpc(v2, lambda client: client.is_model_ready("echo")) is True

    @pytest.mark.parametrize("datatype", VALUES)
    def test_there_and_back_in_bytes(self, v2: ServerProcess, datatype: str) -> None:
        """The client adds the parameter `binary_data_size` to its inputs here, too."""
        asked = request_of("echo", "a", datatype, VALUES[datatype], binary=True, request_id="7")
        response = rpc(v2, lambda client: client.infer(asked))
        assert (response.id, response.outputs[0].datatype) == ("7", datatype)
        np.testing.assert_array_equal(response.outputs[0].as_numpy(), VALUES[datatype])

    @pytest.mark.parametrize(
        ("datatype", "values"), [("FP32", [1.5, -2.0]), ("INT64", [-(2**63), 7]), ("BOOL", [True, False])]
    )
    def test_there_and_back_in_typed_contents(self, v2: ServerProcess, datatype: str, values: list[Any]) -> None:
        asked = InferRequest("echo", [InferInput("a", [2], datatype, values)])
        response = rpc(v2, lambda client: client.infer(asked))
        assert response.outputs[0].as_numpy().tolist() == values

    def test_what_is_refused_can_be_read(self, v2: ServerProcess) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            rpc(v2, lambda client: client.infer(request_of("nope", "a", "FP32", FLOATS, binary=True)))
        assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "Model not found: nope")
