"""`/v2`: the Open Inference Protocol on the inference port."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rest_doubles import MemoryEngine, Response, Service

from modelserver.engine.requests import Registered, Registration, VersionStatus, WorkerStatus
from modelserver.errors import BadRequest, Cause, Certificate, ModelNotFound, ServiceUnavailable, WorkerError
from modelserver.rest.open_inference_operations import OPEN_INFERENCE
from modelserver.rest.operation import Operation
from modelserver.settings.open_inference import Declaration, DeclaredTensor
from modelserver.settings.table import Settings
from modelserver.settings.version import version as server_version
from modelserver.wire.frames import INFER, INFER_EXPLAIN, Part, Reply

ON = Settings(ts_open_inference_protocol=True, enable_model_api=True)
DECLARED = Declaration(
    inputs=(DeclaredTensor(name="x", datatype="FP32", shape=(-1, 3)),),
    outputs=(DeclaredTensor(name="y", datatype="BYTES", shape=(-1,), optional=True),),
)
WORKER = WorkerStatus("9000", datetime(2024, 1, 1, tzinfo=UTC), True, 0, 1, None, None)


def service(*models: str, settings: Settings = ON, apis: tuple[str, ...] = ("Inference",)) -> Service:
    return Service(MemoryEngine(*models or ("m",)), settings=settings, apis=apis)


def version(number: str = "1.0", *ready: bool, name: str = "m", detail: str = "") -> VersionStatus:
    certificate = Certificate(Cause.INITIALIZE, detail) if detail else None
    return VersionStatus(
        model_name=name,
        model_version=number,
        model_url="m.mar",
        runtime="python",
        min_workers=1,
        max_workers=2,
        options=cast(Any, SimpleNamespace(open_inference=DECLARED)),
        loaded_at_startup=False,
        workers=tuple(replace(WORKER, ready=each, certificate=certificate) for each in ready),
    )


def said(response: Response, status: int = 200) -> Any:
    assert (response.status, response.headers["content-type"]) == (status, "application/json")
    return response.json


PATHS = [
    ("GET", "/v2"),
    ("GET", "/v2/"),
    ("GET", "/v2/health/live"),
    ("GET", "/v2/health/ready"),
    ("GET", "/v2/models"),
    ("GET", "/v2/models/m"),
    ("GET", "/v2/models/m/ready"),
    ("GET", "/v2/models/m/versions/1.0"),
    ("GET", "/v2/models/m/versions/1.0/ready"),
    ("GET", "/v2/models/stats"),
    ("GET", "/v2/models/m/stats"),
    ("GET", "/v2/models/m/versions/1.0/stats"),
    ("POST", "/v2/models/m/versions/1.0/infer"),
    ("POST", "/v2/models/m/versions/1.0/explain"),
    ("POST", "/v2/repository/index"),
]


class TestSwitch:
    @pytest.mark.parametrize(("method", "target"), PATHS)
    def test_on(self, method: str, target: str) -> None:
        here = service()
        here.engine.versions = {"m": [version("1.0", True)]}
        assert here.request(method, target).status == 200

    @pytest.mark.parametrize(("method", "target"), PATHS)
    def test_off(self, method: str, target: str) -> None:
        here = service(settings=Settings())
        here.engine.versions = {"m": [version("1.0", True)]}
        response = here.request(method, target)
        assert (response.status, response.json["type"]) == (404, "ResourceNotFoundException")

    @pytest.mark.parametrize("settings", [Settings(), ON])
    def test_inference_is_always_there(self, settings: Settings) -> None:
        assert service(settings=settings).request("POST", "/v2/models/m/infer").body == b"ok"
        assert service(settings=settings).request("POST", "/v2/models/m/explain").body == b"ok"

    def test_not_on_the_management_port(self) -> None:
        here = service(apis=("Management",))
        assert [here.request(*path).status for path in PATHS] == [404] * len(PATHS)


class TestMethods:
    @pytest.mark.parametrize(("method", "target"), PATHS)
    @pytest.mark.parametrize("other", ["PUT", "DELETE", "PATCH"])
    def test_others_are_refused(self, method: str, target: str, other: str) -> None:
        here = service()
        here.engine.versions = {"m": [version("1.0", True)]}
        assert said(here.request(other, target), 405)["error"] == here.request(other, target).json["message"]
        wrong = "POST" if method == "GET" else "GET"
        assert here.request(wrong, target).status == 405

    @pytest.mark.parametrize("target", ["/v2/health/live", "/v2/health/ready", "/v2/models/m/ready"])
    def test_head(self, target: str) -> None:
        here = service()
        here.engine.versions = {"m": [version("1.0", True)]}
        response = here.request("HEAD", target)
        assert (response.status, response.body) == (200, b"")

    @pytest.mark.parametrize("target", ["/v2/models/m/infer", "/v2/models/m/versions/1.0/infer"])
    def test_options_describe_the_model(self, target: str) -> None:
        assert service().request("OPTIONS", target).json["info"]["title"] == "RESTful API for: m"


class TestServer:
    def test_health(self) -> None:
        """Also where a model is not well: a pod has others."""
        here = service()
        here.engine.is_healthy = False
        assert said(here.request("GET", "/v2/health/live")) == {"live": True}
        assert said(here.request("GET", "/v2/health/ready")) == {"ready": True}

    def test_models_of_the_start_may_be_waited_for(self) -> None:
        here = service()
        here.engine.not_ready = ["a 1.0 (workers are loading)", "b.mar (not registered)"]
        said_so = {"ready": False, "error": "Not ready: a 1.0 (workers are loading); b.mar (not registered)"}
        assert said(here.request("GET", "/v2/health/ready"), 503) == said_so
        assert said(here.request("GET", "/v2/health/live")) == {"live": True}

    def test_metadata(self) -> None:
        assert said(service().request("GET", "/v2/")) == {
            "name": "Torchserve",
            "version": server_version(),
            "extensions": ["kserve", "kubeflow", "binary_tensor_data", "statistics"],
            "extenstion": ["kserve", "kubeflow"],
        }

    @pytest.mark.parametrize(
        "target",
        [
            "/v2/models/m/config",
            "/v2/models/m/versions/1.0/config",
            "/v2/models/m/trace/setting",
            "/v2/trace/setting",
            "/v2/logging",
            "/v2/systemsharedmemory/status",
            "/v2/systemsharedmemory/region/a/register",
            "/v2/cudasharedmemory/unregister",
        ],
    )
    @pytest.mark.parametrize("method", ["GET", "POST"])
    def test_extensions_that_are_not_offered(self, target: str, method: str) -> None:
        error = said(service().request(method, target), 501)
        assert error["error"] == error["message"]
        assert error["error"].endswith(" extension is not supported")


class TestModels:
    def test_names(self) -> None:
        assert said(service("b", "a").request("GET", "/v2/models")) == {"models": ["a", "b"]}

    @pytest.mark.parametrize("target", ["/v2/models/m", "/v2/models/m/versions/2.0", "/v2/models/%6D/"])
    def test_metadata(self, target: str) -> None:
        here = service()
        here.engine.versions = {"m": [version("1.0"), version("2.0")]}
        assert said(here.request("GET", target)) == {
            "name": "m",
            "versions": ["1.0", "2.0"],
            "platform": "",
            "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
            "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}],
        }

    @pytest.mark.parametrize("target", ["/v2/models/m/ready", "/v2/models/m/versions/1.0/ready"])
    def test_ready(self, target: str) -> None:
        here = service()
        here.engine.versions = {"m": [version("1.0", True, False)]}
        assert said(here.request("GET", target)) == {"name": "m", "ready": True}
        here.engine.versions = {"m": [version("1.0", False)]}
        expected = {"name": "m", "ready": False, "error": "Model with name m is not ready."}
        assert said(here.request("GET", target), 503) == expected

    @pytest.mark.parametrize(
        ("target", "message"),
        [
            ("/v2/models/nope", "Model not found: nope"),
            ("/v2/models/nope/ready", "Model not found: nope"),
            ("/v2/models/m/versions/7", "Model version: 7 does not exist for model: m"),
            ("/v2/models/m/versions/7/ready", "Model version: 7 does not exist for model: m"),
        ],
    )
    def test_unknown(self, target: str, message: str) -> None:
        here = service()
        here.engine.versions = {"m": [version()]}
        error = said(here.request("GET", target), 404)
        assert (error["message"], error["error"]) == (message, message)


class TestInference:
    def job(self, target: str, body: bytes, *headers: str) -> Any:
        here = service("m", "a b")
        assert here.request("POST", target, body, *headers).body == b"ok"
        (job,) = here.engine.jobs
        return job, here.engine.asked_versions[0]

    @pytest.mark.parametrize(
        ("target", "model", "number", "kind"),
        [
            ("/v2/models/m/infer", "m", None, INFER),
            ("/v2/models/m:x/infer", "m", None, INFER),
            ("/v2/models/a%20b/infer", "a b", None, INFER),
            ("/v2/models/m/explain", "m", None, INFER_EXPLAIN),
            ("/v2/models/m/versions/1.0/infer", "m", "1.0", INFER),
            ("/v2/models/m/versions/1.0/explain", "m", "1.0", INFER_EXPLAIN),
        ],
    )
    def test_jobs(self, target: str, model: str, number: str | None, kind: int) -> None:
        job, asked = self.job(target, b"{}", "Content-Type: application/json")
        assert (job.model, asked, job.kind, job.label) == (model, number, kind, number or "default")
        assert job.request.extra == {"explain": str(kind == INFER_EXPLAIN)}
        assert (job.request.parts, job.size) == ([Part("body", "application/json", b"{}")], 2)

    @pytest.mark.parametrize(
        ("headers", "part"),
        [
            ((), Part("body", "", b"a=1")),
            (("Content-Type: text/plain; charset=x",), Part("body", "text/plain", b"a=1")),
            (("Content-Type: application/x-www-form-urlencoded",), Part("a", "", b"1")),
            (("Inference-Header-Content-Length: 2",), Part("body", "application/octet-stream", b"a=1")),
            (
                ("Inference-Header-Content-Length: 2", "Content-Type: application/x-www-form-urlencoded"),
                Part("body", "application/octet-stream", b"a=1"),
            ),
            (
                ("Content-Encoding: gzip", "Content-Type: application/x-www-form-urlencoded"),
                Part("body", "application/x-www-form-urlencoded", b"a=1"),
            ),
            (("Content-Type: application/x-protobuf",), Part("body", "", b"a=1")),
        ],
    )
    def test_bodies_stay_what_they_are(self, headers: tuple[str, ...], part: Part) -> None:
        """Only forms are taken apart; what looks like a message of gRPC is none."""
        job, _ = self.job("/v2/models/m/infer", b"a=1", *headers)
        assert job.request.parts == [part]
        names = {name.lower() for name, _ in job.request.headers}
        assert {header.partition(":")[0].lower().encode() for header in headers} <= names

    def test_binary_answers(self) -> None:
        here = service()
        headers = [("content-type", "application/octet-stream"), ("inference-header-content-length", "2")]
        here.engine.answer = lambda job: Reply(0, b"{}\x00\x01", headers=headers)
        response = here.request("POST", "/v2/models/m/infer", b"{}")
        assert (response.body, response.headers["content-type"]) == (b"{}\x00\x01", "application/octet-stream")
        assert response.headers["inference-header-content-length"] == "2"

    @pytest.mark.parametrize(
        ("error", "status", "kind"),
        [
            (BadRequest("bad"), 400, "BadRequestException"),
            (WorkerError(503, "Prediction failed"), 503, "InternalServerException"),
            (ServiceUnavailable("full", certificate=Certificate(Cause.QUEUE_FULL, "x")), 503, ""),
        ],
    )
    def test_errors_have_the_member_that_clients_read(self, error: Any, status: int, kind: str) -> None:
        here = service()
        here.engine.answer = lambda job: error
        body = said(here.request("POST", "/v2/models/m/infer"), status)
        assert list(body)[:4] == ["code", "type", "message", "error"]
        assert (body["code"], body["error"]) == (status, error.message)
        assert kind in body["type"]

    def test_errors_elsewhere_do_not(self) -> None:
        here = service()
        for target in ("/v1/models/nope:predict", "/predictions/nope", "/v2x/models"):
            assert "error" not in said(here.request("POST", target), 404)

    @pytest.mark.parametrize("target", ["/v2/nope", "/v2/models/m/nope", "/v2/?x", "http://h/v2/models/nope/infer"])
    def test_whatever_is_wrong(self, target: str) -> None:
        body = service(settings=Settings()).request("POST", target).json
        assert body["error"] == body["message"]


class TestStatistics:
    def counting(self) -> Service:
        here = service("m", "n")
        here.engine.versions = {"m": [version("1.0"), version("2.0")], "n": [version("1.0", name="n")]}
        here.telemetry.counted = {
            ("m", "1.0"): {"inference_count": 3},
            ("m", "2.0"): {"inference_count": 4},
            ("n", "1.0"): {"inference_count": 5},
        }
        return here

    @pytest.mark.parametrize(
        ("target", "versions"),
        [
            ("/v2/models/stats", [("m", "1.0", 3), ("m", "2.0", 4), ("n", "1.0", 5)]),
            ("/v2/models/m/stats", [("m", "1.0", 3), ("m", "2.0", 4)]),
            ("/v2/models/m/versions/2.0/stats", [("m", "2.0", 4)]),
        ],
    )
    def test_of_whom(self, target: str, versions: list[tuple[str, str, int]]) -> None:
        (found,) = said(self.counting().request("GET", target)).values()
        assert [(each["name"], each["version"], each["inference_count"]) for each in found] == versions

    def test_one_that_has_gone_meanwhile_is_left_out(self) -> None:
        here = self.counting()
        del here.telemetry.counted["m", "1.0"]
        (found,) = said(here.request("GET", "/v2/models/m/stats"))["model_stats"]
        assert found["version"] == "2.0"

    @pytest.mark.parametrize(
        ("target", "text"),
        [
            ("/v2/models/nope/stats", "Model not found: nope"),
            ("/v2/models/m/versions/9/stats", "Model version: 9 does not exist for model: m"),
        ],
    )
    def test_unknown(self, target: str, text: str) -> None:
        assert said(self.counting().request("GET", target), 404)["error"] == text


class TestRepository:
    def test_index(self) -> None:
        here = service("a", "b")
        here.engine.versions = {
            "a": [version("1.0", True, name="a"), version("2.0", name="a")],
            "b": [version("1.0", False, name="b", detail="ValueError: no"), version("3.0", False, name="b")],
        }
        ready = {"name": "a", "version": "1.0", "state": "READY", "reason": ""}
        others = [
            {"name": "a", "version": "2.0", "state": "UNAVAILABLE", "reason": "no workers"},
            {"name": "b", "version": "1.0", "state": "UNAVAILABLE", "reason": "ValueError: no"},
            {"name": "b", "version": "3.0", "state": "UNAVAILABLE", "reason": "workers are loading"},
        ]
        target = "/v2/repository/index"
        assert said(here.request("POST", target)) == [ready, *others]
        assert said(here.request("POST", target, b'{"ready": false}')) == [ready, *others]
        assert said(here.request("POST", target, b'{"ready": true}')) == [ready]
        assert said(here.request("POST", target, b"{"), 400)["error"].startswith("Request body is not valid JSON")
        assert said(here.request("POST", target, b'{"ready": 1}'), 400)["error"] == "Parameter ready is not a boolean."

    def test_load(self) -> None:
        here = service("m")
        here.engine.outcome = Registered("new", "1.0", 1)
        assert said(here.request("POST", "/v2/repository/models/new/load")) == {"name": "new", "load": True}
        assert here.engine.calls == [Registration(url="new.mar", model_name="new", initial_workers=1)]
        assert said(here.request("POST", "/v2/repository/models/m/load")) == {"name": "m", "load": True}
        assert len(here.engine.calls) == 1, "it is there already"
        here.engine.outcome = ModelNotFound("Model not found at: nope")
        assert said(here.request("POST", "/v2/repository/models/nope/load"), 404)["error"] == "Model not found at: nope"

    def test_unload(self) -> None:
        here = service("m")
        here.engine.versions = {"m": [version("1.0"), version("2.0")]}
        assert said(here.request("POST", "/v2/repository/models/m/unload")) == {"name": "m", "unload": True}
        assert here.engine.calls == [("unregister", "m", "2.0"), ("unregister", "m", "1.0")]
        assert said(here.request("POST", "/v2/repository/models/nope/unload"), 404)["error"] == "Model not found: nope"

    @pytest.mark.parametrize("verb", ["load", "unload"])
    def test_only_where_models_may_be_changed(self, verb: str) -> None:
        here = service(settings=Settings(ts_open_inference_protocol=True))
        assert said(here.request("POST", f"/v2/repository/models/m/{verb}"), 405)["error"] == "Model API disabled"
        assert here.engine.calls == []


class TestDescription:
    def document(self, settings: Settings, *apis: str) -> Any:
        return service(settings=settings, apis=apis).request("OPTIONS", "/").json

    @pytest.mark.parametrize("apis", [("Inference",), ("Inference", "Management", "Metrics")])
    def test_the_protocol_stands_in_the_document_where_it_is_served(self, apis: tuple[str, ...]) -> None:
        from openapi_spec_validator import OpenAPIV30SpecValidator  # slow: not while tests are collected

        described = self.document(ON, *apis)
        assert [str(error) for error in OpenAPIV30SpecValidator(described).iter_errors()] == []
        paths = {operation.path for operation in OPEN_INFERENCE}
        assert paths <= set(described["paths"])
        assert not (paths - {"/v2/models/{model_name}/infer"}) & set(self.document(Settings(), *apis)["paths"])
        assert not paths & set(self.document(ON, "Management")["paths"])

    @pytest.mark.parametrize("operation", OPEN_INFERENCE, ids=lambda operation: operation.id)
    def test_every_operation_is_served(self, operation: Operation) -> None:
        here = service()
        here.engine.versions = {"m": [version("1.0", True)]}
        here.engine.outcome = Registered("m", "1.0", 1)
        target = operation.path.format(model_name="m", model_version="1.0")
        response = here.request(operation.method.upper(), target)
        assert response.status == 200
        assert {parameter.name for parameter in operation.parameters} == set(re.findall(r"{(\w+)}", operation.path))
