"""More workers, fewer workers, none, and models that go."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psutil
import pytest

from contract.server import NOT_ACCEPTING, ContractServer
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed


@check("runtime", 17)
def test_scaling_up_waits_for_the_new_worker(server: ContractServer) -> None:
    """When asked to be synchronous."""
    with server.model("grown"):
        answer = server.scale("grown", 2)
        assert (answer.status_code, answer.json()["status"]) == (200, "Workers scaled to 2 for model: grown")
        assert len(server.ready_workers("grown")) == 2


@check("runtime", 17)
@fixed("scaling down")
def test_scaling_down_lets_running_work_finish(server: ContractServer) -> None:
    """Both clients are answered, and each request ran once."""
    with server.model("shrunk", workers=2):
        calls = [server.occupy("shrunk", name, "shrunk") for name in ("a", "b")]
        assert server.rescale("shrunk", min_worker=1).status_code == 202
        server.open("shrunk")
        assert [(call.result().status_code, call.result().text) for call in calls] == [(200, "a"), (200, "b")]
        assert sorted(server.batches("shrunk")) == [["a"], ["b"]]
        eventually(lambda: len(server.workers("shrunk")) == 1)


@check("runtime", 17)
@fixed("scaling down")
def test_scaling_to_none_keeps_the_queue(server: ContractServer) -> None:
    """The running request is answered, new ones are refused, a queued one is served when there is a worker again."""
    with server.model("paused"):
        running = server.occupy("paused", "running", "paused")
        queued = server.ask_aside("paused", id="queued")
        server.await_queue("paused", 1)
        assert server.rescale("paused", min_worker=0).status_code == 202
        assert server.ask("paused", id="new").status_code == 503
        server.open("paused")
        assert running.result().text == "running"
        eventually(lambda: not server.workers("paused"))
        assert not queued.done()
        assert server.scale("paused", 1).status_code == 200
        assert queued.result().text == "queued"


@check("runtime", 18)
def test_a_number_between_the_bounds_stays(server: ContractServer) -> None:
    """Only too many workers are removed, the newest first."""
    with server.model("bounded", workers=3):
        before = server.ready("bounded", 3)
        assert server.scale("bounded", 1, max_worker=3).status_code == 200
        assert [worker["pid"] for worker in server.ready_workers("bounded")] == [worker["pid"] for worker in before]
        assert server.scale("bounded", 1, max_worker=2).status_code == 200
        assert [worker["id"] for worker in server.workers("bounded")] == [worker["id"] for worker in before[:2]]
        eventually(lambda: not psutil.pid_exists(before[2]["pid"]))


@check("runtime", 19)
def test_bounds_that_contradict_each_other_are_refused(server: ContractServer) -> None:
    """With the text that clients know."""
    with server.model("sound"):
        answer = server.rescale("sound", min_worker=2, max_worker=1)
        assert (answer.status_code, answer.json()["type"]) == (400, "BadRequestException")
        assert answer.json()["message"] == "max_worker cannot be less than min_worker."


@check("runtime", 19)
@fixed("negative minimum")
def test_a_negative_minimum_changes_nothing(server: ContractServer) -> None:
    """It is an error of the server's kind, as TorchServe's clients expect."""
    with server.model("steady"):
        (before,) = server.workers("steady")
        assert server.rescale("steady", min_worker=-1).status_code == 500
        description = server.describe("steady")
        assert (description["minWorkers"], description["maxWorkers"]) == (1, 1)
        assert [worker["pid"] for worker in server.ready_workers("steady")] == [before["pid"]]


@check("runtime", 20)
@fixed("unregistering")
def test_an_unregistered_model_finishes_what_it_accepted(server: ContractServer) -> None:
    """It is gone for new requests at once, and its name is free."""
    server.prepare("leaving")
    assert server.register("leaving.mar").status_code == 200
    calls = [server.occupy("leaving", "running", "leaving"), server.ask_aside("leaving", id="queued")]
    server.await_queue("leaving", 1)
    assert server.delete("leaving").json() == {"status": 'Model "leaving" unregistered'}
    assert not calls[0].done(), "the answer to DELETE does not wait"
    assert server.ask("leaving").status_code == 404
    assert server.register("leaving.mar").status_code == 200
    server.open("leaving")
    assert [(call.result().status_code, call.result().text) for call in calls] == [(200, "running"), (200, "queued")]
    assert server.delete("leaving").status_code == 200


@check("runtime", 20)
@fixed("unregistering")
def test_without_drain_timeout_an_unregistered_model_gives_up_at_once(
    start_server: Callable[..., ContractServer],
) -> None:
    """The running request gets 500, the queued one 503."""
    server = start_server(config={"drain_timeout": 0})
    with server.model("cut"):
        running, queued = server.occupy("cut", "running", "cut"), server.ask_aside("cut", id="queued")
        server.await_queue("cut", 1)
        assert server.delete("cut").status_code == 200
        assert (running.result().status_code, running.result().json()["message"]) == (500, "Worker died.")
        refused = queued.result()
        assert (refused.status_code, refused.json()["message"]) == (503, NOT_ACCEPTING.format("cut"))


@check("runtime", 21)
@pytest.mark.parametrize(
    ("starting", "status"),
    [
        ("raise", 500),
        ("exit", 500),
        pytest.param("kill", 507, marks=fixed("signal 9")),
        pytest.param("runtime-error", 500, marks=fixed("failed registration")),
        pytest.param("memory", 507, marks=fixed("failed registration")),
        pytest.param("cuda", 507, marks=fixed("failed registration")),
    ],
)
def test_a_failed_registration_leaves_nothing(server: ContractServer, starting: str, status: int) -> None:
    """Whatever the cause."""
    server.prepare(f"failed-{starting}", starting=starting)
    answer = server.register(f"failed-{starting}.mar")
    body = answer.json()
    assert (answer.status_code, body["type"]) == (status, "InternalServerException")
    assert body["message"] == f"Failed to start workers for model failed-{starting} version: 1.0"
    assert server.status_of(f"failed-{starting}") == 404


@check("runtime", 21)
@fixed("failed registration")
def test_a_registration_that_timed_out_leaves_nothing(server: ContractServer) -> None:
    """Neither name nor process."""
    server.prepare("stuck", starting="hang")
    before = {process.pid for process in server.tree()}
    assert server.register("stuck.mar", startup_timeout=1).status_code == 500
    assert server.status_of("stuck") == 404
    with suppress(psutil.NoSuchProcess):
        eventually(lambda: {process.pid for process in server.tree()} <= before)


def test_a_worker_that_fails_while_scaling_up_is_told(server: ContractServer) -> None:
    """The version is called null when none was named, and the good workers stay."""
    with server.model("halfway"):
        (server.record / "halfway.initialize").write_text("runtime-error")
        answer = server.scale("halfway", 2)
        assert (answer.status_code, answer.json()["message"]) == (
            500,
            "Failed to start workers for model halfway version: null",
        )
        assert len(server.ready_workers("halfway")) == 1
        assert len(server.workers("halfway")) == 2
        assert server.describe("halfway")["minWorkers"] == 2
