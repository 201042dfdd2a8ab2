"""Registering, listing, scaling and unregistering over HTTP."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rest_doubles import MemoryEngine, Response, Service

from modelserver.engine.requests import Registered, Registration, Scaled
from modelserver.errors import (
    Cause,
    Certificate,
    Conflict,
    DefaultVersionInUse,
    ModelNotFound,
    VersionNotFound,
    WorkerError,
)
from modelserver.settings.table import Settings

JSON = "Content-Type: application/json"
NOT_ALLOWED = {
    "code": 405,
    "type": "MethodNotAllowedException",
    "message": "Requested method is not allowed, please refer to API document.",
}


def service(*models: str) -> Service:
    return Service(MemoryEngine(*models), apis=("Management",))


def error(response: Response) -> tuple[int, str, str]:
    body = response.json
    assert body["code"] == response.status
    return response.status, body["type"], body["message"]


class TestRoutes:
    @pytest.mark.parametrize(
        ("method", "target"),
        [
            ("GET", "/"),
            ("PUT", "/models"),
            ("OPTIONS", "/models"),
            ("HEAD", "/models"),
            ("POST", "/models/m"),
            ("PATCH", "/models/m/1.0"),
            ("HEAD", "/models/m"),
            ("GET", "/models/m/1.0/set-default"),
            ("DELETE", "/models/m/1.0/set-default"),
        ],
    )
    def test_method_not_allowed(self, method: str, target: str) -> None:
        here = service()
        response = here.request(method, target)
        assert response.status == 405
        assert method == "HEAD" or response.json == NOT_ALLOWED
        assert here.engine.calls == []

    @pytest.mark.parametrize(
        "target", ["/ping", "/predictions/m", "/metrics", "/models/m/1.0/foo", "/x/m/1.0/set-default", "//models", "/x"]
    )
    def test_not_found(self, target: str) -> None:
        assert error(service("m").request("GET", target)) == (
            404,
            "ResourceNotFoundException",
            "Requested resource is not found, please refer to API document.",
        )

    def test_the_model_api_can_be_off(self) -> None:
        here = replace(service("m"), settings=Settings())
        here.engine.outcome = Scaled(1, pending=True)
        assert here.request("POST", "/models?url=m.mar").json == NOT_ALLOWED
        assert here.request("DELETE", "/models/m").json == NOT_ALLOWED
        assert here.request("DELETE", "/models/m/1.0").json == NOT_ALLOWED
        assert here.engine.calls == []
        assert here.request("GET", "/models").status == 200
        assert here.request("GET", "/models/m").status == 404  # the engine is asked
        assert here.request("PUT", "/models/m").status == 202
        assert here.request("PUT", "/models/m/1.0/set-default").status == 200


class TestList:
    @pytest.mark.parametrize(
        ("query", "names", "token"),
        [
            ("", ["a", "b", "c"], None),
            ("?limit=2", ["a", "b"], "2"),
            ("?limit=2&next_page_token=2", ["c"], None),
            ("?limit=1&next_page_token=2", ["c"], "3"),
            ("?limit=3", ["a", "b", "c"], "3"),
            ("?next_page_token=3", [], None),
            ("?limit=0", [], "0"),
            ("?limit=-1", ["a", "b", "c"], None),
            ("?limit=101", ["a", "b", "c"], None),
            ("?limit=abc&next_page_token=-5", ["a", "b", "c"], None),
            ("?limit=1&limit=2", ["a"], "1"),
        ],
    )
    def test_pages(self, query: str, names: list[str], token: str | None) -> None:
        body = service("c", "a", "b").request("GET", "/models" + query).json
        assert body["models"] == [{"modelName": name, "modelUrl": f"{name}.mar"} for name in names]
        assert body.get("nextPageToken") == token

    def test_byte_for_byte(self) -> None:
        assert service().request("GET", "/models").body == b'{\n  "models": []\n}\n'
        assert service("a").request("GET", "/models?limit=1").body == (
            b'{\n  "nextPageToken": "1",\n  "models": [\n    {\n'
            b'      "modelName": "a",\n      "modelUrl": "a.mar"\n    }\n  ]\n}\n'
        )


class TestRegister:
    def register(self, query: str, body: bytes = b"", *headers: str) -> Registration:
        here = service()
        here.engine.outcome = Registered("m", "1.0", 1)
        assert here.request("POST", "/models" + query, body, *headers).status == 200
        (registration,) = here.engine.calls
        assert isinstance(registration, Registration)
        return registration

    def test_defaults(self) -> None:
        assert self.register("?url=m.mar") == Registration(url="m.mar")

    def test_every_parameter(self) -> None:
        query = (
            "?url=http%3A//h/m.mar&model_name=a+b&handler=h:f&runtime=python3&batch_size=8&max_batch_delay=20"
            "&initial_workers=2&response_timeout=5&startup_timeout=6&synchronous=false&s3_sse_kms=true"
        )
        wanted = Registration(
            url="http://h/m.mar",
            model_name="a b",
            handler="h:f",
            runtime="python3",
            batch_size=8,
            max_batch_delay=20,
            initial_workers=2,
            response_timeout=5,
            startup_timeout=6,
            synchronous=False,
            s3_sse_kms=True,
        )
        assert self.register(query) == wanted

    def test_what_counts_as_absent(self) -> None:
        query = "&model_name=&handler=&batch_size=-1&max_batch_delay=-100&initial_workers=abc&response_timeout=-1"
        assert self.register("?url=" + query) == Registration(url="")

    def test_numbers_out_of_the_ordinary_are_kept(self) -> None:
        registration = self.register("?url=x&batch_size=0&max_batch_delay=-1&initial_workers=-1")
        assert (registration.batch_size, registration.max_batch_delay, registration.initial_workers) == (0, -1, -1)

    def test_from_json_the_query_is_ignored(self) -> None:
        body = b"{'url': 'm.mar', 'initial_workers': '1', 'synchronous': 'true', 'batch_size': 4, 'extra': 1}"
        wanted = Registration(url="m.mar", initial_workers=1, batch_size=4)
        assert self.register("?url=other&handler=h", body, "Content-Type: Application/JSON; charset=utf-8") == wanted

    def test_an_empty_json_body_leaves_the_query(self) -> None:
        assert self.register("?url=m.mar", b"", JSON) == Registration(url="m.mar")

    @pytest.mark.parametrize(
        ("query", "message"),
        [
            ("", "Parameter url is required."),
            ("?url=x&runtime=PYTHON", "Invalid RuntimeType value: PYTHON"),
            ("?url=x&runtime=python4", "Invalid RuntimeType value: python4"),
            ("?url=%zz", "invalid hex byte 'zz' at index 1 of '%zz'"),
        ],
    )
    def test_bad_requests(self, query: str, message: str) -> None:
        here = service()
        assert error(here.request("POST", "/models" + query)) == (400, "BadRequestException", message)
        assert here.engine.calls == []

    @pytest.mark.parametrize("body", [b"{", b"[]", b'{"url": ["x"]}', b'{"url": "x", "batch_size": "many"}'])
    def test_bad_json(self, body: bytes) -> None:
        status, type_, _ = error(service().request("POST", "/models?url=x", body, JSON))
        assert (status, type_) == (400, "BadRequestException")

    def test_a_form_is_not_read(self) -> None:
        form = "Content-Type: application/x-www-form-urlencoded"
        assert service().request("POST", "/models", b"url=x", form).json["message"] == "Parameter url is required."

    @pytest.mark.parametrize(
        ("outcome", "status", "text"),
        [
            (
                Registered("m", "2.0", 0),
                200,
                'Model "m" Version: 2.0 registered with 0 initial workers. '
                "Use scale workers API to add workers for the model.",
            ),
            (Registered("m", "1.0", 2), 200, 'Model "m" Version: 1.0 registered with 2 initial workers'),
            (Registered("m", "1.0", 2, pending=True), 202, "Processing worker updates..."),
        ],
    )
    def test_outcomes(self, outcome: Registered, status: int, text: str) -> None:
        here = service()
        here.engine.outcome = outcome
        response = here.request("POST", "/models?url=m.mar")
        assert (response.status, response.json) == (status, {"status": text})

    def test_failures_name_their_cause(self) -> None:
        here = service()
        here.engine.outcome = Conflict("Model version 1.0 is already registered for model m")
        assert error(here.request("POST", "/models?url=m.mar"))[:2] == (409, "ConflictStatusException")
        certificate = Certificate(Cause.INITIALIZE, "ValueError: no", traceback="a\nb")
        here.engine.outcome = WorkerError(
            500, "Failed to start workers for model m version: 1.0", certificate=certificate
        )
        body = here.request("POST", "/models?url=m.mar").json
        assert list(body) == ["code", "type", "message", "cause"]
        assert body["cause"] == {
            "reason": "exception in initialize",
            "detail": "ValueError: no",
            "traceback": ["a", "b"],
        }


class TestScale:
    @pytest.mark.parametrize(
        ("target", "call"),
        [
            ("/models/m", ("scale", "m", None, 1, 1, False)),
            ("/models/m?min_worker=3&synchronous=true&number_gpu=1&timeout=5", ("scale", "m", None, 3, 3, True)),
            ("/models/m?min_worker=2&max_worker=4", ("scale", "m", None, 2, 4, False)),
            ("/models/m?min_worker=0&max_worker=-1", ("scale", "m", None, 0, -1, False)),
            ("/models/m?min_worker=x&max_worker=", ("scale", "m", None, 1, 1, False)),
            ("/models/m/2.0?model_version=3.0", ("scale", "m", "2.0", 1, 1, False)),
            ("/models/m?model_version=3.0", ("scale", "m", "3.0", 1, 1, False)),
        ],
    )
    def test_what_is_asked_of_the_engine(self, target: str, call: tuple[object, ...]) -> None:
        here = service()
        here.engine.outcome = Scaled(1, pending=True)
        response = here.request("PUT", target)
        assert here.engine.calls == [call]
        assert (response.status, response.json) == (202, {"status": "Processing worker updates..."})

    @pytest.mark.parametrize(
        ("target", "outcome", "status", "text"),
        [
            ("/models/m?min_worker=2", Scaled(2), 200, "Workers scaled to 2 for model: m"),
            ("/models/m/1.0?min_worker=2", Scaled(2), 200, "Workers scaled to 2 for model: m, version: 1.0"),
            ("/models/m?model_version=1.0", Scaled(1), 200, "Workers scaled to 1 for model: m, version: 1.0"),
            ("/models/m?min_worker=2", Scaled(2, overtaken=1), 200, "Workers scaled to 1 for model: m"),
            ("/models/m", Scaled(1, complete=False), 206, "Workers scaling in progress..."),
        ],
    )
    def test_outcomes(self, target: str, outcome: Scaled, status: int, text: str) -> None:
        here = service()
        here.engine.outcome = outcome
        response = here.request("PUT", target)
        assert (response.status, response.json) == (status, {"status": text})


class TestUnregister:
    def test_done(self) -> None:
        here = service()
        for target, version in [("/models/m", None), ("/models/m/?synchronous=nan", None), ("/models/m/1.0", "1.0")]:
            response = here.request("DELETE", target)
            assert (response.status, response.json) == (200, {"status": 'Model "m" unregistered'})
            assert here.engine.calls[-1] == ("unregister", "m", version)

    def test_the_default_version_stays_while_others_exist(self) -> None:
        here = service()
        here.engine.outcome = DefaultVersionInUse("m")
        assert error(here.request("DELETE", "/models/m")) == (
            403,
            "InvalidModelVersionException",
            "Cannot remove default version for model m",
        )


class TestSetDefault:
    def test_done(self) -> None:
        here = service()
        response = here.request("PUT", "/models/m/2.0/set-default")
        assert response.json == {"status": 'Default version successfully updated for model "m" to "2.0"'}
        assert here.engine.calls == [("set_default", "m", "2.0")]

    def test_errors_of_the_engine_are_rendered(self) -> None:
        here = service()
        here.engine.outcome = ModelNotFound("Model not found: m")
        assert error(here.request("PUT", "/models/m/2.0/set-default"))[2] == "Model not found: m"
        here.engine.outcome = VersionNotFound("Model version 2.0 does not exist for model m")
        assert error(here.request("PUT", "/models/m/2.0/set-default")) == (
            404,
            "ModelVersionNotFoundException",
            "Model version 2.0 does not exist for model m",
        )
