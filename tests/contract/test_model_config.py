"""The configuration that a model brings along, seen in describe, in the log and by the handler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from contract.rest_server import error, make, serving
from contract.server import ContractServer
from harness.archives import NOOP, pack
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed
CONFIG = {"default_response_timeout": 55}
ALL = "minWorkers: 1\nmaxWorkers: 2\nbatchSize: 4\nmaxBatchDelay: 200\n"
READER = """
import json


def handle(data, context):
    return data and [json.dumps(context.model_yaml_config, sort_keys=True)] * len(data)
"""


def await_log(server: ContractServer, *texts: str) -> None:
    """Lines are written aside: what a request leaves in the log comes a moment after its answer."""
    missing: list[str] = []

    def complete() -> bool:
        log = server.log("ts_log.log")
        missing[:] = [text for text in texts if text not in log]
        return not missing

    eventually(complete)


def sizes(server: ContractServer, model: str) -> tuple[int, ...]:
    """Workers, batch size and delay as describe shows them."""
    description = server.describe(model)
    return tuple(description[name] for name in ("minWorkers", "maxWorkers", "batchSize", "maxBatchDelay"))


def register(server: ContractServer, model: str, config: str, **parameters: object) -> str:
    """The status line of a registration with exactly these parameters."""
    pack(server.store, model, NOOP, config=config)
    answer = server.request("POST", "/models", "Management", params={"url": f"{model}.mar", **parameters})
    assert answer.status_code == 200, answer.text
    status: str = answer.json()["status"]
    return status


@check("model config", 1)
def test_a_model_brings_its_sizes(server: ContractServer) -> None:
    """Where the registration says nothing."""
    status = register(server, "sized", ALL)
    assert status == 'Model "sized" Version: 1.0 registered with 1 initial workers'
    assert sizes(server, "sized") == (1, 2, 4, 200)


@check("model config", 2)
@check("model config", 3)
def test_a_registration_against_the_model(server: ContractServer) -> None:
    """Wins for the batch, loses for the workers."""
    status = register(server, "asked", ALL, batch_size=2, initial_workers=3)
    assert status == 'Model "asked" Version: 1.0 registered with 1 initial workers'
    assert sizes(server, "asked") == (1, 2, 2, 200)


@check("model config", 4)
def test_half_a_number_of_workers_is_none(server: ContractServer) -> None:
    """`minWorkers` counts with `maxWorkers` only."""
    status = register(server, "half", "minWorkers: 1\n", initial_workers=0)
    assert status == (
        'Model "half" Version: 1.0 registered with 0 initial workers. '
        "Use scale workers API to add workers for the model."
    )


@check("model config", 5)
@fixed("model timeouts")
def test_timeouts_that_the_model_does_not_state(server: ContractServer) -> None:
    """Are the server's, though the model has a configuration."""
    register(server, "patient", "batchSize: 2\n")
    description = server.describe("patient")
    assert (description["responseTimeout"], description["startupTimeout"]) == (55, 120)


@check("model config", 6)
def test_a_queue_of_its_own(server: ContractServer) -> None:
    """As long as the model says."""
    register(server, "queued", "jobQueueSize: 9\n")
    assert server.describe("queued")["jobQueueStatus"]["remainingCapacity"] == 9


@check("model config", 7)
def test_a_gpu_where_there_is_none(server: ContractServer) -> None:
    """Is the CPU, and ids of GPUs are dropped with a warning."""
    register(server, "device", "deviceType: gpu\ndeviceIds: [0]\n")
    description = server.describe("device")
    assert description["deviceType"] == "cpu" and "deviceIds" not in description
    await_log(server, "Invalid deviceId:0, ignore deviceIds list")


@check("model config", 8)
@check("model config", 9)
def test_values_of_a_wrong_kind(server: ContractServer) -> None:
    """Each is ignored with a warning, the others count, the last of equal keys, octal numbers too."""
    wrong = {
        "minWorkers": "'2'",
        "maxWorkers": "2.0",
        "maxBatchDelay": "[1]",
        "startupTimeout": "99999999999",
        "responseTimeout": "0",
        "useJobTicket": "'true'",
        "clientTimeoutInMills": "1.5",
        "maxRetryTimeoutInSec": "null",
        "deviceIds": "a",
        "torchrun": "3",
        "jobQueueSize": "true",
    }
    text = "".join(f"{key}: {value}\n" for key, value in wrong.items())
    register(server, "odd", f"{text}batchSize: 3\nbatchSize: 010\ncontinuousBatching: yes\n")
    description = server.describe("odd")
    assert sizes(server, "odd") == (0, 0, 8, 100)
    assert description["startupTimeout"] == 120
    assert description["continuousBatching"] is True and description["useJobTicket"] is False
    assert description["jobQueueStatus"]["remainingCapacity"] == 100
    await_log(
        server,
        "Invalid minWorkers: 2, should be integer",
        "Invalid maxWorkers: 2.0, should be integer",
        "Invalid maxBatchDelay: [1], should be integer",
        "Invalid startupTimeout: 99999999999, should be integer",
        "Invalid responseTimeout:0",
        "Invalid useJobTicket: true, should be true or false",
        "Invalid clientTimeoutInMills: 1.5, should be positive long",
        "Invalid maxRetryTimeoutInMin: null, should be integer",
        "Invalid deviceIds: a, should be list of integer",
        "Invalid torchrun: 3, should be Torchrun parameters",
        "Invalid jobQueueSize: true, should be positive int",
    )


@check("model config", 8)
@fixed("misspelt options")
def test_warnings_name_the_file_and_the_key_that_was_meant(server: ContractServer) -> None:
    """Keys like nothing are the handler's, and nobody warns of them."""
    register(server, "misspelt", "batchsize: 3\nbatchSize: x\nhandler: {batchSize: 3}\nmodel_path: x\n")
    await_log(server, "Invalid batchSize: x")
    log = [line for line in server.log("ts_log.log").splitlines() if "of model misspelt 1.0" in line]
    assert [line.split(" - ", 1)[1] for line in log] == [
        "Unknown key batchsize: did you mean batchSize? (model-config.yaml of model misspelt 1.0)",
        "Invalid batchSize: x, should be integer (model-config.yaml of model misspelt 1.0)",
    ]


@check("model config", 10)
def test_sequences(server: ContractServer) -> None:
    """Their numbers are shown for models that have them."""
    names = ("sequenceMaxIdleMSec", "sequenceTimeoutMSec", "maxNumSequence", "maxSequenceJobQueueSize")
    register(server, "stateful", "sequenceBatching: true\nsequenceMaxIdleMSec: 10\nmaxNumSequence: 4\n")
    description = server.describe("stateful")
    assert description["stateful"] is True
    assert tuple(description[name] for name in names) == (10, 0, 4, 1)
    register(server, "stateless", "maxNumSequence: 4\n")
    description = server.describe("stateless")
    assert description["stateful"] is False
    assert tuple(description[name] for name in names) == (0, 0, 0, 0)


@check("model config", 16)
def test_handlers_get_the_whole_mapping(server: ContractServer) -> None:
    """Keys of the server included; nothing is an empty mapping."""
    with serving(server, "reader", READER, config="batchSize: 2\nhandler:\n  profile: false\nfree: [1, a]\n") as name:
        assert server.predict(name).json() == {"batchSize": 2, "handler": {"profile": False}, "free": [1, "a"]}
    with serving(server, "none", READER) as name:
        assert server.predict(name).json() == {}


@check("model config", 17)
@fixed("odd model configurations")
def test_an_empty_configuration(server: ContractServer) -> None:
    """Is like none."""
    with serving(server, "empty", READER, config="") as name:
        assert server.predict(name).json() == {}


@check("model config", 18)
@pytest.mark.parametrize(
    "text",
    ["a: [", "a:\n\tb: 2", pytest.param("- 1", marks=fixed("odd model configurations"))],
    ids=["open", "tab", "list"],
)
def test_a_broken_configuration(server: ContractServer, text: str, request: pytest.FixtureRequest) -> None:
    """Lets no worker start, and nothing stays of the model."""
    name = f"broken-{request.node.callspec.id}"
    pack(server.store, name, NOOP, config=text)
    answer = error(server.register(f"{name}.mar"))
    text = f"Failed to start workers for model {name} version: 1.0"
    assert answer == (500, "InternalServerException", text)
    assert server.status_of(name) == 404
    await_log(server, "Failed to parse model config file model-config.yaml")


@check("model config", 5)
@fixed("delay of 0")
def test_a_model_loaded_at_start_up(tmp_path: Path) -> None:
    """Brings its numbers likewise, before those of the server's file."""
    entry = {"minWorkers": 2, "maxWorkers": 2, "batchSize": 8, "maxBatchDelay": 0, "responseTimeout": 7}
    config = {"models": json.dumps({"m": {"1.0": entry}}), "default_startup_timeout": 66}
    server = make(tmp_path, startup=("m",), config=config)
    pack(server.store, "m", NOOP, config="minWorkers: 1\nmaxWorkers: 1\nbatchSize: 3\n")
    with server:
        assert sizes(server, "m") == (1, 1, 3, 0)
        description = server.describe("m")
        assert (description["responseTimeout"], description["startupTimeout"]) == (7, 66)
