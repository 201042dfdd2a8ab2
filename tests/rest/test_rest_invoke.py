"""SageMaker's routes, the old one and KServe's."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rest_doubles import MemoryEngine, Service
from test_rest_describe import VERSION, WORKER

from modelserver.engine.job import Job
from modelserver.engine.requests import VersionStatus
from modelserver.settings.table import Settings
from modelserver.wire.frames import EXPLAIN, INFER, INFER_EXPLAIN, KSERVE_EXPLAIN, KSERVE_PREDICT, PREDICT

FORM = "Content-Type: application/x-www-form-urlencoded"
NOT_FOUND = "Requested resource is not found, please refer to API document."


def service(*startup: str) -> Service:
    here = Service(MemoryEngine("m", "n"))
    here.engine.startup = list(startup)
    return here


def only_job(here: Service) -> Job:
    (job,) = here.engine.jobs
    return job


def parts(job: Job) -> list[tuple[str, str, bytes]]:
    return [(part.name, part.mime, part.value) for part in job.request.parts]


@pytest.mark.parametrize(
    ("target", "model", "version"),
    [
        ("/invocations?model_name=m", "m", None),
        ("/invocations/?model_name=m&model_name=n", "m", None),
        ("/models/m/invoke", "m", None),
        ("/models/m/invoke/", "m", None),
        ("/m/predict", "m", None),
        ("/m/1.0/predict", "m", "1.0"),
        ("/%6d/predict/", "m", None),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_ways_to_a_prediction(target: str, model: str, version: str | None, method: str) -> None:
    here = service()
    response = here.request(method, target)
    assert (response.status, response.body) == (200, b"ok")
    assert "content-type" not in response.headers
    job = only_job(here)
    assert (job.model, job.kind, here.engine.asked_versions) == (model, PREDICT, [version])
    assert job.request.extra == {}
    assert job.request.id == response.headers["x-request-id"]
    (record,) = here.telemetry.records
    assert (record.model, record.label, record.ok) == (model, version or "default", True)


@pytest.mark.parametrize("target", ["/models/m/invoke", "/m/predict", "/m/1.0/predict"])
def test_query_values_are_parameters_before_those_of_the_body(target: str) -> None:
    here = service()
    here.request("POST", target + "?a=1&b=x+y;a=%C3%A9&c", b"a=2", FORM)
    job = only_job(here)
    assert parts(job) == [
        ("a", "", b"1"),
        ("b", "", b"x y"),
        ("a", "", "\u00e9".encode()),
        ("c", "", b""),
        ("a", "", b"2"),
    ]
    assert job.size == 3


def test_without_a_body_there_is_an_empty_one() -> None:
    here = service("m")
    here.request("GET", "/invocations?model_name=m")
    assert parts(only_job(here)) == [("model_name", "", b"m"), ("body", "", b"")]


@pytest.mark.parametrize(
    ("query", "status"), [("a=%zz", 400), ("&".join(["a"] * 1001), 400), ("&".join("a" * 1000), 200)]
)
def test_queries_are_checked(query: str, status: int) -> None:
    here = service()
    assert here.request("GET", f"/models/m/invoke?{query}").status == status
    assert len(here.engine.jobs) == (status == 200)


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        (["explain: True"], EXPLAIN),
        (["explain: False", "explain: True"], EXPLAIN),
        (["explain: True", "explain: False"], PREDICT),
        (["Explain: True"], PREDICT),
        (["explain: true"], PREDICT),
    ],
)
def test_the_client_may_ask_for_an_explanation(headers: list[str], kind: int) -> None:
    here = service()
    here.request("POST", "/models/m/invoke", b"x", *headers)
    assert only_job(here).kind == kind


class TestInvocations:
    @pytest.mark.parametrize(
        ("startup", "target", "body", "model"),
        [
            (["n"], "/invocations", b"", "n"),
            (["n"], "/invocations?model_name=m", b"", "m"),
            (["n"], "/invocations", b"model_name=m", "n"),
            ([], "/invocations", b"model_name=m", "m"),
            (["m", "n"], "/invocations", b"model_name=m&model_name=n", "n"),
        ],
    )
    def test_which_model(self, startup: list[str], target: str, body: bytes, model: str) -> None:
        here = service(*startup)
        assert here.request("POST", target, body, FORM).status == 200
        assert only_job(here).model == model

    @pytest.mark.parametrize("startup", [[], ["n"]])
    def test_an_empty_name_is_a_name(self, startup: list[str]) -> None:
        response = service(*startup).request("POST", "/invocations?model_name=", b"model_name=m", FORM)
        assert (response.status, response.json["message"]) == (404, "Model not found: ")

    def test_a_field_of_a_multipart_body(self) -> None:
        here = service()
        body = b'--b\r\nContent-Disposition: form-data; name="model_name"\r\n\r\nm\r\n--b--\r\n'
        here.request("POST", "/invocations", body, "Content-Type: multipart/form-data; boundary=b")
        assert only_job(here).model == "m"

    @pytest.mark.parametrize("startup", [[], ["m", "n"]])
    @pytest.mark.parametrize(
        ("body", "header"),
        [(b"", FORM), (b"model_name=", FORM), (b'{"model_name": "m"}', "Content-Type: application/json")],
    )
    def test_no_model(self, startup: list[str], body: bytes, header: str) -> None:
        response = service(*startup).request("POST", "/invocations", body, header)
        assert response.json == {
            "code": 400,
            "type": "BadRequestException",
            "message": "Parameter model_name is required.",
        }


@pytest.mark.parametrize(
    "target",
    [
        "/invocations/x",
        "/invocations/predict",
        "/models",
        "/models/m",
        "/models/m/foo",
        "/models/m/invoke/x",
        "/models/m/predict",
        "/models/predict",
        "/predict",
        "/a/b/c/predict",
        "/execution-parameters",
        "/v1/models/m:foo",
        "/v1/models/m/1.0:predict",
        "/v1/models/m:predict/x",
        "/v2",
        "/v2/health/live",
        "/v2/models/m",
        "/v2/models/m/ready",
    ],
)
def test_not_found(target: str) -> None:
    response = service("m").request("GET", target)
    assert (response.status, response.json["message"]) == (404, NOT_FOUND)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("/invocations?model_name=x", "Model not found: x"),
        ("/models/x/invoke", "Model not found: x"),
        ("/models//invoke", "Model not found: "),
        ("/x/predict", "Model not found: x"),
        ("/predict/predict", "Model not found: predict"),
        ("/m/2.0/predict", "Model version: 2.0 does not exist for model: m"),
        ("/v1/models/x:predict", "Model not found: x"),
        ("/v1/models/:predict", "Model not found: "),
        ("/v2/models/x/infer", "Model not found: x"),
    ],
)
def test_no_such_model(target: str, message: str) -> None:
    response = service("m").request("POST", target)
    assert (response.status, response.json["message"]) == (404, message)


def test_other_routes_come_before_the_old_one() -> None:
    here = service()
    assert here.request("GET", "/ping/predict").json == {"status": "Healthy"}
    assert here.request("GET", "/predictions/predict").json["message"] == "Model not found: predict"


class TestSharedPort:
    def service(self, *apis: str) -> Service:
        return Service(MemoryEngine("m"), apis=apis or ("Inference", "Management"))

    def test_only_invoke_is_a_prediction(self) -> None:
        here = self.service()
        assert here.request("POST", "/models/m/invoke").body == b"ok"
        for target in ("/models/m/1.0", "/models/m/predict", "/models/predict"):
            here.engine.versions = {"m": [version()], "predict": [version()]}
            response = here.request("GET", target)
            assert response.status == 200 or response.json["type"] == "ModelVersionNotFoundException"
        assert len(here.engine.jobs) == 1

    def test_unknown_paths_under_models(self) -> None:
        assert self.service().request("GET", "/models/a/b/c").json["message"] == NOT_FOUND


class TestKServe:
    @pytest.mark.parametrize(
        ("target", "kind"),
        [
            ("/v1/models/m:predict", KSERVE_PREDICT),
            ("/v1/models/m:predictX", KSERVE_PREDICT),
            ("/v1/models/m:explain", KSERVE_EXPLAIN),
            ("/v2/models/m/infer", INFER),
            ("/v2/models/m:a/infer", INFER),
            ("/v2/models/m/explain", INFER_EXPLAIN),
        ],
    )
    def test_predictions_and_explanations(self, target: str, kind: int) -> None:
        """The query is ignored, as are headers of the client that say otherwise."""
        here = service()
        response = here.request("POST", target + "?a=%zz", b"{}", "Content-Type: application/json", "explain: True")
        assert response.body == b"ok"
        job = only_job(here)
        assert (job.model, job.kind) == ("m", kind)
        assert job.request.extra == {"explain": str(kind in (KSERVE_EXPLAIN, INFER_EXPLAIN))}
        assert parts(job) == [("body", "application/json", b"{}")]

    @pytest.mark.parametrize(
        ("ready", "minimum", "says"),
        [([], 0, False), ([False], 1, False), ([True], 1, True), ([True, False], 2, False), ([True], 0, True)],
    )
    @pytest.mark.parametrize("api", ["Inference", "Management"])
    def test_readiness(self, ready: list[bool], minimum: int, says: bool, api: str) -> None:
        here = Service(MemoryEngine("m"), apis=(api,))
        here.engine.versions = {"m": [version(*ready, min_workers=minimum)]}
        response = here.request("GET", "/v1/models/m/")
        assert (response.status, response.json) == (200, {"name": "m", "ready": says})
        assert here.request("POST", "/v1/models/m").status == 405
        assert here.request("HEAD", "/v1/models/m").status == 405
        assert here.request("GET", "/v1/models/nope").json["message"] == "Model not found: nope"

    def test_on_the_management_port_what_follows_a_colon_is_cut_off(self) -> None:
        here = Service(MemoryEngine("m"), apis=("Management",))
        here.engine.versions = {"m": [version()]}
        assert here.request("GET", "/v1/models/m:x").json["name"] == "m"

    @pytest.mark.parametrize("api", ["Inference", "Management"])
    def test_names(self, api: str) -> None:
        here = Service(MemoryEngine("b", "a"), apis=(api,))
        assert here.request("GET", "/v1/models").json == {"models": ["a", "b"]}
        assert here.request("PUT", "/v1/models").status == 405

    @pytest.mark.parametrize(
        ("settings", "status"),
        [
            (Settings(), 405),
            (Settings(service_envelope="json"), 405),
            (Settings(service_envelope="kserve"), 200),
            (Settings(service_envelope="kservev2"), 200),
            (Settings(ts_open_inference_protocol=True), 200),
        ],
    )
    def test_sign_of_life(self, settings: Settings, status: int) -> None:
        here = Service(MemoryEngine(), settings=settings)
        response = here.request("GET", "/")
        assert response.status == status
        assert status == 405 or response.json == {"status": "alive"}
        assert here.request("POST", "/").status == 405


def version(*ready: bool, min_workers: int = 1) -> VersionStatus:
    workers = tuple(replace(WORKER, ready=is_ready) for is_ready in ready)
    return replace(VERSION, model_name="m", model_version="1.0", min_workers=min_workers, workers=workers)
