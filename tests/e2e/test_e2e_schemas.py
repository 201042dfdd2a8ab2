"""The server keeps to its API descriptions: calls made up from them get what they promise, or a clear 4xx.

Schemathesis makes up values that fit a document, and values that do not; which ones is the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from harness.archives import ECHO, pack
from harness.server import DEADLINE, ServerProcess, eventually

EXAMPLES = 10  # calls of each operation and kind of values
MODEL = "echo"
# What exists is called as often as what does not, and is never more than one worker: more is only more of the same.
KNOWN = {"model_name": MODEL, "model_version": "1.0", "url": f"{MODEL}.mar"}
ANYTHING = "*/*"
COUNTS = ("min_worker", "max_worker", "initial_workers")

load_all_checks()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("schemas")) as running:
        pack(running.store, MODEL, ECHO)
        yield running


@pytest.fixture(autouse=True)
def model(server: ServerProcess) -> Iterator[None]:
    """Tests may unregister or scale it; afterwards the server is as well as before."""
    server.request("DELETE", f"/models/{MODEL}", "Management")
    assert server.register(f"{MODEL}.mar").status_code == 200
    yield
    server.request("DELETE", f"/models/{MODEL}", "Management")
    assert server.register(f"{MODEL}.mar").status_code == 200
    assert server.predict(MODEL, b"after").content == b"after"
    eventually(lambda: server.request("GET", "/ping").status_code == 200)
    own = [line for line in server.output.splitlines() if "MODEL_LOG" not in line]  # workers warn of odd texts
    assert not any("Traceback" in line for line in own)


@pytest.mark.parametrize(
    ("api", "path"),
    [
        ("Inference", "/"),
        ("Management", "/"),
        ("Metrics", "/"),
        ("Inference", f"/predictions/{MODEL}"),
        ("Management", f"/models/{MODEL}"),
    ],
)
def test_a_document_is_kept(server: ServerProcess, api: str, path: str) -> None:
    document = server.request("OPTIONS", path, api).json()
    schema = schemathesis.openapi.from_dict(document)
    found: Any = schema.get_all_operations()
    operations = [each.ok() for each in found]
    assert len(operations) == sum(map(len, document["paths"].values()))
    with requests.Session() as session:
        session.trust_env = False  # no proxies
        for operation in operations:
            call_often(operation, GenerationMode.POSITIVE, server.url(api), session)
            if any(parameter["in"] == "query" for parameter in operation.definition.raw["parameters"]):
                call_often(operation, GenerationMode.NEGATIVE, server.url(api), session)


def call_often(operation: Any, mode: GenerationMode, url: str, session: requests.Session) -> None:
    """Every call gets an answer that the document of its operation allows."""

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(operation.as_strategy(generation_mode=mode), st.sets(st.sampled_from(sorted(KNOWN))))
    def call(case: Any, known: set[str]) -> None:
        case.path_parameters = with_known(case.path_parameters, known)
        case.query = with_known(case.query, known)
        check(case, case.call(base_url=url, session=session, timeout=DEADLINE))

    call()


def with_known(values: Mapping[str, Any] | None, known: set[str]) -> dict[str, Any]:
    """The values with some of them replaced by what exists, and with small numbers of workers."""
    kept = {name: KNOWN[name] if name in known else value for name, value in (values or {}).items()}
    return {name: small(value) if name in COUNTS else value for name, value in kept.items()}


def small(value: Any) -> Any:
    """A number that is not above 1, if it is a number."""
    try:
        return min(int(value), 1)
    except (TypeError, ValueError):
        return value


def check(case: Any, answer: requests.Response) -> None:
    """An answer that the document describes is as described; any other one is an error of the client's."""
    documented = case.operation.definition.raw["responses"].get(str(answer.status_code))
    if documented is not None and ANYTHING in documented.get("content", {}):
        pass  # what the handler says
    elif documented is not None:
        checks = [content_type_conformance, response_schema_conformance]
        case.validate_response(schemathesis.Response.from_any(answer), checks=checks)
    else:
        assert 400 <= answer.status_code < 500, (case.as_curl_command(), answer.text)
        assert answer.json()["code"] == answer.status_code
        assert answer.json()["message"]
    if answer.status_code >= 500:
        assert explained(case, answer), (case.as_curl_command(), answer.text)


def explained(case: Any, answer: requests.Response) -> bool:
    """By contract a negative number of workers is a 500, and a model that has been scaled to none answers 503."""
    return answer.status_code == 503 or "min_worker" in case.query


def test_a_document_that_is_not_kept_would_be_noticed(server: ServerProcess) -> None:
    """One that promises other members, and one that does not know of a failure."""
    document = server.request("OPTIONS", "/", "Inference").json()
    (promised,) = document["paths"]["/ping"]["get"]["responses"]["200"]["content"].values()
    promised["schema"]["required"] = ["health"]
    operation = schemathesis.openapi.from_dict(document)["/ping"]["GET"]
    with requests.Session() as session, pytest.raises(BaseExceptionGroup):
        call_often(operation, GenerationMode.POSITIVE, server.url(), session)
