"""Requests in the style of KServe's samples for text and images, answered as TorchServe has answered them."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contract.gallery import EXHIBITS, PORTRAIT, SQUARE, pack_exhibit
from contract.server import TORCHSERVE, ContractServer, start
from contract.talk import Answer, Exchange, ask
from contract.test_handler_gallery import ARCHIVER, ENVIRONMENT, expected, parsed
from contract.test_handler_gallery import CONFIG as GALLERY_CONFIG

RECORDING = Path(__file__).with_name("kserve_gallery.json")
REFRESH = TORCHSERVE and os.environ.get("CONTRACT_REFRESH")
JSON = "application/json"
MODELS = ("sentiment", "bert", "shapes")
# modelserver says on KServe's routes what the body is.
LABELLED: dict[str, Any] = {
    "fixed": "types of kserve's answers",
    "instead": {"headers": {"content-type": JSON}},
}


def base64_of(image: bytes) -> str:
    return base64.b64encode(image).decode()


def v1(name: str, model: str, *data: str, content_type: str = JSON, **options: Any) -> Exchange:
    body = json.dumps({"instances": [{"data": each} for each in data]}).encode()
    line = f"POST /v1/models/{model}:predict"
    return Exchange(name, line, content_type=content_type, body=body, **{**LABELLED, **options})


def v2(name: str, model: str, *data: str, **options: Any) -> Exchange:
    inputs = [{"name": f"input-{n}", "shape": [1], "datatype": "BYTES", "data": [each]} for n, each in enumerate(data)]
    body = json.dumps({"id": "d3b15cad", "inputs": inputs}).encode()
    return Exchange(name, f"POST /v2/models/{model}/infer", content_type=JSON, body=body, **{**LABELLED, **options})


@dataclass(frozen=True)
class Samples:
    """Requests to a server with one envelope."""

    envelope: str
    exchanges: Sequence[Exchange]


UNLABELLED: dict[str, Any] = {"fixed": "", "instead": {}}
SAMPLES = (
    Samples(
        "kserve",
        [
            v1("one text", "sentiment", "a very good film"),
            v1("two texts", "sentiment", "Not \u00fcber bad", "the plot was bad"),
            v1("text without a content type", "sentiment", "a very good film", content_type=""),
            v1("text for a transformer", "bert", "The film was good", "badly goodness"),
            v1("one image", "shapes", base64_of(SQUARE)),
            v1("two images", "shapes", base64_of(SQUARE), base64_of(PORTRAIT)),
            v1("no image", "shapes", base64_of(b"text"), **UNLABELLED),
            Exchange(
                "the route of older wrappers",
                "POST /predictions/shapes",
                content_type=JSON,
                body=json.dumps({"instances": [{"data": base64_of(SQUARE)}]}).encode(),
            ),
        ],
    ),
    Samples(
        "kservev2",
        [
            v2("one text", "sentiment", "a very good film"),
            v2("two texts", "sentiment", "Not \u00fcber bad", "the plot was bad"),
            v2("text for a transformer", "bert", "The film was good"),
            v2("one image", "shapes", base64_of(SQUARE)),
            v2("two images", "shapes", base64_of(SQUARE), base64_of(PORTRAIT)),
        ],
    ),
)


@pytest.fixture(scope="module")
def recorded() -> Iterator[dict[str, dict[str, Answer]]]:
    """TorchServe's answers, by envelope and name; recorded anew if so wanted."""
    known: dict[str, dict[str, Answer]] = {} if REFRESH else json.loads(RECORDING.read_text())
    yield known
    if REFRESH:
        RECORDING.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the archives of the models."""
    store = tmp_path_factory.mktemp("archives")
    for exhibit in EXHIBITS:
        if exhibit.name in MODELS:
            pack_exhibit(ARCHIVER, exhibit, store / exhibit.name, store)
    return store


def started(stack: ExitStack, directory: Path, archives: Path, envelope: str) -> ContractServer:
    """With all the models."""
    server = start(stack, directory, config={**GALLERY_CONFIG, "service_envelope": envelope}, environment=ENVIRONMENT)
    for model in MODELS:
        (server.store / f"{model}.mar").write_bytes((archives / f"{model}.mar").read_bytes())
        answer = server.register(f"{model}.mar")
        assert answer.status_code == 200, answer.text
    return server


@pytest.mark.parametrize("samples", SAMPLES, ids=lambda samples: samples.envelope)
def test_samples(samples: Samples, archives: Path, recorded: dict[str, dict[str, Answer]], tmp_path: Path) -> None:
    """Status, headers and body of every answer."""
    with ExitStack() as stack:
        server = started(stack, tmp_path, archives, samples.envelope)
        found = {exchange.name: ask(server, exchange) for exchange in samples.exchanges}
    if REFRESH:
        recorded[samples.envelope] = found
    answers = recorded[samples.envelope]
    if not TORCHSERVE:
        answers = {exchange.name: exchange.expected(answers[exchange.name]) for exchange in samples.exchanges}
    assert parsed(found) == expected(answers)
