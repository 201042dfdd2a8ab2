"""Headers for pages of other origins."""

from __future__ import annotations

import asyncio

import pytest
from rest_doubles import GET, MemoryEngine, Service, read_responses, settle, streamed

from modelserver.engine.job import Job
from modelserver.rest.call import Call
from modelserver.rest.call_class import call_class
from modelserver.settings.table import Settings
from modelserver.wire.frames import Reply

ORIGIN, METHODS, HEADERS = (f"access-control-allow-{name}" for name in ("origin", "methods", "headers"))
ALL = {ORIGIN: "https://x", METHODS: "GET, POST", HEADERS: "X-Own"}


def service(**settings: str) -> Service:
    keys = settings or {"origin": ALL[ORIGIN], "methods": ALL[METHODS], "headers": ALL[HEADERS]}
    asked = Settings(**{f"cors_allowed_{name}": value for name, value in keys.items()})  # type: ignore[arg-type]
    return Service(MemoryEngine("m"), settings=asked, apis=("Inference", "Management", "Metrics"))


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/ping", 200),
        ("POST", "/predictions/m", 200),
        ("HEAD", "/predictions/m", 200),
        ("OPTIONS", "/predictions/m", 200),
        ("OPTIONS", "/", 200),
        ("GET", "/models", 200),
        ("GET", "/metrics", 200),
        ("OPTIONS", "/models", 405),
        ("OPTIONS", "/nothing", 404),
        ("GET", "/predictions/nope", 404),
        ("GET", "/predictions/%zz", 400),
    ],
)
def test_every_response_has_them(method: str, target: str, status: int) -> None:
    """Whatever the client says of its origin."""
    for header in ("A: b", "Origin: https://other", "Origin: https://x"):
        response = service().request(method, target, b"", header)
        assert response.status == status
        assert {name: response.headers[name] for name in ALL} == ALL


def test_only_what_is_asked_for() -> None:
    response = service(methods="GET").request("GET", "/ping")
    assert response.headers[METHODS] == "GET"
    assert not {ORIGIN, HEADERS} & response.headers.keys()


def test_without_configuration_nothing_is_added_and_nothing_is_looked_at() -> None:
    assert call_class(Settings()) is Call
    response = Service(MemoryEngine("m")).request("GET", "/predictions/m", b"", "Origin: https://x")
    assert not ALL.keys() & response.headers.keys()


def test_what_the_handler_sets_wins() -> None:
    here = service()
    here.engine.answer = lambda job: Reply(0, b"ok", headers=[("Access-Control-Allow-Origin", "*")])
    response = here.request("GET", "/predictions/m")
    assert {name: response.headers[name] for name in ALL} == {**ALL, ORIGIN: "*"}
    assert response.names.count("Access-Control-Allow-Origin") == 1


def test_a_stream_has_them() -> None:
    here = service()

    def answer(job: Job) -> Reply:
        streamed(job, b"b").end()
        return Reply(0, b"a")

    here.engine.answer = answer

    async def talk() -> bytes:
        connection = here.connect()
        await connection.feed(GET)
        await settle()
        return connection.written

    (response,) = read_responses(asyncio.run(talk()))
    assert (response.body, response.headers[ORIGIN]) == (b"ab", "https://x")
