"""What handlers may count on: how bodies and headers reach them, and where their prints go."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from contract.server import ContractServer
from harness.archives import pack
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
CONFIG = {"metrics_mode": "prometheus"}
LARGE = 6_500_000  # bytes

# Tells what it got: its type, and the value as JSON allows.
WITNESS = """
import json, sys
def handle(data, context):
    if data is None:
        return None
    answers = []
    for index, row in enumerate(data):
        value = row.get("body")
        if isinstance(value, (bytes, bytearray)) and bytes(value[:6]) == b"print ":
            stream, _, text = bytes(value[6:]).decode().partition(" ")
            print(text, file=getattr(sys, stream), flush=True)
        text = bytes(value).decode("latin-1") if isinstance(value, (bytes, bytearray)) else value
        wanted = context.get_request_header(index, "x-names") or ""
        headers = {name: context.get_request_header(index, name) for name in wanted.split(",")}
        answers.append(json.dumps({"type": type(value).__name__, "value": text, "headers": headers}))
    return answers
"""
ECHO = """
def handle(data, context):
    return None if data is None else [row["body"] for row in data]
"""
SHAPES = """
import torch
SHAPES = {"bytes": b"b", "str": "gr\\u00fc\\u00df", "dict": {"a": [1]}, "tensor": torch.ones(2), "object": object()}
def handle(data, context):
    return None if data is None else [SHAPES[bytes(row["body"]).decode()] for row in data]
"""


@pytest.fixture(scope="module")
def models(server: ContractServer) -> Iterator[ContractServer]:
    for name, source in {"witness": WITNESS, "echo": ECHO, "shapes": SHAPES}.items():
        pack(server.store, name, source)
        assert server.register(f"{name}.mar").status_code == 200
    yield server


def witnessed(server: ContractServer, content: bytes, media_type: str | None = None, **headers: str) -> dict[str, Any]:
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    if media_type is not None:
        named["content-type"] = media_type
    answer = server.predict("witness", content, headers=named)
    assert answer.status_code == 200, answer.text
    testimony: dict[str, Any] = answer.json()
    return testimony


@check("worker protocol", 5)
def test_bodies_of_every_shape(models: ContractServer) -> None:
    """Bytes as they are, text in UTF-8, JSON indented by two, tensors as `torch.save` writes them."""
    bodies = {name: models.predict("shapes", name.encode()) for name in ("bytes", "str", "dict", "tensor", "object")}
    assert bodies["bytes"].content == b"b"
    assert bodies["str"].content == "grüß".encode()
    assert bodies["dict"].content == b'{\n  "a": [\n    1\n  ]\n}'
    assert bodies["tensor"].content.startswith(b"PK"), "an archive of torch.save"
    assert (bodies["object"].status_code, bodies["object"].json()["message"]) == (
        503,
        "Unsupported model output data type.",
    )


@check("worker protocol", 6)
@pytest.mark.parametrize(
    ("media_type", "kind"),
    [
        ("application/json", "dict"),
        ("application/json; charset=utf-8", "dict"),
        ("text/plain", "str"),
        ("application/vnd.api+json", "bytearray"),
        ("application/octet-stream", "bytearray"),
        (None, "bytearray"),
    ],
)
def test_the_content_type_decides_how_a_body_arrives(models: ContractServer, media_type: str | None, kind: str) -> None:
    """Decoded for JSON and text, else as raw bytes."""
    assert witnessed(models, b'{"a": 1}', media_type)["type"] == kind


@check("handlers", 6)
@check("worker protocol", 6)
def test_decoding_can_be_switched_off(start_server: Callable[..., ContractServer]) -> None:
    """For text as well."""
    server = start_server(config={"decode_input_request": "false"})
    pack(server.store, "witness", WITNESS)
    assert server.register("witness.mar").status_code == 200
    for media_type in ("application/json", "text/plain", "image/png"):
        assert witnessed(server, b"{}", media_type)["type"] == "bytearray"


@check("worker protocol", 7)
def test_malformed_json_reaches_the_handler(models: ContractServer) -> None:
    """As bytes, with a warning in the model log."""
    assert witnessed(models, b'{"a":', "application/json") == {
        "type": "bytearray",
        "value": '{"a":',
        "headers": {"": None},
    }
    warning = "Failed json decoding of input data. Forwarding encoded payload"
    eventually(lambda: any(warning in line for line in models.model_log("witness")))


@check("handlers", 27)
@check("worker protocol", 8)
def test_prints_are_in_the_model_log(models: ContractServer) -> None:
    """INFO from standard output, WARN from standard error."""
    witnessed(models, b"print stdout said aloud")
    witnessed(models, b"print stderr cried")
    eventually(lambda: {"INFO said aloud", "WARN cried"} <= set(models.model_log("witness")))


@check("worker protocol", 8)
def test_a_printed_metric_counts(models: ContractServer) -> None:
    """And is no line of the model log."""
    line = "HandlerTime.Milliseconds:12.5|#ModelName:witness,Level:Model|#hostname:h,1690000000,id"
    witnessed(models, b"print stdout [METRICS]" + line.encode())

    def scraped() -> bool:
        return "HandlerTime" in models.request("GET", "/metrics", "Metrics").text

    eventually(scraped)
    assert not any("[METRICS]" in line for line in models.model_log("witness"))


@check("worker protocol", 9)
def test_large_bodies_pass_unchanged(models: ContractServer) -> None:
    """Close to the default limits, both ways."""
    body = bytes(range(256)) * (LARGE // 256)
    assert models.predict("echo", body).content == body


@check("worker protocol", 10)
def test_headers_reach_the_handler(models: ContractServer) -> None:
    """Under the client's spelling, and unchanged."""
    testimony = witnessed(models, b"x", x_names="X-My-Header", **{"X-My-Header": "Some Value"})
    assert testimony["headers"]["X-My-Header"] == "Some Value"


@check("worker protocol", 10)
@fixed("header names")
def test_headers_are_found_in_any_spelling(models: ContractServer) -> None:
    """Because hops on the way change it."""
    testimony = witnessed(models, b"x", x_names="x-my-header,X-MY-HEADER", **{"X-My-Header": "Some Value"})
    assert set(testimony["headers"].values()) == {"Some Value"}


@check("worker protocol", 12)
@fixed("native workers")
def test_an_archive_for_native_workers_is_refused(models: ContractServer) -> None:
    """Without the native program."""
    pack(models.store, "native", ECHO)
    answer: httpx.Response = models.register("native.mar", runtime="LSP")
    assert (answer.status_code, answer.json()["type"]) == (400, "ModelException")
    assert answer.json()["message"] == "Unsupported runtime: LSP"
    assert models.status_of("native") == 404


def test_json_answers_parse(models: ContractServer) -> None:
    """As the client wrote them."""
    answer = models.predict("echo", b'{"k": "\\u00e9"}', headers={"content-type": "application/json"})
    assert json.loads(answer.content) == {"k": "é"}
