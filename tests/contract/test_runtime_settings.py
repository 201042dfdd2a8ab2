"""Where the numbers of a model come from: the call that registers it, its own configuration, the server's."""

from __future__ import annotations

import pytest

from contract.server import ContractServer

fixed = pytest.mark.fixed
CONFIG = {"default_response_timeout": 44, "default_startup_timeout": 55, "job_queue_size": 66}


def test_an_explicit_batch_size_wins(server: ContractServer) -> None:
    """Over the one that the model brings; handlers are told the bound, not the length of a batch."""
    with server.model("sized", config="batchSize: 4\nmaxBatchDelay: 70\n", batch_size=8):
        description = server.describe("sized")
        assert (description["batchSize"], description["maxBatchDelay"]) == (8, 70)
        assert server.ask("sized", do="facts").json()["batch_size"] == 8


def test_the_workers_a_model_asks_for_win(server: ContractServer) -> None:
    """Over the number in the call."""
    with server.model("staffed", workers=1, config="minWorkers: 2\nmaxWorkers: 3\n"):
        description = server.describe("staffed")
        assert (description["minWorkers"], description["maxWorkers"]) == (2, 3)
        assert len(server.ready_workers("staffed")) == 2


def test_the_server_s_defaults(server: ContractServer) -> None:
    """Hold where nobody says otherwise."""
    with server.model("default"):
        description = server.describe("default")
        assert (description["responseTimeout"], description["startupTimeout"]) == (44, 55)
        assert (description["batchSize"], description["maxBatchDelay"]) == (1, 100)
        assert description["jobQueueStatus"] == {"remainingCapacity": 66, "pendingRequests": 0}


def test_the_timeouts_of_a_model(server: ContractServer) -> None:
    """Win over the call's and the server's."""
    with server.model("timed", config="responseTimeout: 3\nstartupTimeout: 9\n", response_timeout=7):
        description = server.describe("timed")
        assert (description["responseTimeout"], description["startupTimeout"]) == (3, 9)


@fixed("model timeouts")
def test_a_model_that_says_nothing_of_timeouts_overrides_none(server: ContractServer) -> None:
    """Even if it says other things."""
    with server.model("silent", config="maxWorkers: 1\n", response_timeout=7):
        description = server.describe("silent")
        assert (description["responseTimeout"], description["startupTimeout"]) == (7, 55)


def test_a_value_of_the_wrong_kind_is_ignored_aloud(server: ContractServer) -> None:
    """The log names key and value; the rest of the configuration counts."""
    with server.model("odd", config="batchSize: many\nresponseTimeout: 3\n"):
        description = server.describe("odd")
        assert (description["batchSize"], description["responseTimeout"]) == (1, 3)
        server.logs("ts_log.log", "Invalid batchSize: many, should be")
