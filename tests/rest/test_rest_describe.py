"""Describing models over HTTP."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rest_doubles import MemoryEngine, Response, Service

from modelserver.engine.job import Job
from modelserver.engine.requests import VersionStatus, WorkerStatus
from modelserver.errors import (
    Cause,
    Certificate,
    ServiceUnavailable,
    WorkerError,
)
from modelserver.settings.model_options import Requested, resolve
from modelserver.settings.table import Settings
from modelserver.wire.frames import DESCRIBE, Reply

WORKER = WorkerStatus(
    id="9003",
    started=datetime(2026, 11, 20, 7, 24, 18, 374999, tzinfo=UTC),
    ready=True,
    memory=0,
    pid=31336,
    gpu=None,
    certificate=None,
)
OPTIONS, _ = resolve(
    "ctlb",
    "1.0",
    Requested(batch_size=4, max_batch_delay=50, response_timeout=3),
    {},
    Settings(),
    manifest_runtime="python",
    gpus=0,
    cpus=1,
    at_startup=False,
)
VERSION = VersionStatus(
    model_name="ctlb",
    model_version="1.0",
    model_url="ctlb.mar",
    runtime="python",
    min_workers=1,
    max_workers=2,
    options=OPTIONS,
    loaded_at_startup=False,
    workers=(WORKER,),
    queue_remaining=3,
    queue_pending=0,
)
DESCRIBED = """[
  {
    "modelName": "ctlb",
    "modelVersion": "1.0",
    "modelUrl": "ctlb.mar",
    "runtime": "python",
    "minWorkers": 1,
    "maxWorkers": 2,
    "batchSize": 4,
    "maxBatchDelay": 50,
    "responseTimeout": 3,
    "startupTimeout": 120,
    "maxRetryTimeoutInSec": 300,
    "clientTimeoutInMills": 0,
    "parallelType": "",
    "parallelLevel": 0,
    "deviceType": "cpu",
    "continuousBatching": false,
    "useJobTicket": false,
    "useVenv": false,
    "stateful": false,
    "sequenceMaxIdleMSec": 0,
    "sequenceTimeoutMSec": 0,
    "maxNumSequence": 0,
    "maxSequenceJobQueueSize": 0,
    "loadedAtStartup": false,
    "workers": [
      {
        "id": "9003",
        "startTime": "2026-11-20T07:24:18.374Z",
        "status": "READY",
        "memoryUsage": 0,
        "pid": 31336,
        "gpu": false,
        "gpuUsage": "N/A"
      }
    ],
    "jobQueueStatus": {
      "remainingCapacity": 3,
      "pendingRequests": 0
    }
  }
]
"""


def service(*models: str) -> Service:
    return Service(MemoryEngine(*models), apis=("Management",))


def error(response: Response) -> tuple[int, str, str]:
    body = response.json
    assert body["code"] == response.status
    return response.status, body["type"], body["message"]


class TestDescribe:
    def service(self, *versions: VersionStatus) -> Service:
        here = service("m")
        here.engine.versions["m"] = list(versions or [VERSION])
        return here

    def test_byte_for_byte(self) -> None:
        response = self.service().request("GET", "/models/m")
        assert response.body.decode() == DESCRIBED
        assert response.headers["content-type"] == "application/json"

    def test_versions(self) -> None:
        here = self.service(VERSION, replace(VERSION, model_version="2.0"))
        for path, versions in [("", ["1.0"]), ("/2.0", ["2.0"]), ("/all?customized=true", ["1.0", "2.0"])]:
            body = here.request("GET", "/models/m" + path).json
            assert [element["modelVersion"] for element in body] == versions
        assert here.engine.jobs == []

    def test_unknown(self) -> None:
        here = self.service()
        assert error(here.request("GET", "/models/x")) == (404, "ModelNotFoundException", "Model not found: x")
        assert error(here.request("GET", "/models/m/9")) == (
            404,
            "ModelVersionNotFoundException",
            "Model version: 9 does not exist for model: m",
        )

    def test_device_ids_and_a_gpu(self) -> None:
        version = replace(VERSION, options=replace(OPTIONS, device_ids=(2, 0)), workers=(replace(WORKER, gpu=2),))
        (element,) = self.service(version).request("GET", "/models/m").json
        names = list(element)
        assert names[names.index("deviceType") + 1] == "deviceIds"
        assert element["deviceIds"] == [2, 0]
        assert element["workers"][0]["gpu"] is True
        assert element["workers"][0]["gpuUsage"] == "failed to obtained gpu usage"

    def test_a_worker_that_is_not_ready_says_why(self) -> None:
        dead = replace(
            WORKER, ready=False, certificate=Certificate(Cause.EXIT, "exit status 1", exit_code=1), next_retry=2.04
        )
        (element,) = self.service(replace(VERSION, workers=(dead,))).request("GET", "/models/m").json
        (worker,) = element["workers"]
        assert list(worker)[-3:] == ["gpuUsage", "cause", "nextRetryInSec"]
        assert worker["status"] == "UNLOADING"
        assert worker["cause"] == {"reason": "process exited", "detail": "exit status 1", "exitCode": 1}
        assert worker["nextRetryInSec"] == 2.0

    def test_a_worker_that_loads_or_runs_has_no_cause(self) -> None:
        loading = replace(WORKER, ready=False)
        recovered = replace(WORKER, certificate=Certificate(Cause.EXIT, "exit status 1"))
        version = replace(VERSION, workers=(loading, recovered))
        (element,) = self.service(version).request("GET", "/models/m").json
        assert [list(worker)[-1] for worker in element["workers"]] == ["gpuUsage", "gpuUsage"]


class TestCustomizedDescribe:
    def service(self, reply: Reply | WorkerError) -> Service:
        here = service("m")
        here.engine.versions["m"] = [VERSION]
        here.engine.answer = lambda job: reply
        return here

    def test_the_handler_is_asked(self) -> None:
        here = self.service(Reply(0, b'{"a": {"b": null, "c": [1]}}'))
        response = here.request("GET", "/models/m/1.0?customized=TRUE")
        (element,) = response.json
        assert list(element)[-2:] == ["jobQueueStatus", "customizedMetadata"]
        assert element["customizedMetadata"] == {"a": {"c": [1]}}
        assert response.headers["content-type"] == "application/json"
        (job,) = here.engine.jobs
        assert (job.kind, job.request.parts, job.request.extra) == (DESCRIBE, [], {"describe": "True"})
        assert job.request.headers == [(b"Host", b"h"), (b"content-length", b"0")]
        assert here.engine.asked_versions == ["1.0"]
        (record,) = here.telemetry.records
        assert (record.status, record.model) == (200, "")  # no prediction

    @pytest.mark.parametrize("body", [b"null", b"[1]", b"text", b"\xff", b"3", b"[" * 100_000])
    def test_what_is_no_object_counts_as_an_empty_one(self, body: bytes) -> None:
        (element,) = self.service(Reply(0, body)).request("GET", "/models/m?customized=true").json
        assert element["customizedMetadata"] == {}

    def test_an_empty_answer_is_left_out(self) -> None:
        assert self.service(Reply(0, b"")).request("GET", "/models/m?customized=true").body.decode() == DESCRIBED

    def test_the_handlers_status_and_headers_apply(self) -> None:
        here = self.service(Reply(0, b"{}", 418, headers=[("Content-Type", "application/x"), ("X-Own", "1")]))
        response = here.request("GET", "/models/m?customized=true")
        assert (response.status, response.headers["content-type"]) == (418, "application/x")
        assert response.headers["x-own"] == "1"
        assert response.json[0]["modelName"] == "ctlb"

    @pytest.mark.parametrize("query", ["", "?customized=1", "?customized=false"])
    def test_it_is_asked_for_by_true_alone(self, query: str) -> None:
        here = self.service(Reply(0, b"{}"))
        assert "customizedMetadata" not in here.request("GET", "/models/m" + query).json[0]
        assert here.engine.jobs == []

    def test_failures(self) -> None:
        here = self.service(WorkerError(503, "Prediction failed"))
        assert error(here.request("GET", "/models/m?customized=true")) == (
            503,
            "InternalServerException",
            "Prediction failed",
        )
        here.engine.refusal = ServiceUnavailable("no worker")
        assert error(here.request("GET", "/models/m?customized=true"))[:2] == (503, "ServiceUnavailableException")
        assert [record.model for record in here.telemetry.records] == ["", ""]

    def test_a_client_that_leaves(self) -> None:
        here = self.service(Reply(0, b"{}"))

        def never(job: Job) -> None:
            return None

        here.engine.answer = never

        async def talk() -> None:
            connection = here.connect()
            await connection.feed(b"GET /models/m?customized=true HTTP/1.1\r\n\r\n")
            await connection.leave()
            assert here.engine.cancelled == here.engine.jobs
            assert not connection.state.tasks

        asyncio.run(talk())
