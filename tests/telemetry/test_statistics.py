"""What the statistics extension of Open Inference tells, counted from the records of requests and batches."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from telemetry_served import NOON, WORKER, Served, prediction_time

from modelserver.telemetry.records import BEGUN, ENDED
from modelserver.wire.frames import Metric

NOTHING = {"count": 0, "ns": 0}
OTHER_WORKER = "W-9001-probe_2.0"
MS = 1_000_000  # ns


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path, ts_open_inference_protocol=True) as served:
        served.telemetry.versions_changed("probe", ["1.0", "2.0"], "1.0")
        yield served


def everything(served: Served) -> dict[tuple[str, str], Any]:
    return dict(asyncio.run(served.telemetry.statistics()))


def told(served: Served, version: str = "1.0") -> Any:
    return everything(served)["probe", version]


def outcome(served: Served, version: str = "1.0") -> tuple[int, int]:
    """How many requests have succeeded and failed."""
    stats = told(served, version)["inference_stats"]
    return stats["success"]["count"], stats["fail"]["count"]


def request(
    served: Served,
    status: int = 200,
    method: str = "POST",
    worker: str = WORKER,
    label: str = "default",
    replied: float = 0.1875,
    ok: bool = False,
    received: float = 0.0,
) -> None:
    """A prediction sent 0.125 s after its arrival, and answered after 0.25 s."""
    served.telemetry.request_done(
        "/127.0.0.1:43288", method, "/predictions/probe", "HTTP/1.1", status, received, received + 0.25,
        worker, "probe", label, "id", received + 0.125 if worker else 0.0, replied, ok,
    )  # fmt: skip


def test_a_version_that_has_done_nothing(served: Served) -> None:
    times = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")
    idle = {
        "last_inference": 0,
        "inference_count": 0,
        "execution_count": 0,
        "inference_stats": dict.fromkeys(times, NOTHING),
        "batch_stats": [],
    }
    assert everything(served) == {("probe", "1.0"): idle, ("probe", "2.0"): idle}


def test_one_prediction(served: Served) -> None:
    """Received at 0 s, sent at 0.125 s, answered at 0.25 s; the handler took 0.35 ms."""
    served.batch("a", metrics=[prediction_time("a")])
    served.predict("a")
    stats = told(served)
    infer = {"count": 1, "ns": 350_000}
    assert stats == {
        "last_inference": int(NOON * 1000),
        "inference_count": 1,
        "execution_count": 1,
        "inference_stats": {
            "success": {"count": 1, "ns": 250 * MS},
            "fail": NOTHING,
            "queue": {"count": 1, "ns": 125 * MS},
            "compute_input": NOTHING,
            "compute_infer": infer,
            "compute_output": NOTHING,
            "cache_hit": NOTHING,
            "cache_miss": NOTHING,
        },
        "batch_stats": [{"batch_size": 1, "compute_input": NOTHING, "compute_infer": infer, "compute_output": NOTHING}],
    }


def test_batches_by_size(served: Served) -> None:
    """Every request of a batch has the time of the whole batch, a batch has it once."""
    for ids, milliseconds in ((["a", "b", "c"], 2.0), (["d"], 5.0), (["e", "f", "g"], 4.0)):
        served.batch(*ids, metrics=[prediction_time(value=milliseconds)])
    stats = told(served)
    assert [(batch["batch_size"], batch["compute_infer"]) for batch in stats["batch_stats"]] == [
        (1, {"count": 1, "ns": 5 * MS}),
        (3, {"count": 2, "ns": 6 * MS}),
    ]
    assert stats["inference_stats"]["compute_infer"] == {"count": 7, "ns": 23 * MS}
    assert (stats["execution_count"], stats["inference_count"]) == (3, 0)


def test_batches_that_the_handler_failed_on_are_no_executions(served: Served) -> None:
    served.batch("a")
    served.batch("b", metrics=[Metric("Other", "ms", 1.0, [("ModelName", "probe")], "GAUGE", "b")])
    assert told(served)["execution_count"] == 0


@pytest.mark.parametrize(
    ("method", "status", "ok", "expected"),
    [
        ("POST", 200, True, (1, 0)),
        ("POST", 418, True, (1, 0)),  # the handler's own
        ("POST", 400, False, (0, 1)),
        ("POST", 503, False, (0, 1)),
        ("POST", 0, False, (0, 1)),  # the client has left
        ("POST", ENDED, True, (1, 0)),
        ("POST", ENDED, False, (0, 1)),
        ("gRPC", 0, True, (1, 0)),
        ("gRPC", 13, False, (0, 1)),
        ("", 0, True, (1, 0)),  # one of a stream of requests
        ("", 0, False, (0, 1)),
    ],
)
def test_success_and_failure(served: Served, method: str, status: int, ok: bool, expected: tuple[int, int]) -> None:
    request(served, status, method, ok=ok)
    assert outcome(served) == expected
    stats = told(served)["inference_stats"]
    assert stats["success" if ok else "fail"]["ns"] == 250 * MS
    assert stats["queue"]["count"] == expected[0]


@pytest.mark.parametrize("status", [200, 418, 503])
@pytest.mark.parametrize("ok", [True, False])
def test_a_response_in_pieces_counts_when_it_ends(served: Served, status: int, ok: bool) -> None:
    """Once, whatever status the handler has chosen."""
    request(served, status, replied=BEGUN)
    assert outcome(served) == (0, 0)
    request(served, ENDED, ok=ok)
    assert outcome(served) == ((1, 0) if ok else (0, 1))


def test_the_latest_request_counts_whatever_became_of_it(served: Served) -> None:
    request(served, 200, ok=True, received=5.0)
    request(served, 503, received=7.5)
    request(served, 200, ok=True, received=6.0)
    assert told(served)["last_inference"] == int((NOON + 7.5) * 1000)


def test_requests_that_no_worker_got_belong_to_the_version_that_was_asked_for(served: Served) -> None:
    request(served, 503, worker="")
    request(served, 503, worker="", label="2.0")
    assert (outcome(served), outcome(served, "2.0")) == ((0, 1), (0, 1))
    served.telemetry.versions_changed("probe", ["1.0", "2.0"], "2.0")
    request(served, 503, worker="")
    assert (outcome(served), outcome(served, "2.0")) == ((0, 1), (0, 2))


def test_requests_of_a_worker_belong_to_its_version(served: Served) -> None:
    request(served, ok=True, worker=OTHER_WORKER)
    assert (outcome(served), outcome(served, "2.0")) == ((0, 0), (1, 0))


def test_counts_go_with_their_version(served: Served) -> None:
    for worker in (WORKER, OTHER_WORKER):
        request(served, ok=True, worker=worker)
    served.telemetry.versions_changed("probe", ["1.0"], "1.0")
    request(served, ok=True, worker=OTHER_WORKER)  # which its worker still had
    served.batch("a", metrics=[prediction_time("a")])
    assert list(everything(served)) == [("probe", "1.0")]
    assert outcome(served) == (1, 0)
    served.telemetry.versions_changed("probe", ["1.0", "2.0"], "1.0")
    assert (outcome(served), outcome(served, "2.0")) == ((1, 0), (0, 0))
    served.telemetry.versions_changed("probe", [], "")
    assert everything(served) == {}


def test_more_workers_than_are_remembered(served: Served) -> None:
    for number in range(5000):
        request(served, ok=True, worker=f"W-{number}-probe_1.0")
    assert outcome(served) == (5000, 0)


def test_other_requests_do_not_count(served: Served) -> None:
    served.get()
    served.get("/v2/models/stats", 404)
    assert outcome(served) == (0, 0)


def test_nothing_is_kept_where_it_is_not_switched_on(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.telemetry.versions_changed("probe", ["1.0"], "1.0")
        served.batch("a", metrics=[prediction_time("a")])
        served.predict("a")
        assert everything(served) == {}
        assert not any("could not be written" in line for line in served.stdout())


def test_whoever_asks_late_or_leaves_early_does_no_harm(served: Served) -> None:
    async def leave() -> None:
        asking = asyncio.ensure_future(served.telemetry.statistics())
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])

    asyncio.run(leave())
    assert outcome(served) == (0, 0)
    served.telemetry.close()
    assert everything(served) == {}


def test_the_answer_is_a_copy(served: Served) -> None:
    """Made in the writer's thread, and not changed by what comes later."""
    before = told(served)
    request(served, ok=True)
    assert outcome(served) == (1, 0)
    assert before["inference_stats"]["success"] == NOTHING
