"""Registering, describing, scaling and removing models."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from contract.rest_server import PUPPET, error, make, serving
from contract.server import ContractServer
from harness.archives import NOOP, pack
from harness.server import ended, eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
CONFIG = {"default_workers_per_model": 1}
NOT_ALLOWED = (
    '{\n  "code": 405,\n  "type": "MethodNotAllowedException",\n'
    '  "message": "Requested method is not allowed, please refer to API document."\n}\n'
)
PROCESSING = {"status": "Processing worker updates..."}
NOT_FOUND = (404, "ModelNotFoundException", "Model not found: nope")

# Says of itself what the client's header X-Say orders.
DESCRIBING = """
import time

SAYINGS = {
    "dict": lambda data: {"seen": repr(data)},
    "text": lambda data: '{"a": 1}',
    "none": lambda data: None,
    "list": lambda data: [1],
    "words": lambda data: "words",
    "empty": lambda data: "",
    "raise": lambda data: 1 / 0,
    "late": lambda data: time.sleep(3) or {},
}


def handle(data, context):
    if data is None:
        return None
    if context.get_request_header(0, "describe") == "True":
        return [SAYINGS[context.get_request_header(0, "X-Say")](data)]
    return ["prediction"] * len(data)
"""


@pytest.fixture(scope="module")
def noop(server: ContractServer) -> Iterator[str]:
    """A model without workers."""
    pack(server.store, "noop", NOOP)
    assert server.register("noop.mar", workers=0).status_code == 200
    yield "noop"
    server.delete("noop")


def manage(server: ContractServer, method: str, path: str, **options: Any) -> httpx.Response:
    return server.request(method, path, "Management", **options)


def register(server: ContractServer, **parameters: Any) -> httpx.Response:
    return manage(server, "POST", "/models", params=parameters)


def registered(name: str, workers: int) -> dict[str, str]:
    tail = "" if workers else ". Use scale workers API to add workers for the model."
    return {"status": f'Model "{name}" Version: 1.0 registered with {workers} initial workers{tail}'}


@check("rest management", 1)
@check("rest management", 27)
def test_without_the_model_api(tmp_path: Path) -> None:
    """Models of the start are there from the first request on, and can be looked at and scaled."""
    with make(tmp_path, archives={"m": PUPPET}, startup=("m",), model_api=False) as server:
        assert manage(server, "GET", "/models/m").status_code == 200
        for method, path in (("POST", "/models?url=m.mar"), ("DELETE", "/models/m"), ("DELETE", "/models/m/1.0")):
            answer = manage(server, method, path)
            assert (answer.status_code, answer.text) == (405, NOT_ALLOWED)
        assert manage(server, "GET", "/models").json()["models"] == [{"modelName": "m", "modelUrl": "m.mar"}]
        assert server.scale("m", 1).status_code == 200
        assert manage(server, "PUT", "/models/m/1.0/set-default").status_code == 200
        assert server.describe("m")["loadedAtStartup"] is True


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("PUT", "/models"),
        ("OPTIONS", "/models"),
        ("POST", "/models/noop"),
        ("PATCH", "/models/noop/1.0"),
        ("POST", "/models/noop/1.0/set-default"),
        ("POST", "/v1/models/noop"),
    ],
)
def test_methods_that_are_not_allowed(server: ContractServer, noop: str, method: str, path: str) -> None:
    """Paths exist all the same."""
    answer = manage(server, method, path)
    assert (answer.status_code, answer.text) == (405, NOT_ALLOWED)


@fixed("set-default only")
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_the_default_version_is_only_set(server: ContractServer, noop: str, method: str) -> None:
    """Nothing is described or removed by that path."""
    assert manage(server, method, "/models/noop/1.0/set-default").status_code == 405
    assert server.status_of(noop) == 200


@pytest.mark.parametrize(
    "path", ["/ping", "/predictions/noop", "/metrics", "/models/noop/1.0/foo", "//models", "/nothing"]
)
def test_what_the_management_port_does_not_serve(server: ContractServer, noop: str, path: str) -> None:
    """Models that exist or not."""
    message = "Requested resource is not found, please refer to API document."
    assert error(manage(server, "GET", path)) == (404, "ResourceNotFoundException", message)


def test_the_description_of_a_model(server: ContractServer, noop: str) -> None:
    """What can be asked of it."""
    document = manage(server, "OPTIONS", "/models/noop").json()
    assert document["info"]["title"] == "RESTful Management API for: noop"
    paths = ["/models/{model_name}", "/models/{model_name}/{model_version}"]
    assert list(document["paths"]) == [*paths, paths[1] + "/set-default"]
    assert error(manage(server, "OPTIONS", "/models/nope")) == NOT_FOUND


@check("rest management", 2)
@check("rest management", 3)
@check("rest management", 5)
@pytest.mark.parametrize(
    ("query", "status", "type_", "message"),
    [
        ("", 400, "BadRequestException", "Parameter url is required."),
        ("?url=", 404, "ModelNotFoundException", "empty url"),
        ("?url=../fake.mar", 404, "ModelNotFoundException", "Relative path is not allowed in url: ../fake.mar"),
        ("?url=a..b.mar", 404, "ModelNotFoundException", "Relative path is not allowed in url: a..b.mar"),
        ("?url=nofile.mar", 404, "ModelNotFoundException", "Model not found at: nofile.mar"),
        ("?url=ftp://h/m.mar", 404, "ModelNotFoundException", "Model not found at: ftp://h/m.mar"),
    ],
)
def test_urls_that_lead_nowhere(server: ContractServer, query: str, status: int, type_: str, message: str) -> None:
    """Each says why."""
    assert error(manage(server, "POST", f"/models{query}")) == (status, type_, message)


@check("rest management", 4)
def test_runtimes(server: ContractServer) -> None:
    """In the spelling of manifests."""
    pack(server.store, "timed", NOOP)
    for runtime in ("python4", "PYTHON"):
        answer = register(server, url="timed.mar", runtime=runtime, initial_workers=0)
        assert error(answer) == (400, "BadRequestException", f"Invalid RuntimeType value: {runtime}")
    assert register(server, url="timed.mar", runtime="python3", initial_workers=0).status_code == 200
    assert server.describe("timed")["runtime"] == "python3"
    server.delete("timed")


@check("rest management", 6)
def test_a_version_is_registered_once(server: ContractServer, noop: str) -> None:
    """The second time is a conflict."""
    message = "Model version 1.0 is already registered for model noop"
    assert error(register(server, url="noop.mar")) == (409, "ConflictStatusException", message)


@check("rest management", 7)
@pytest.mark.parametrize(("asked", "workers"), [("0", 0), ("-1", 0), ("abc", 1), ("2", 2)])
def test_initial_workers(server: ContractServer, asked: str, workers: int) -> None:
    """What is no number is what the configuration says."""
    name = f"initial{asked}"
    pack(server.store, name, NOOP)
    answer = register(server, url=f"{name}.mar", initial_workers=asked)
    assert (answer.status_code, answer.json()) == (200, registered(name, workers))
    assert len(server.ready_workers(name)) == workers
    server.delete(name)


@check("rest management", 8)
@pytest.mark.parametrize("synchronous", ["false", "-1", "1", ""])
def test_an_asynchronous_registration(server: ContractServer, synchronous: str) -> None:
    """It is answered before the workers have loaded."""
    name = f"behind{synchronous}"
    server.prepare(name, starting="slow")
    answer = register(server, url=f"{name}.mar", initial_workers=1, synchronous=synchronous)
    assert (answer.status_code, answer.json()) == (202, PROCESSING)
    assert [worker["status"] for worker in server.workers(name)] == ["UNLOADING"]
    server.ready(name)
    server.delete(name)


@check("rest management", 9)
@pytest.mark.parametrize(
    ("starting", "status"),
    [
        ("raise", 500),
        ("exit", 500),
        pytest.param("memory", 507, marks=fixed("failed registration")),
        pytest.param("cuda", 507, marks=fixed("failed registration")),
    ],
)
def test_a_model_that_cannot_load(server: ContractServer, starting: str, status: int) -> None:
    """Nothing stays of it, so that it can be registered again."""
    name = f"broken-{starting}"
    server.prepare(name, starting=starting)
    for _ in range(2):
        answer = register(server, url=f"{name}.mar", initial_workers=1)
        message = f"Failed to start workers for model {name} version: 1.0"
        assert error(answer) == (status, "InternalServerException", message)
        assert server.status_of(name) == 404


@check("rest management", 10)
def test_a_model_that_loads_too_long(server: ContractServer) -> None:
    """It is not waited for."""
    server.prepare("endless", starting="hang")
    answer = register(server, url="endless.mar", initial_workers=1, startup_timeout=1)
    message = "Failed to start workers for model endless version: 1.0"
    assert error(answer) == (500, "InternalServerException", message)


@check("rest management", 11)
@pytest.mark.parametrize(
    "body",
    [
        '{"url": "json.mar", "initial_workers": "1", "synchronous": "true", "batch_size": 2, "unknown": [1]}',
        "{'url': 'json.mar', 'initial_workers': '1', 'synchronous': 'true', 'batch_size': '2', 'model_name': null}",
    ],
)
def test_registration_by_json(server: ContractServer, body: str) -> None:
    """The query is not looked at."""
    if not (server.store / "json.mar").exists():
        pack(server.store, "json", NOOP)
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    answer = manage(server, "POST", "/models?url=nofile.mar&batch_size=7", content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (200, registered("json", 1))
    assert server.describe("json")["batchSize"] == 2
    server.delete("json")


@check("rest management", 11)
@fixed("json registration")
def test_the_delay_of_a_registration_by_json(server: ContractServer) -> None:
    """As by the query; an empty body leaves the query."""
    pack(server.store, "delay", NOOP)
    for url, body in (("nofile.mar", '{"url": "delay.mar", "initial_workers": 0}'), ("delay.mar", "")):
        path = f"/models?initial_workers=0&url={url}"
        assert (
            manage(server, "POST", path, content=body, headers={"content-type": "application/json"}).status_code == 200
        )
        assert server.describe("delay")["maxBatchDelay"] == 100
        server.delete("delay")


@check("rest management", 11)
@fixed("json errors")
@pytest.mark.parametrize("body", ["{", "[]", '{"url": ["x"]}', '{"url": "x", "batch_size": "many"}'])
def test_json_that_cannot_be_read(server: ContractServer, body: str) -> None:
    """The client is told."""
    answer = manage(server, "POST", "/models?url=x", content=body, headers={"content-type": "application/json"})
    assert error(answer)[:2] == (400, "BadRequestException")


def unpacked(server: ContractServer, name: str, directory: Path) -> Path:
    """The content of an archive as a directory."""
    pack(server.store.parent, name, NOOP, archive=name)
    with zipfile.ZipFile(server.store.parent / f"{name}.mar") as archive:
        archive.extractall(directory)
    return directory


@check("rest management", 15)
def test_directories_are_models(server: ContractServer, tmp_path: Path) -> None:
    """In the store, elsewhere, and one directory deeper."""
    unpacked(server, "stored", server.store / "stored")
    elsewhere = unpacked(server, "elsewhere", tmp_path / "elsewhere")
    unpacked(server, "deeper", tmp_path / "nest" / "deeper")
    for name, url in (("stored", "stored"), ("elsewhere", str(elsewhere)), ("deeper", str(tmp_path / "nest"))):
        assert register(server, url=url, initial_workers=1).json() == registered(name, 1)
        assert server.predict(name).text == "ok"
        assert server.describe(name)["modelUrl"] == url
        assert server.delete(name).status_code == 200
    assert (elsewhere / "MAR-INF" / "MANIFEST.json").exists()


@check("rest management", 15)
def test_a_tarball_is_a_model(server: ContractServer, tmp_path: Path) -> None:
    """Its first directory is left out."""
    content = unpacked(server, "tarred", tmp_path / "content")
    with tarfile.open(server.store / "tarred.tar.gz", "w:gz") as archive:
        archive.add(content, "top")
    assert register(server, url="tarred.tar.gz", initial_workers=1).json() == registered("tarred", 1)
    assert server.predict("tarred").text == "ok"
    server.delete("tarred")


@check("rest management", 12)
def test_archives_of_the_store_survive(server: ContractServer) -> None:
    """Directories in their url are dropped."""
    pack(server.store, "survivor", NOOP)
    for url in ("survivor.mar", "sub/survivor.mar", "/any/where/survivor.mar"):
        assert register(server, url=url, initial_workers=0).status_code == 200
        assert server.delete("survivor").json() == {"status": 'Model "survivor" unregistered'}
        assert (server.store / "survivor.mar").exists()


@check("rest management", 16)
def test_describe(server: ContractServer) -> None:
    """Every member, in order, and no null."""
    config = "minWorkers: 1\nmaxWorkers: 2\nbatchSize: 4\nmaxBatchDelay: 50\nresponseTimeout: 3\njobQueueSize: 3\n"
    pack(server.store, "described", NOOP, config=config)
    assert register(server, url="described.mar").json() == registered("described", 1)
    (element,) = manage(server, "GET", "/models/described").json()
    (worker,) = element.pop("workers")
    assert list(worker) == ["id", "startTime", "status", "memoryUsage", "pid", "gpu", "gpuUsage"]
    assert (worker["status"], worker["gpu"], worker["gpuUsage"]) == ("READY", False, "N/A")
    assert list(element.items()) == [
        ("modelName", "described"),
        ("modelVersion", "1.0"),
        ("modelUrl", "described.mar"),
        ("runtime", "python"),
        ("minWorkers", 1),
        ("maxWorkers", 2),
        ("batchSize", 4),
        ("maxBatchDelay", 50),
        ("responseTimeout", 3),
        ("startupTimeout", 120),
        ("maxRetryTimeoutInSec", 300),
        ("clientTimeoutInMills", 0),
        ("parallelType", ""),
        ("parallelLevel", 0),
        ("deviceType", "cpu"),
        ("continuousBatching", False),
        ("useJobTicket", False),
        ("useVenv", False),
        ("stateful", False),
        ("sequenceMaxIdleMSec", 0),
        ("sequenceTimeoutMSec", 0),
        ("maxNumSequence", 0),
        ("maxSequenceJobQueueSize", 0),
        ("loadedAtStartup", False),
        ("jobQueueStatus", {"remainingCapacity": 3, "pendingRequests": 0}),
    ]
    server.delete("described")


@check("rest management", 16)
def test_describe_what_is_not_there(server: ContractServer, noop: str) -> None:
    """A model or a version."""
    assert error(manage(server, "GET", "/models/nope")) == NOT_FOUND
    message = "Model version: 2.0 does not exist for model: noop"
    assert error(manage(server, "GET", "/models/noop/2.0")) == (404, "ModelVersionNotFoundException", message)


@pytest.fixture(scope="module")
def describing(server: ContractServer) -> Iterator[str]:
    with serving(server, "describing", DESCRIBING) as name:
        yield name


@check("rest management", 17)
@pytest.mark.parametrize(
    ("saying", "metadata"),
    [
        ("dict", {"seen": "[{}]"}),
        ("text", {"a": 1}),
        ("none", {}),
        ("list", {}),
        ("words", {}),
    ],
)
def test_what_a_model_says_of_itself(server: ContractServer, describing: str, saying: str, metadata: Any) -> None:
    """An object, if it says one."""
    path = f"/models/{describing}?customized=TRUE"
    answer = manage(server, "GET", path, headers={"X-Say": saying})
    assert answer.status_code == 200, answer.text
    assert answer.json()[0]["customizedMetadata"] == metadata
    assert answer.headers["content-type"] == "application/json"


@check("rest management", 17)
@pytest.mark.parametrize(("query", "saying"), [("customized=true", "empty"), ("customized=1", "dict"), ("", "dict")])
def test_models_that_say_nothing(server: ContractServer, describing: str, query: str, saying: str) -> None:
    """Or are not asked."""
    answer = manage(server, "GET", f"/models/{describing}?{query}", headers={"X-Say": saying})
    assert "customizedMetadata" not in answer.json()[0]


@check("rest management", 17)
def test_a_description_that_fails(server: ContractServer, describing: str, noop: str) -> None:
    """In the handler, or for want of a worker."""
    answer = manage(server, "GET", f"/models/{describing}?customized=true", headers={"X-Say": "raise"})
    assert error(answer) == (503, "InternalServerException", "Prediction failed")
    message = 'Model "noop" has no worker to serve describe request. Please use scale workers API to add workers.'
    answer = manage(server, "GET", "/models/noop?customized=true")
    assert error(answer) == (503, "ServiceUnavailableException", message)


@check("rest management", 17)
@fixed("patience of describe")
def test_a_description_that_takes_too_long(server: ContractServer) -> None:
    """The limit is that of any reply."""
    with serving(server, "pensive", DESCRIBING, response_timeout=1) as name:
        answer = manage(server, "GET", f"/models/{name}?customized=true", headers={"X-Say": "late"})
        message = "Failed to get customized model matadata."
        assert error(answer) == (500, "InternalServerException", message)


@check("rest management", 18)
def test_scaling(server: ContractServer) -> None:
    """Asynchronously unless asked for."""
    with serving(server, "scaled", NOOP) as name:
        answer = server.rescale(name, min_worker=2)
        assert (answer.status_code, answer.json()) == (202, PROCESSING)
        server.ready(name, 2)
        assert server.rescale(name, min_worker=2).json() == PROCESSING
        answer = server.rescale(name, min_worker=1, synchronous="true")
        assert (answer.status_code, answer.json()) == (200, {"status": "Workers scaled to 1 for model: scaled"})
        assert len(server.workers(name)) == 1
        text = {"status": "Workers scaled to 2 for model: scaled, version: 1.0"}
        for path, query in (("/models/scaled/1.0", ""), ("/models/scaled", "&model_version=1.0")):
            answer = manage(server, "PUT", f"{path}?min_worker=2&max_worker=3&synchronous=true{query}")
            assert (answer.status_code, answer.json()) == (200, text)
        assert {key: server.describe(name)[key] for key in ("minWorkers", "maxWorkers")} == {
            "minWorkers": 2,
            "maxWorkers": 3,
        }


@check("rest management", 18)
@pytest.mark.parametrize(
    ("path", "status", "type_", "message"),
    [
        (
            "/models/noop?min_worker=2&max_worker=1",
            400,
            "BadRequestException",
            "max_worker cannot be less than min_worker.",
        ),
        ("/models/noop?max_worker=-1", 400, "BadRequestException", "max_worker cannot be less than min_worker."),
        (
            "/models/nope?min_worker=2&max_worker=1",
            400,
            "BadRequestException",
            "max_worker cannot be less than min_worker.",
        ),
        ("/models/nope", *NOT_FOUND),
        (
            "/models/noop/2.0",
            404,
            "ModelVersionNotFoundException",
            "Model version: 2.0 does not exist for model: noop",
        ),
    ],
)
def test_scaling_that_is_refused(
    server: ContractServer, noop: str, path: str, status: int, type_: str, message: str
) -> None:
    """Numbers are looked at before names."""
    assert error(manage(server, "PUT", path)) == (status, type_, message)


@check("rest management", 18)
@fixed("negative minimum")
def test_fewer_workers_than_none(server: ContractServer) -> None:
    """An error, and nothing changes."""
    with serving(server, "steady", NOOP) as name:
        before = server.describe(name)
        assert server.rescale(name, min_worker=-1).status_code == 500
        assert server.describe(name) == before


@check("rest management", 28)
@fixed("emptied models")
def test_scaling_to_none_ends_the_processes(server: ContractServer) -> None:
    """Whatever the maximum is."""
    with serving(server, "emptied", NOOP) as name:
        (worker,) = server.workers(name)
        process = psutil.Process(worker["pid"])
        assert server.rescale(name, min_worker=0, max_worker=2).status_code == 202
        eventually(lambda: not server.workers(name))
        eventually(lambda: ended(process))
        assert server.predict(name).status_code == 503


@check("rest management", 19)
def test_versions(server: ContractServer) -> None:
    """The first one is the default until another one is made it, and goes last."""
    for version in ("1.0", "2.0"):
        handler = NOOP.replace('"ok"', f'"{version}"')
        pack(server.store, "twofold", handler, version=version, archive=f"twofold-{version}")
        answer = server.register(f"twofold-{version}.mar", model_name="twofold")
        assert answer.status_code == 200, answer.text
    assert server.predict("twofold").text == "1.0"
    assert server.predict("twofold/2.0").text == "2.0"
    every = manage(server, "GET", "/models/twofold/all").json()
    assert {element["modelVersion"] for element in every} == {"1.0", "2.0"}
    answer = manage(server, "PUT", "/models/twofold/2.0/set-default")
    status = 'Default version successfully updated for model "twofold" to "2.0"'
    assert (answer.status_code, answer.json()) == (200, {"status": status})
    assert server.predict("twofold").text == "2.0"
    refused = (403, "InvalidModelVersionException", "Cannot remove default version for model twofold")
    assert error(server.delete("twofold")) == refused
    assert error(server.delete("twofold/2.0")) == refused
    assert server.delete("twofold/1.0").json() == {"status": 'Model "twofold" unregistered'}
    assert server.delete("twofold").status_code == 200
    assert error(server.delete("twofold")) == (404, "ModelNotFoundException", "Model not found: twofold")


@check("rest management", 20)
def test_defaults_that_cannot_be_set(server: ContractServer, noop: str) -> None:
    """The wording is not that of describe."""
    assert error(manage(server, "PUT", "/models/nope/1.0/set-default")) == NOT_FOUND
    message = "Model version 2.0 does not exist for model noop"
    answer = manage(server, "PUT", "/models/noop/2.0/set-default")
    assert error(answer) == (404, "ModelVersionNotFoundException", message)


@check("rest management", 21)
def test_workers_that_do_not_end_in_time(start_server: Callable[..., ContractServer]) -> None:
    """The model stays, without workers; the next attempt succeeds."""
    server = start_server(config={"unregister_model_timeout": 0})
    pack(server.store, "slow", NOOP)
    server.register("slow.mar")
    answer = server.delete("slow")
    assert error(answer) == (408, "RequestTimeoutException", "Timed out while cleaning resources: slow")
    element = server.describe("slow")
    assert (element["minWorkers"], element["maxWorkers"], element["workers"]) == (0, 0, [])
    assert server.delete("slow").status_code == 200
    assert server.status_of("slow") == 404


@check("rest management", 22)
def test_the_list(start_server: Callable[..., ContractServer]) -> None:
    """Page by page, by name."""
    server = start_server()
    for name in ("b", "a", "C"):
        pack(server.store, name, NOOP)
        register(server, url=f"{name}.mar", initial_workers=0)

    def page(query: str) -> tuple[str, str | None]:
        body = manage(server, "GET", f"/models?{query}").json()
        assert list(body)[-1] == "models"
        assert all(model["modelUrl"] == f"{model['modelName']}.mar" for model in body["models"])
        return "".join(model["modelName"] for model in body["models"]), body.get("nextPageToken")

    queries = {
        "": ("Cab", None),
        "limit=0": ("", "0"),
        "limit=-1": ("Cab", None),
        "limit=101": ("Cab", None),
        "limit=abc": ("Cab", None),
        "limit=2": ("Ca", "2"),
        "limit=3": ("Cab", "3"),
        "limit=1&next_page_token=1": ("a", "2"),
        "next_page_token=3": ("", None),
        "next_page_token=9": ("", None),
        "next_page_token=-1": ("Cab", None),
    }
    assert {query: page(query) for query in queries} == queries
