"""Open Inference over REST under load: small JSON beside TorchServe's and Triton's, and a large tensor as bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import call
from benchmarks.contenders import Contender
from benchmarks.figures import KSERVE, P50, RATE, SERVER_CPU, TENSOR_OVER_RAW, kserve_figure
from benchmarks.plan import BATCHED, INFER, LENGTH, PICTURE, Deployment
from benchmarks.series import Series
from benchmarks.servers import CallFailed, InferServer, RestServer, expect_ok
from benchmarks.wrk import WrkReport, run_wrk, write_body_script

SMALL_JSON, SMALL_JSON_BATCHED, PICTURE_BYTES, RAW_BYTES = KSERVE
SHAPE = (1, 3, 224, 224)
PIXELS = struct.pack("<f", 0.5) * (3 * 224 * 224)
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Request:
    """What one point of load asks for; `name` is its figure."""

    name: str
    deployment: Deployment
    clients: int
    headers: Mapping[str, str]
    body: bytes
    url: Callable[[InferServer, Deployment], str] = lambda server, deployment: server.infer_url(deployment)


def small_json(name: str, batch: int) -> Request:
    """A row of four numbers as text."""
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    body = json.dumps({"id": "1", "inputs": [tensor]}).encode()
    return Request(name, Deployment(INFER, batch), 32, JSON, body)


def picture_bytes() -> Request:
    """A picture behind its description."""
    size = {"binary_data_size": len(PIXELS)}
    tensor = {"name": "picture", "shape": list(SHAPE), "datatype": "FP32", "parameters": size}
    text = json.dumps({"id": "1", "inputs": [tensor]}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"}
    return Request(PICTURE_BYTES, Deployment(PICTURE, 1), 8, headers, text + PIXELS)


def raw_bytes() -> Request:
    """The same bytes without a word."""

    def url(server: InferServer, deployment: Deployment) -> str:
        assert isinstance(server, RestServer)
        return server.url(deployment)

    return Request(RAW_BYTES, Deployment(LENGTH, 1), 8, {"Content-Type": LENGTH.mime}, PIXELS, url)


def all_requests() -> tuple[Request, ...]:
    """In the order of their figures."""
    small = (small_json(SMALL_JSON, 1), small_json(SMALL_JSON_BATCHED, BATCHED))
    return (*small, picture_bytes(), raw_bytes())


class KserveBench(Series[InferServer]):
    """The requests in turns."""

    what = "KServe"

    def _launch(self, contender: Contender, directory: Path) -> InferServer | None:
        return contender.launch_infer(directory) if contender.launch_infer is not None else None

    def _run(self, contender: Contender, server: InferServer) -> None:
        self._say(f"start {contender.title}, for Open Inference")
        server.start()
        requests = [request for request in all_requests() if request.name in contender.infers]
        for request in requests:
            server.deploy(request.deployment)
            self._load(server, request, self._plan.warm_up)
        for turn in range(self._plan.rounds):
            first = turn % len(requests)
            rates = {
                request.name: self._measure(contender, server, request, turn)
                for request in (*requests[first:], *requests[:first])
            }
            if RAW_BYTES in rates:
                self._samples.add(contender.name, TENSOR_OVER_RAW, rates[PICTURE_BYTES] / rates[RAW_BYTES])

    def _measure(self, contender: Contender, server: InferServer, request: Request, turn: int) -> float:
        """Requests a second."""
        before = server.tree.cpu()
        report = self._load(server, request, self._plan.duration)
        cpu = (server.tree.cpu() - before) / report.requests * 1e6
        for kind, value in {RATE: report.rate, P50: report.p50 * 1e3, SERVER_CPU: cpu}.items():
            self._samples.add(contender.name, kserve_figure(request.name, kind), value)
        told = f"{report.rate:>8.0f}/s  p50 {report.p50 * 1e3:.2f} ms"
        self._say(f"round {turn + 1}: {request.name:<24} {contender.title:<28} {told}")
        return report.rate

    def _load(self, server: InferServer, request: Request, seconds: int) -> WrkReport:
        """Raises CallFailed if a single one was not answered as it should be."""
        url = request.url(server, request.deployment)
        expect_ok(call("POST", url, request.body, headers=request.headers), request.name)
        script = self._directory / f"{request.name.replace(' ', '-')}.lua"
        write_body_script(script, request.headers, request.body)
        report = run_wrk(url, request.clients, seconds, script).report
        if report.errors:
            raise CallFailed(f"{request.name}: {report}")
        return report
