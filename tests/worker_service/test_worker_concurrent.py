"""Asynchronous handlers: batches that run at once and must not see one another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workshop import KeepingChannel, batch, load, load_frame, request, write_model

from modelserver.wire.frames import DESCRIBE, EXPLAIN, INFER, Batch, Metrics, Replies, Request
from modelserver.worker.concurrent_service import BatchChannel, ConcurrentService

# Every order of a request is a line of Python; `gate` and `open` let batches wait for one another.
OBEDIENT = """
import asyncio
from collections import defaultdict
from ts.handler_utils.utils import send_intermediate_predict_response
from ts.utils.util import PredictionException

gates = defaultdict(asyncio.Event)


class Obedient:
    def initialize(self, context):
        self.loop = asyncio.get_event_loop().run_until_complete(self.find_loop())
        context.shared = ["shared"]
        context.uncopyable = (number for number in range(3))
        context.metrics.add_counter("Loaded", 1)

    async def find_loop(self):
        return asyncio.get_running_loop()

    async def handle(self, data, context):
        assert asyncio.get_running_loop() is self.loop
        results = []
        for index, row in enumerate(data):
            names = {**globals(), "context": context, "index": index, "row": row}
            names["send"] = lambda piece: send_intermediate_predict_response(
                [piece] * len(data), context.request_ids, "", 200, context
            )
            exec("async def run():\\n" + "\\n".join("    " + line for line in row["body"].splitlines()), names)
            results.append(await names["run"]())
        return results
"""


@pytest.fixture(autouse=True)
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """An event loop that does not run, as a worker finds it."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    yield made
    asyncio.set_event_loop(None)
    made.close()


@pytest.fixture
def channel() -> KeepingChannel:
    return KeepingChannel()


@pytest.fixture
def service(tmp_path: Path, channel: KeepingChannel) -> ConcurrentService:
    return made(tmp_path, OBEDIENT, channel)


def made(folder: Path, source: str, channel: KeepingChannel | None = None, **changes: Any) -> ConcurrentService:
    write_model(folder, {"h.py": source})
    return ConcurrentService.load(load_frame(folder, **changes), channel or KeepingChannel())


def run(service: ConcurrentService, *batches: Batch, channel: KeepingChannel | None = None) -> list[Replies]:
    """The answers to batches that run at once."""
    ways = [BatchChannel(channel or KeepingChannel()) for _ in batches]

    async def all_at_once() -> list[Replies]:
        return await asyncio.gather(*map(service.answer, batches, ways))

    return asyncio.get_event_loop_policy().get_event_loop().run_until_complete(all_at_once())


def order(number: int, *codes: str) -> Batch:
    """A batch of orders; their ids are the batch's number and letters."""
    requests = [request(code.encode(), "text/plain", id=f"{number}{'abcd'[i]}") for i, code in enumerate(codes)]
    return batch(*requests, id=number)


def bodies(replies: Replies) -> list[bytes]:
    assert replies.code == 200, (replies.message, replies.failure)
    return [reply.body for reply in replies.replies]


def test_each_batch_has_a_context_of_its_own(service: ConcurrentService) -> None:
    code = """
context.mine = row["body"]
context.set_response_header(index, "mine", context.request_ids[0])
context.set_response_status({status}, "", index)
await gates["g"].wait()
return [context.request_ids[0], context.get_request_id(), hasattr(context, "cl_socket")]"""
    other = 'gates["g"].set()\nreturn [hasattr(context, "mine"), context.shared]'
    answers = run(service, *(order(n, code.format(status=200 + n)) for n in (1, 2)), order(3, other))
    for number in (1, 2):
        (reply,) = answers[number - 1].replies
        assert json.loads(reply.body) == [f"{number}a", f"{number}a", True]
        assert (reply.status, reply.headers) == (200 + number, [("mine", f"{number}a")])
    assert json.loads(bodies(answers[2])[0]) == [False, ["shared"]]


def test_what_initialize_has_put_on_the_context_is_shared(service: ConcurrentService) -> None:
    """Even what cannot be copied."""
    code = "context.shared.append(index)\nreturn next(context.uncopyable)"
    answers = run(service, order(1, code), order(2, code))
    assert [bodies(answer) for answer in answers] == [[b"0"], [b"1"]]


def test_metrics_belong_to_their_own_batch(service: ConcurrentService, channel: KeepingChannel) -> None:
    code = 'context.metrics.add_counter("Seen", 1)\nawait gates["g"].wait()\ncontext.metrics.add_counter("Seen", 2)'
    aside = """
async def later():
    context.metrics.add_counter("Aside", 1)
gates["g"].set()
await asyncio.create_task(later())
await asyncio.to_thread(context.metrics.add_counter, "Thread", 1)"""
    first, second, third = run(service, order(1, code), order(2, code), order(3, aside))
    for answer, id in ((first, "1a"), (second, "2a")):
        found = [(metric.name, metric.value, metric.request_ids) for metric in answer.metrics]
        assert found[:2] == [("Seen", 1.0, id), ("Seen", 2.0, id)]
        assert [name for name, *_ in found[2:]] == ["PredictionTime"]
    assert [metric.name for metric in third.metrics] == ["Aside", "Thread", "PredictionTime"]
    (loaded,) = [frame for frame in channel.sent if isinstance(frame, Metrics)]
    assert [metric.name for metric in loaded.metrics] == ["Loaded"]


def test_metrics_behind_the_answer_are_not_lost(service: ConcurrentService) -> None:
    """A task of the handler may outlive its batch."""
    begin = """
async def later():
    await gates["g"].wait()
    context.metrics.add_counter("Late", 1)
    gates["done"].set()
globals()["task"] = asyncio.create_task(later())"""
    channel = KeepingChannel()
    run(service, order(1, begin), channel=channel)
    run(service, order(2, 'gates["g"].set()\nawait gates["done"].wait()'), channel=channel)
    (late,) = [frame for frame in channel.sent if isinstance(frame, Metrics)]
    assert [(metric.name, metric.request_ids) for metric in late.metrics] == [("Late", "1a")]


def test_pieces_go_to_their_own_batch(service: ConcurrentService) -> None:
    channel = KeepingChannel()
    code = 'send("one")\nawait gates["g"].wait()\nsend("two")\nreturn "end"'
    answers = run(service, order(1, code), order(2, code), order(3, 'gates["g"].set()'), channel=channel)
    for number in (1, 2):
        pieces = [reply.body for chunk in channel.chunks if chunk.batch == number for reply in chunk.replies]
        assert pieces == [b"one", b"two"]
        (reply,) = answers[number - 1].replies
        assert (reply.body, reply.streamed) == (b"end", True)


def test_a_failure_is_that_of_its_own_batch(service: ConcurrentService, caplog: pytest.LogCaptureFixture) -> None:
    bad = 'gates["g"].set()\nraise PredictionException("refused", 418)'
    good, refused = run(service, order(1, 'await gates["g"].wait()\nreturn "fine"'), order(2, bad))
    assert bodies(good) == [b"fine"]
    assert (refused.code, refused.message, refused.replies) == (418, "refused", [])
    assert "Prediction error" in caplog.text


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("raise ValueError('no')", (503, "Prediction failed")),
        ("raise asyncio.CancelledError", (503, "Prediction failed")),
        ("asyncio.current_task().cancel()\nawait asyncio.sleep(0)", (503, "Prediction failed")),
        ("raise MemoryError", (507, "Out of resources")),
        ("return object()", (503, "Unsupported model output data type.")),
    ],
)
def test_failures_have_the_answers_of_other_handlers(
    service: ConcurrentService, code: str, answer: tuple[int, str]
) -> None:
    (replies,) = run(service, order(1, code))
    assert (replies.code, replies.message) == answer


def test_a_result_of_another_kind_is_refused(tmp_path: Path) -> None:
    service = made(tmp_path, "async def handle(data, context):\n    return data and 'text'")
    (replies,) = run(service, batch())
    assert (replies.code, replies.message) == (503, "Invalid model predict output")


def test_the_clients_of_a_batch_may_leave(service: ConcurrentService) -> None:
    """The handler sees which, and goes on."""
    channel = BatchChannel(KeepingChannel())

    async def leave() -> Replies:
        code = 'await gates["g"].wait()\nreturn context.cancelled'
        task = asyncio.create_task(service.answer(order(1, code, "pass"), channel))
        await asyncio.sleep(0)
        channel.cancel(["1b"])
        await service.answer(order(2, 'gates["g"].set()'), BatchChannel(KeepingChannel()))
        return await task

    replies = asyncio.get_event_loop_policy().get_event_loop().run_until_complete(leave())
    assert json.loads(bodies(replies)[0]) == [False, True]


def test_handlers_that_are_no_coroutines_are_served_and_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = made(tmp_path, "def handle(data, context):\n    return data and ['plain'] * len(data)")
    assert [bodies(answer) for answer in run(service, batch(id=1), batch(id=2))] == [[b"plain"], [b"plain"]]
    assert caplog.text.count("asyncCommunication is true, but handle is no coroutine function") == 1


def test_a_coroutine_without_asynchronous_workers_is_refused_with_the_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And nobody complains that it was never awaited."""
    source = """
class Handler:
    def initialize(self, context):
        pass

    async def handle(self, data, context):
        return ["never"]
"""
    replies = load(tmp_path, source).handle(batch())
    assert (replies.code, replies.message) == (503, "Invalid model predict output")
    assert replies.failure is not None
    assert "set asyncCommunication: true in the model's configuration" in replies.failure.detail
    assert "set asyncCommunication: true" in caplog.text


@pytest.mark.parametrize("entry", ["function", "class"])
def test_loading_may_be_a_coroutine(tmp_path: Path, entry: str, caplog: pytest.LogCaptureFixture) -> None:
    """It runs before the first batch; other workers leave it out, and say what to do."""
    sources = {
        "function": """
import asyncio
loaded = []

async def handle(data, context):
    if data is None:
        await asyncio.sleep(0)
        loaded.append(asyncio.get_running_loop())
    return [str(loaded == [asyncio.get_running_loop()])]
""",
        "class": """
import asyncio

class Handler:
    async def initialize(self, context):
        await asyncio.sleep(0)
        self.loop = asyncio.get_running_loop()

    async def handle(self, data, context):
        return [str(self.loop is asyncio.get_running_loop())]
""",
    }
    (answer,) = run(made(tmp_path, sources[entry]), batch())
    assert bodies(answer) == [b"True"]
    load(tmp_path, sources[entry])
    assert "did not run: set asyncCommunication: true in the model's configuration" in caplog.text


def test_describe_and_explain_travel_as_ever(service: ConcurrentService) -> None:
    describe = Request("1a", [], [], {"describe": "True"})
    source = 'return [context.get_request_header(0, name) for name in ("describe", "explain")]'
    explain = request(source.encode(), "text/plain", extra={"explain": "True"})
    (answer,) = run(service, batch(explain, kind=EXPLAIN))
    assert json.loads(bodies(answer)[0]) == [None, "True"]
    (refused,) = run(service, batch(describe, kind=DESCRIBE))
    assert refused.code == 503, "this handler reads a body"


@pytest.mark.parametrize("envelope", ["json", "body"])
def test_envelopes_hold_coroutines(tmp_path: Path, envelope: str) -> None:
    """Which wait for one another, so their envelopes do too."""
    source = """
import asyncio


class Handler:
    def initialize(self, context):
        self.here = []

    async def handle(self, data, context):
        context.metrics.add_counter("Enveloped", 1)
        self.here.append(context.request_ids[0])
        while len(self.here) < 2:
            await asyncio.sleep(0)
        return [context.request_ids[0] for _ in data]
"""
    service = made(tmp_path, source, envelope=envelope)
    batches = [batch(request(b'{"instances": [1, 2]}', "application/json", id=f"{n}a"), id=n) for n in (1, 2)]
    answers = run(service, *batches)
    if envelope == "json":
        assert [json.loads(bodies(answer)[0]) for answer in answers] == [
            {"predictions": [f"{number}a"] * 2} for number in (1, 2)
        ]
    for answer in answers:
        assert [metric.name for metric in answer.metrics] == ["Enveloped", "PredictionTime"]


def test_open_inference_is_translated(tmp_path: Path) -> None:
    """A request that cannot be read fails alone."""
    source = """
class Handler:
    def initialize(self, context):
        pass

    async def handle(self, data, context):
        return [{"seen": row["body"]["inputs"][0]["data"]} for row in data]
"""
    service = made(tmp_path, source)
    good = json.dumps({"inputs": [{"name": "x", "shape": [2], "datatype": "INT64", "data": [1, 2]}]}).encode()
    headers = [(b"Inference-Header-Content-Length", b"999999")]
    requests = [
        request(good, "application/json", id="a"),
        request(good, "application/json", id="b", headers=headers),
    ]
    (replies,) = run(service, batch(*requests, kind=INFER))
    assert (replies.code, replies.failed) == (200, [1])
    assert json.loads(replies.replies[0].body) == {"seen": [1, 2]}
    assert replies.replies[1].status == 400
    assert [metric.name for metric in replies.metrics] == ["PredictionTime"]
    (unseen,) = run(service, batch(requests[1], kind=INFER))
    assert (unseen.failed, unseen.metrics) == ([0], []), "no batch of the handler's is counted"
