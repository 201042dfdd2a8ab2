"""Which port serves what."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rest_doubles import MemoryEngine, Recorder, Service

from modelserver.rest.apps import connectors
from modelserver.settings.addresses import Address
from modelserver.settings.table import Settings

A = Address("http", "127.0.0.1", 8080)
B = Address("http", "127.0.0.1", 8081)
ANY = Address("http", "127.0.0.1", 0)
UNIX = Address("unix", path="/tmp/x.sock")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (Settings(), ["Inference", "Management", "Metrics"]),
        (Settings(enable_metrics_api=False), ["Inference", "Management"]),
        (Settings(inference_address=A, management_address=A, metrics_address=B), ["Inference", "Metrics"]),
        (Settings(inference_address=A, management_address=A, metrics_address=A), ["Inference"]),
        (Settings(inference_address=A, management_address=B, metrics_address=B), ["Inference", "Management"]),
        (
            Settings(inference_address=ANY, management_address=ANY, metrics_address=ANY),
            ["Inference", "Management", "Metrics"],
        ),
        (Settings(inference_address=UNIX, management_address=UNIX), ["Inference", "Metrics"]),
    ],
)
def test_one_connector_per_address(settings: Settings, named: list[str]) -> None:
    made = connectors(MemoryEngine(), Recorder(), settings)
    assert [connector.name for connector in made] == named
    assert made[0].address == settings.inference_address


def shared(*, enable_metrics_api: bool = True) -> Service:
    settings = Settings(enable_metrics_api=enable_metrics_api)
    return Service(MemoryEngine("m"), settings=settings, apis=("Inference", "Management"))


def test_a_shared_port_serves_everything() -> None:
    here = shared()
    assert here.request("GET", "/ping").status == 200
    assert here.request("GET", "/predictions/m").body == b"ok"
    assert here.request("GET", "/models").json["models"][0]["modelName"] == "m"
    assert here.request("GET", "/metrics").body == b"# metrics\n"
    assert here.request("GET", "/").status == 405


def test_a_version_is_described_on_a_shared_port() -> None:
    response = shared().request("GET", "/models/m/1.0")
    assert response.json["message"] == "Model not found: m"  # from the engine: the route is management's


def test_a_shared_port_without_the_metrics_api() -> None:
    assert shared(enable_metrics_api=False).request("GET", "/metrics").status == 404


def test_metrics_join_the_port_they_share() -> None:
    here = Service(MemoryEngine("m"), apis=("Management", "Metrics"))
    assert here.request("GET", "/metrics").status == 200
    assert here.request("GET", "/models").status == 200
    assert here.request("GET", "/ping").status == 404


class TestPing:
    def test_healthy(self) -> None:
        here = Service(MemoryEngine())
        for method, target in [("GET", "/ping"), ("POST", "/ping/"), ("DELETE", "/ping/anything?x=%zz")]:
            response = here.request(method, target, b"ignored")
            assert (response.status, response.body) == (200, b'{\n  "status": "Healthy"\n}\n')

    def test_unhealthy(self) -> None:
        here = Service(MemoryEngine())
        here.engine.is_healthy = False
        response = here.request("GET", "/ping")
        ailment = {"model": "m", "version": "1.0", "worker": "9000", "reason": "load timeout", "detail": "too slow"}
        assert (response.status, response.json) == (500, {"status": "Unhealthy", "causes": [ailment]})
        assert response.headers["connection"] == "close"

    @pytest.mark.parametrize("target", ["/", "//ping", "/pingx", "/models", "/metrics", "/api"])
    def test_what_the_inference_port_does_not_serve(self, target: str) -> None:
        here = Service(MemoryEngine())
        assert here.request("GET", target).status == (405 if target == "/" else 404)
        assert here.telemetry.records[0].target == target


class TestMetrics:
    @pytest.mark.parametrize(
        ("target", "names"),
        [
            ("/metrics", []),
            ("/metrics/", []),
            ("/metrics/foo/bar", []),
            ("/metrics?name[]=A&name%5B%5D=B", ["A", "B"]),
            ("/metrics?name[]=", [""]),
            ("/metrics?name[]=A,B", ["A,B"]),
            ("/metrics?name=A", []),
        ],
    )
    def test_names(self, target: str, names: list[str]) -> None:
        here = Service(MemoryEngine(), apis=("Metrics",))
        response = here.request("GET", target)
        assert (response.status, response.body) == (200, b"# metrics\n")
        assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert here.telemetry.scraped == [names]
        assert len(here.telemetry.records) == 1

    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "HEAD"])
    def test_any_method(self, method: str) -> None:
        response = replace(Service(MemoryEngine()), apis=("Metrics",)).request(method, "/metrics")
        assert (response.status, response.headers["content-length"]) == (200, "10")
        assert response.body == (b"" if method == "HEAD" else b"# metrics\n")

    @pytest.mark.parametrize("target", ["/ping", "/foo", "/metricsfoo"])
    def test_nothing_else(self, target: str) -> None:
        assert Service(MemoryEngine(), apis=("Metrics",)).request("GET", target).status == 404
