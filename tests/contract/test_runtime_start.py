"""What a worker is from outside: an id, a process, a working directory, an environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from contract.server import ContractServer

check = pytest.mark.check
CONFIG = {"blacklist_env_vars": ".*SECRET.*|FOO"}
ENVIRONMENT = {"MY_SECRET_X": "1", "FOO": "1", "FOOBAR": "1"}


@check("runtime", 1)
def test_the_first_worker_of_a_server_is_9000(start_server: Callable[..., ContractServer]) -> None:
    """Registered synchronously it is READY at once, and its pid is a live process that names its socket."""
    server = start_server()
    with server.model("first"):
        (worker,) = server.workers("first")
        assert (worker["id"], worker["status"]) == ("9000", "READY")
        words = " ".join(psutil.Process(worker["pid"]).cmdline()).split()
        assert any(word.startswith(str(server.temp)) and Path(word).is_socket() for word in words)
        assert worker["pid"] in [process.pid for process in server.tree()]


@check("runtime", 2)
def test_worker_ids_count_up_for_ever(server: ContractServer) -> None:
    """Over all models, also after a model is unregistered and registered again."""
    with server.model("one"), server.model("two"):
        first, second = (int(server.workers(model)[0]["id"]) for model in ("one", "two"))
        assert second == first + 1
        assert server.delete("two").status_code == 200
        assert server.register("two.mar").status_code == 200
        assert int(server.workers("two")[0]["id"]) == first + 2


@check("runtime", 3)
def test_a_worker_lives_in_its_model_directory(server: ContractServer) -> None:
    """It is the working directory and on PYTHONPATH."""
    with server.model("home"):
        facts = server.ask("home", do="facts").json()
    directory = Path(facts["model_dir"])
    assert directory.parent == server.temp / "models"
    assert Path(facts["cwd"]) == directory
    assert str(directory) in facts["environment"]["PYTHONPATH"].split(":")


@check("runtime", 3)
def test_listed_variables_stay_away_from_workers(server: ContractServer) -> None:
    """The pattern has to match a whole name."""
    with server.model("blind"):
        environment = server.ask("blind", do="facts").json()["environment"]
    assert "FOOBAR" in environment
    assert not {"FOO", "MY_SECRET_X"} & set(environment)


def test_workers_are_told_how_to_decode(server: ContractServer) -> None:
    """By variables that handlers of old read."""
    with server.model("told"):
        environment = server.ask("told", do="facts").json()["environment"]
    names = ("TS_DECODE_INPUT_REQUEST", "TS_IPEX_ENABLE", "TS_IPEX_GPU_ENABLE")
    assert [environment.get(name) for name in names] == ["true", "false", "false"]


def test_the_log_tells_the_start_of_a_worker_in_order(server: ContractServer) -> None:
    """Command line, state changes and the load command."""
    with server.model("traced"):
        (worker,) = server.workers("traced")
        server.logged(
            worker["id"],
            r"^Worker cmdline: \[.+\]$",
            rf"^W-{worker['id']}-traced_1\.0 State change null -> WORKER_STARTED$",
            r"^Flushing req\.cmd LOAD repeats 1 to backend at: \d{13}$",
            rf"^W-{worker['id']}-traced_1\.0 State change WORKER_STARTED -> WORKER_MODEL_LOADED$",
        )
