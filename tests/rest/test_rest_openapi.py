"""The API descriptions: valid documents, the operations that clients know, and none that is not served."""

from __future__ import annotations

from typing import Any

import pytest
from rest_doubles import MemoryEngine, Service

from modelserver.engine.requests import Registered, Scaled
from modelserver.rest.openapi import _TABLES
from modelserver.rest.operation import Operation
from modelserver.rest.operations import INFERENCE, MANAGEMENT, METRICS
from modelserver.settings.version import version

EVERY = list({operation.id: operation for operation in (*INFERENCE, *MANAGEMENT, *METRICS)}.values())
PORTS = [
    ("Inference",),
    ("Management",),
    ("Metrics",),
    ("Inference", "Management"),
    ("Management", "Metrics"),
    ("Inference", "Management", "Metrics"),
]


def document(target: str, *apis: str, method: str = "OPTIONS", models: tuple[str, ...] = ("m",)) -> Any:
    response = Service(MemoryEngine(*models), apis=apis).request(method, target)
    assert (response.status, response.headers["content-type"]) == (200, "application/json")
    return response.json


def errors(described: Any) -> list[str]:
    from openapi_spec_validator import OpenAPIV30SpecValidator  # slow: not while tests are collected

    return [str(error) for error in OpenAPIV30SpecValidator(described).iter_errors()]


@pytest.mark.parametrize("apis", PORTS)
def test_the_document_of_a_port_is_valid(apis: tuple[str, ...]) -> None:
    described = document("/", *apis)
    assert errors(described) == []
    assert described["openapi"] == "3.0.1"
    assert (described["info"]["title"], described["info"]["version"]) == ("TorchServe APIs", version())


def test_a_document_that_is_not_valid_would_be_noticed() -> None:
    described = document("/", "Inference")
    described["paths"]["/ping"]["get"]["operationId"] = "metrics"
    assert errors(described) == ["Operation ID 'metrics' for 'get' in '/metrics' is not unique"]


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("apis", PORTS)
def test_the_old_way_to_the_document(apis: tuple[str, ...], method: str) -> None:
    assert document("/api-description/", *apis, method=method) == document("/", *apis)


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "DELETE"])
def test_the_root_has_one_method(method: str) -> None:
    assert Service(MemoryEngine()).request(method, "/").status == 405


@pytest.mark.parametrize("apis", PORTS)
def test_a_shared_port_describes_all_its_apis(apis: tuple[str, ...]) -> None:
    """Paths of the first API come first."""
    paths = list(document("/", *apis)["paths"])
    wanted = [operation.path for api in apis for operation in _TABLES[api]]
    assert paths == list(dict.fromkeys(wanted))


@pytest.mark.parametrize("operation", EVERY, ids=lambda operation: operation.id)
def test_every_operation_is_served(operation: Operation) -> None:
    here = Service(MemoryEngine("m"), apis=("Inference", "Management"))
    here.engine.outcome = Registered("m", "1.0", 0) if operation.id == "registerModel" else Scaled(1)
    target = operation.path.format(model_name="m", model_version="1.0")
    response = here.request(operation.method.upper(), target + "?url=m.mar")
    assert response.status != 405
    assert response.status == 200 or response.json["type"] == "ModelNotFoundException"  # nothing to describe


def test_parameters_of_the_path_stand_in_it() -> None:
    """And are required."""
    for operation in EVERY:
        for parameter in operation.parameters:
            assert parameter.required or parameter.place == "query"
            assert (f"{{{parameter.name}}}" in operation.path) == (parameter.place == "path")


class TestModel:
    @pytest.mark.parametrize(
        "target",
        [
            "/predictions/m",
            "/predictions/m/1.0",
            "/predictions/m/1.0/a/b",
            "/explanations/m",
            "/invocations?model_name=m",
            "/models/m/invoke",
            "/m/predict",
            "/m/1.0/predict",
            "/v1/models/m:predict",
            "/v2/models/m/infer",
        ],
    )
    def test_any_way_to_a_prediction_describes_the_model(self, target: str) -> None:
        here = Service(MemoryEngine("m"))
        described = here.request("OPTIONS", target).json
        assert errors(described) == []
        assert described["info"] == {"title": "RESTful API for: m", "version": "1.0.0"}
        assert list(described["paths"]) == [
            "/prediction/m",
            "/v1/models/{model_name}:predict",
            "/v2/models/{model_name}/infer",
        ]
        operation = described["paths"]["/prediction/m"]["post"]
        assert operation["operationId"] == "m"
        assert {status: "content" in answer for status, answer in operation["responses"].items()} == {
            "200": False,
            "500": True,
        }
        assert here.engine.jobs == []
        assert here.telemetry.records[0].model == ""  # it is no prediction

    @pytest.mark.parametrize("name", ["a b", "\u00e9", "{model_name}", "a.b-c"])
    def test_any_name(self, name: str) -> None:
        target = "/predictions/" + name.replace(" ", "%20").replace("\u00e9", "%C3%A9")
        assert errors(document(target, "Inference", models=(name,))) == []

    def test_a_model_that_is_not_there(self) -> None:
        here = Service(MemoryEngine("m"))
        assert here.request("OPTIONS", "/predictions/nope").json["message"] == "Model not found: nope"
        assert here.request("OPTIONS", "/predictions/m/all").json["type"] == "ModelVersionNotFoundException"
        assert here.request("OPTIONS", "/predictions").status == 404

    def test_the_body_is_read_first(self) -> None:
        form = "Content-Type: application/x-www-form-urlencoded"
        assert Service(MemoryEngine("m")).request("OPTIONS", "/predictions/nope", b"a=%zz", form).status == 400

    @pytest.mark.parametrize("target", ["/models/m", "/models/m/1.0", "/models/m/1.0/set-default"])
    def test_management(self, target: str) -> None:
        described = document(target, "Management")
        assert errors(described) == []
        assert described["info"] == {"title": "RESTful Management API for: m", "version": version()}
        assert list(described["paths"]) == [
            "/models/{model_name}",
            "/models/{model_name}/{model_version}",
            "/models/{model_name}/{model_version}/set-default",
        ]

    @pytest.mark.parametrize("target", ["/models/nope", "/models/m/2.0", "/models/m/all"])
    def test_management_of_what_is_not_there(self, target: str) -> None:
        assert Service(MemoryEngine("m"), apis=("Management",)).request("OPTIONS", target).status == 404
