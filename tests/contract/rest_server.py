"""Servers for the REST contract: models that tell what reached them, or answer as they are told."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from contract.server import PATIENCE, TORCHSERVE, ContractServer, ReferenceServer
from harness.archives import pack

# Tells its row, each value with its type, and its headers.
WITNESS = """
def shown(value):
    text = bytes(value).decode("latin-1") if isinstance(value, (bytes, bytearray)) else value
    return [type(value).__name__, text]


def handle(data, context):
    if data is None:
        return None
    answers = []
    for index, row in enumerate(data):
        headers = context.get_all_request_header(index)
        looked_up = {name: context.get_request_header(index, name) for name in ("X-Foo", "x-foo", "X-FOO")}
        answers.append({"row": {n: shown(v) for n, v in row.items()}, "headers": dict(headers), "found": looked_up})
    return answers
"""

# Does what the request (a JSON object) says to its own response.
PUPPET = """
import json
import os
import signal
import time

from ts.handler_utils.utils import send_intermediate_predict_response
from ts.utils.util import PredictionException

ERRORS = {
    "ValueError": lambda: ValueError("no"),
    "MemoryError": lambda: MemoryError(),
    "CUDA": lambda: RuntimeError("CUDA error: out of memory"),
    "PredictionException": lambda: PredictionException("refused"),
    "404": lambda: PredictionException("absent", 404),
    "413": lambda: PredictionException("large", 413),
    "200": lambda: PredictionException("fine", 200),
}
RESULTS = {"text": lambda count: "ok", "short": lambda count: [], "object": lambda count: [object()] * count}
DEATHS = {"exit": lambda: os._exit(1), "kill": lambda: os.kill(os.getpid(), signal.SIGKILL), "hang": lambda: None}


def handle(data, context):
    if data is None:
        return None
    orders = [row.get("body") or {} for row in data]
    answers = [follow(order, index, context) for index, order in enumerate(orders)]
    for order in orders:
        if "result" in order:
            return RESULTS[order["result"]](len(orders))
    return answers


def follow(order, index, context):
    if "die" in order:
        DEATHS[order["die"]]()
        time.sleep(60)
    if "describe" in order:
        context.set_response_content_type(index, order["describe"])
    for name, value in order.get("headers", {}).items():
        context.set_response_header(index, name, value)
    if "status" in order:
        context.set_response_status(order["status"], "", index)
    for piece in order.get("pieces", []):
        send_intermediate_predict_response([piece], context.request_ids, "", 200, context)
    if "wait" in order:
        while not os.path.exists(order["wait"]):
            time.sleep(0.01)
    if "raise" in order:
        raise ERRORS[order["raise"]]()
    return order.get("answer", "done")
"""


def make(
    directory: Path,
    *,
    archives: Mapping[str, str] | None = None,
    startup: tuple[str, ...] = (),
    tokens: bool = False,
    model_api: bool = True,
    **options: Any,
) -> ContractServer:
    """A server that is not started yet; `archives`: name and handler source; `startup`: the models it loads itself."""
    kind = ReferenceServer if TORCHSERVE else ContractServer
    server = kind(directory, **options)
    for name, source in (archives or {}).items():
        pack(server.store, name, source)
    if tokens:
        server.command.remove("--disable-token-auth")
    if not model_api:
        server.command.remove("--enable-model-api")
    if startup:
        server.command += ["--models", *(f"{name}={name}.mar" for name in startup)]
    return server


@contextmanager
def serving(server: ContractServer, name: str, source: str, **parameters: Any) -> Iterator[str]:
    """A model of this handler, with one worker; unregistered at the end. `config`: text of its YAML."""
    packed = {key: parameters.pop(key) for key in ("config", "version", "files") if key in parameters}
    pack(server.store, name, source, **packed)
    answer = server.register(f"{name}.mar", **parameters)
    assert answer.status_code == 200, answer.text
    try:
        yield name
    finally:
        server.delete(name)


def get_as_is(server: ContractServer, target: str, api: str = "Inference") -> httpx.Response:
    """GET a target that no client library would send."""
    with closing(http.client.HTTPConnection(httpx.URL(server.url(api)).netloc.decode(), timeout=PATIENCE)) as client:
        client.request("GET", target)
        answer = client.getresponse()
        return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def told(answer: httpx.Response) -> dict[str, Any]:
    """What a witness says."""
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = json.loads(answer.content)
    return said


def error(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, type and message of an error response; its shape is checked."""
    body = answer.json()
    assert list(body)[:3] == ["code", "type", "message"]
    assert body["code"] == answer.status_code
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["connection"] == "close"
    return answer.status_code, body["type"], body["message"]
