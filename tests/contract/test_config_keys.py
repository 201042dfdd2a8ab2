"""Keys of the configuration file, seen in what a server with all of them does."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack

import httpx
import pytest

from contract.rest_server import make, serving
from contract.server import ContractServer, free_ports
from harness.archives import NOOP, pack
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
MODELS = {
    "listed": {"1.0": {"minWorkers": "2", "maxWorkers": 3, "batchSize": "8", "maxBatchDelay": 77.9, "marName": "x"}},
    "other": {"2.0": {"minWorkers": 2, "maxWorkers": 2, "batchSize": 8}},
    "late": {"1.0": {"minWorkers": 2, "maxWorkers": 2, "batchSize": 8, "responseTimeout": 0}},
    "later": {"1.0": {"batchSize": 8}},
}
CORS = {"origin": "https://pages.example", "methods": "GET", "headers": "X-Own"}
CONFIG = {
    **{f"cors_allowed_{name}": value for name, value in CORS.items()},
    "blacklist_env_vars": "HIDDEN|.*SECRET",
    "decode_input_request": "false",
    "ipex_enable": "true",
    "limit_max_image_pixels": "false",
    "allowed_urls": "https://models[.]example/.*",
    "metrics_mode": "foo",
    "NUM_WORKERS": "1",
    "models": json.dumps(MODELS).replace(", ", ",\\\n    "),
}
ENVIRONMENT = {
    "HIDDEN": "1",
    "MY_SECRET": "1",
    "HIDDENTOO": "1",
    "SECRETS": "1",
    "QUEUE": "7",
    "TS_ALLOWED_URLS": ".*",
    "TS_LOAD_MODELS": "unlisted.mar",
}
WITNESS = """
import json
import os


def handle(data, context):
    return data and [json.dumps({"env": dict(os.environ), "properties": str(context.system_properties)})] * len(data)
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    """It loads `listed` and `other` by itself."""
    with ExitStack() as stack:
        archives = {"listed": NOOP, "other": NOOP, "unlisted": NOOP}
        directory = tmp_path_factory.mktemp("server")
        server = make(directory, archives=archives, startup=("listed", "other"), config=CONFIG, environment=ENVIRONMENT)
        with (directory / "config.properties").open("a") as file:
            file.write("job_queue_size : $$QUEUE$$\n")
        yield stack.enter_context(server)


@check("config", 1)
@check("config", 2)
@check("config", 6)
def test_the_syntax_of_the_file(server: ContractServer) -> None:
    """A colon separates as well as `=` does, lines go on, variables are replaced."""
    assert server.describe("listed")["jobQueueStatus"]["remainingCapacity"] == 7


@check("config", 18)
@check("config", 19)
def test_models_at_start_up(server: ContractServer) -> None:
    """An entry counts for its name and version; texts are numbers, fractions are cut off."""
    listed, other = server.describe("listed"), server.describe("other")
    assert (listed["minWorkers"], listed["maxWorkers"]) == (2, 3)
    assert (listed["batchSize"], listed["maxBatchDelay"]) == (8, 77)
    cpus = len(os.sched_getaffinity(0))
    assert (other["minWorkers"], other["maxWorkers"], other["batchSize"]) == (cpus, cpus, 1)


@check("config", 25)
@check("config", 18)
@check("config", 19)
@check("model config", 23)
def test_models_at_a_registration(server: ContractServer) -> None:
    """Not the workers: without `default_workers_per_model` there are none. A number below 1 is none."""
    with serving(server, "late", NOOP, workers=""):
        late = server.describe("late")
        assert (late["minWorkers"], late["maxWorkers"]) == (0, 0)
        assert (late["batchSize"], late["responseTimeout"]) == (8, 120)
    with serving(server, "later", NOOP, config="batchSize: 4\n"):
        assert server.describe("later")["batchSize"] == 4


@check("config", 3)
def test_cors(server: ContractServer) -> None:
    """On every answer of every port."""
    answers = [
        server.request("GET", "/ping"),
        server.request("GET", "/nothing"),
        server.request("GET", "/models", "Management"),
        server.request("GET", "/models/nobody", "Management"),
        server.request("GET", "/metrics", "Metrics"),
    ]
    for answer in answers:
        assert {name: answer.headers[f"access-control-allow-{name}"] for name in CORS} == CORS


@pytest.fixture(scope="module")
def witness(server: ContractServer) -> Iterator[dict[str, dict[str, str]]]:
    with serving(server, "witness", WITNESS) as name:
        yield server.predict(name).json()


@check("config", 20)
def test_hidden_variables(witness: dict[str, dict[str, str]]) -> None:
    """The expression has to match the whole name."""
    seen = {name for name in ("HIDDEN", "MY_SECRET", "HIDDENTOO", "SECRETS") if name in witness["env"]}
    assert seen == {"HIDDENTOO", "SECRETS"}


@check("config", 21)
@check("config", 22)
def test_what_workers_are_told(witness: dict[str, dict[str, str]]) -> None:
    """By environment and by the context of the handler."""
    told = {name: witness["env"][name] for name in ("TS_DECODE_INPUT_REQUEST", "TS_IPEX_ENABLE", "TS_IPEX_GPU_ENABLE")}
    assert told == {"TS_DECODE_INPUT_REQUEST": "false", "TS_IPEX_ENABLE": "true", "TS_IPEX_GPU_ENABLE": "false"}
    assert "'limit_max_image_pixels': False" in witness["properties"]


@check("config", 26)
@check("config", 8)
def test_allowed_urls(server: ContractServer) -> None:
    """They bind URLs, not names of the store; the environment cannot loosen them."""
    url = "http://127.0.0.1:1/listed.mar"
    answer = server.register(url)
    assert answer.status_code == 404
    assert answer.json()["message"] == f"Given URL {url} does not match any allowed URL(s)"
    with serving(server, "plain", NOOP):
        pass


@check("config", 7)
def test_variables_count_only_where_the_file_says_so(server: ContractServer) -> None:
    """TS_LOAD_MODELS alone loads nothing."""
    assert server.status_of("unlisted") == 404


@check("config", 24)
def test_an_unknown_metrics_mode(server: ContractServer) -> None:
    """Is reported, and is `log`."""
    assert 'Configured metrics mode "foo" not supported. Defaulting to "LOG" mode: ' in server.log("ts_log.log")
    assert server.request("GET", "/metrics", "Metrics").text == ""
    server.predict("listed")
    eventually(lambda: "Requests2XX.Count" in server.log("ts_metrics.log"))


@check("config", 28)
@fixed("unknown keys")
def test_unknown_keys_are_named_in_the_log(server: ContractServer) -> None:
    """And disturb nobody."""
    assert "Unknown key NUM_WORKERS has no effect (config.properties:" in server.log("ts_log.log")


@check("config", 4)
@check("config", 5)
@check("config", 6)
@check("config", 30)
@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("inference_address", "127.0.0.1:8080", "Invalid binding address: 127.0.0.1:8080"),
        ("number_of_netty_threads", "abc", 'For input string: "abc"'),
        ("default_service_handler", "$$NOT_SET_BY_ANYBODY$$", "Invalid Environment Variable NOT_SET_BY_ANYBODY"),
        ("max_request_size", "-5", "bytes must be non-negative: -5"),
        pytest.param("job_queue_size", "abc", 'For input string: "abc"', marks=fixed("bad numbers")),
    ],
)
def test_values_that_stop_the_start(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: str, complaint: str
) -> None:
    """One line says why."""
    server = make(tmp_path_factory.mktemp("server"), config={key: value})
    server.start(wait=False)
    server.wait()
    assert not server.started
    assert any(line.startswith(f"Invalid configuration: {complaint}") for line in server.lines), server.output


@check("config", 12)
def test_a_unix_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Serves like a port."""
    directory = tmp_path_factory.mktemp("s")
    path = f"{directory}/i.sock"
    transport = httpx.HTTPTransport(uds=path)
    with make(directory, config={"inference_address": f"unix:{path}"}), httpx.Client(transport=transport) as client:
        assert client.get("http://unix/ping").json() == {"status": "Healthy"}


@check("config", 13)
@check("config", 14)
@check("config", 10)
@check("metrics", 9)
@check("metrics", 11)
@pytest.mark.parametrize("metrics", ["true", "false"])
def test_one_address_for_two_apis(tmp_path_factory: pytest.TempPathFactory, metrics: str) -> None:
    """All routes are there; with the metrics API off none of it is, and its own port is closed."""
    address = f"http://127.0.0.1:{free_ports(1)[0]}"
    config = {
        "inference_address": address,
        "management_address": address,
        "enable_metrics_api": metrics,
        "enable_model_api": "false",
    }
    with make(tmp_path_factory.mktemp("server"), config=config) as server:
        pack(server.store, "m", NOOP)
        statuses = {path: server.request("GET", path).status_code for path in ("/ping", "/models", "/metrics")}
        assert statuses == {"/ping": 200, "/models": 200, "/metrics": 200 if metrics == "true" else 404}
        added = server.request("POST", "/models?url=m.mar").status_code
        assert added == 200, "the flag --enable-model-api beats the file"
        assert ("Metrics API bind to" in server.output) is (metrics == "true")
