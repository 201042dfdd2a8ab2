"""One request as bytes, and its answer as everything that a client may rely on."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from http.client import HTTPResponse
from typing import Any

import httpx

from contract.server import PATIENCE, ContractServer

Answer = dict[str, Any]  # status, headers, body; of an OpenAPI document its outline instead of its body
# Members that modelserver adds at the end of TorchServe's objects.
ADDED = {"cause", "causes", "nextRetryInSec", "gaveUp"}
# What differs from run to run.
VARYING = {
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b": "<id>",
    r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z": "<time>",
    r'"pid": \d+': '"pid": "<pid>"',
    r'"memoryUsage": \d+': '"memoryUsage": "<bytes>"',
}
HARMLESS = {"date", "server"}  # headers that TorchServe does not send and nobody relies on


@dataclass(frozen=True)
class Exchange:
    """A request of the conversation; `fixed` names the difference for which modelserver answers `instead`."""

    name: str
    line: str  # method and target
    api: str = "Inference"
    content_type: str = ""
    body: bytes = b""
    headers: Mapping[str, str] | None = None
    version: str = "HTTP/1.1"
    framing: str = ""  # in place of the length of the body
    fixed: str = ""
    instead: Mapping[str, Any] | Callable[[Answer], Answer] = field(default_factory=dict)  # members of the answer

    def request(self) -> bytes:
        """As it goes over the wire."""
        lines = [f"{self.line} {self.version}", "Host: server"]
        lines += [f"Content-Type: {self.content_type}"] if self.content_type else []
        lines += [f"{name}: {value}" for name, value in (self.headers or {}).items()]
        lines += [self.framing] if self.framing else [f"Content-Length: {len(self.body)}"] if self.body else []
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body

    def expected(self, recorded: Answer) -> Answer:
        """What modelserver answers, given what TorchServe has answered."""
        return self.instead(recorded) if callable(self.instead) else replaced(recorded, self.instead)


def ask(server: ContractServer, exchange: Exchange) -> Answer:
    """Send it on a connection of its own."""
    url = httpx.URL(server.url(exchange.api))
    with closing(socket.create_connection((url.host, url.port), PATIENCE)) as connection:
        connection.sendall(exchange.request())
        response = HTTPResponse(connection, method=exchange.line.partition(" ")[0])
        response.begin()
        body = response.read()
        headers = {name.lower(): value for name, value in response.getheaders() if name.lower() not in HARMLESS}
        response.close()
    return {"status": response.status, **lasting(headers, body)}


def lasting(headers: dict[str, str], body: bytes) -> Answer:
    """The part of an answer that is the same in every run."""
    text = body.decode("utf-8", "backslashreplace")
    if headers.get("content-length") == str(len(body)):
        headers["content-length"] = "<that of the body>"
    headers = {name: stable(value) for name, value in sorted(headers.items())}
    if text.startswith("{") and '"openapi"' in text:
        return {"headers": headers, "outline": outline(json.loads(text))}
    return {"headers": headers, "body": stable(without_additions(text))}


def stable(text: str) -> str:
    """Without ids, times, processes and sizes."""
    for pattern, name in VARYING.items():
        text = re.sub(pattern, name, text)
    return text


def without_additions(text: str) -> str:
    """JSON of the server without the members that modelserver adds."""
    if not any(f'"{name}"' in text for name in ADDED):
        return text
    return json.dumps(json.loads(text, object_hook=_listed), indent=2, ensure_ascii=False) + "\n"


def _listed(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if name not in ADDED}


def outline(document: dict[str, Any]) -> dict[str, Any]:
    """Of an OpenAPI document what clients are generated from; descriptions are free text."""
    return {
        "title": document["info"]["title"],
        "operations": {
            f"{method} {path}": {
                "id": operation["operationId"],
                "parameters": [_parameter(each) for each in operation.get("parameters", [])],
                "responses": sorted(operation["responses"]),
            }
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
        },
    }


def _parameter(parameter: dict[str, Any]) -> str:
    need = "required" if parameter.get("required") else "optional"
    return f"{parameter['in']} {parameter['name']}: {parameter['schema']['type']}, {need}"


def replaced(answer: Answer, instead: Mapping[str, Any]) -> Answer:
    """An answer with other members; headers are replaced one by one, and left out where they are None."""
    headers = {**answer["headers"], **instead.get("headers", {})}
    kept = {name: value for name, value in sorted(headers.items()) if value is not None}
    return {**answer, **instead, "headers": kept}


def refusal(status: int, kind: str, message: str) -> Answer:
    """The members of an answer with an error."""
    body = json.dumps({"code": status, "type": kind, "message": message}, indent=2, ensure_ascii=False) + "\n"
    return {"status": status, "headers": ERROR_HEADERS, "body": body}


ERROR_HEADERS = {
    "cache-control": "no-cache; no-store, must-revalidate, private",
    "connection": "close",
    "content-length": "<that of the body>",
    "content-type": "application/json",
    "expires": "Thu, 01 Jan 1970 00:00:00 UTC",
    "pragma": "no-cache",
    "x-request-id": "<id>",
}
