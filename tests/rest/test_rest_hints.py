"""Misspelt parameters of management calls are named in the log and change nothing else."""

from __future__ import annotations

import pytest
from rest_doubles import MemoryEngine, Service

from modelserver.engine.requests import Registered, Scaled
from modelserver.rest.hints import misspelt_parameters


@pytest.mark.parametrize(
    ("method", "path", "name", "near"),
    [
        ("POST", "/models", "workers", "initial_workers"),
        ("POST", "/models", "batchSize", "batch_size"),
        ("POST", "/models", "URL", "url"),
        ("GET", "/models", "limits", "limit"),
        ("GET", "/models/{model_name}", "customised", "customized"),
        ("PUT", "/models/{model_name}", "min_workers", "min_worker"),
        ("PUT", "/models/{model_name}", "sync\nchronous", "synchronous"),
    ],
)
def test_the_nearest_name_is_offered(method: str, path: str, name: str, near: str) -> None:
    (line,) = misspelt_parameters(method, path, [name])
    assert line.isprintable()
    assert line.endswith(f" of {method} {path}: did you mean {near}?")


@pytest.mark.parametrize("name", ["synchronous", "number_gpu", "timeout", "model_version", "_", "", "trace", "é"])
def test_what_is_known_or_like_nothing_is_let_pass(name: str) -> None:
    assert misspelt_parameters("PUT", "/models/{model_name}", [name]) == []


def test_a_call_is_not_answered_with_any_number_of_lines() -> None:
    assert len(misspelt_parameters("POST", "/models", [f"url{number}" for number in range(1000)])) == 10
    (line,) = misspelt_parameters("POST", "/models", ["initial_workers" + "_" * 100_000])
    assert len(line) < 200


def test_calls_work_as_if_the_parameter_were_not_there() -> None:
    here = Service(MemoryEngine("m"), apis=("Management",))
    here.engine.outcome = Scaled(0, pending=True, complete=False)
    assert here.request("PUT", "/models/m?min_workers=3").status == 202
    here.engine.outcome = Registered("m", "1.0", 0, pending=False)
    assert here.request("POST", "/models?url=m.mar&batchsize=3").status == 200
    assert here.request("POST", "/models?urls=m.mar").status == 400
    assert here.request("GET", "/models?limits=3").status == 200
    assert here.telemetry.lines == [
        "WARN http.HttpRequestHandler Unknown parameter min_workers of PUT /models/{model_name}: "
        "did you mean min_worker?",
        "WARN http.HttpRequestHandler Unknown parameter batchsize of POST /models: did you mean batch_size?",
        "WARN http.HttpRequestHandler Unknown parameter urls of POST /models: did you mean url?",
        "WARN http.HttpRequestHandler Unknown parameter limits of GET /models: did you mean limit?",
    ]
