"""Calls from grpcio's side to the engine's and back, without either."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc
import pytest
from rpc_doubles import TOO_LARGE, Lock, MemoryContext, Port, until

from harness.stubs import message
from modelserver.engine.job import Chunks, Job, Membership, Overrun
from modelserver.errors import Cause, Certificate, RequestTimeout, ServerError, ServiceUnavailable, WorkerError
from modelserver.rpc.call import remote_of
from modelserver.rpc.messages import PredictionResponse
from modelserver.wire.frames import Reply

Code = grpc.StatusCode
STANDARD = "/inference.GRPCInferenceService"


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def request(model: str = "m", version: str = "", sequence: str | None = None, **inputs: bytes) -> bytes:
    fields = {"model_name": model, "model_version": version, "sequence_id": sequence, "input": inputs}
    data: bytes = message("PredictionsRequest", **fields).SerializeToString()
    return data


def infer_request() -> bytes:
    data: bytes = message("ModelInferRequest", model_name="m", raw_input_contents=[b"x"]).SerializeToString()
    return data


def bodies(context: MemoryContext) -> list[bytes]:
    return [PredictionResponse.FromString(data).prediction for data in context.written]


def streamed(job: Job, *pieces: bytes, error: ServerError | Overrun | None = None) -> Reply:
    """The first piece of an answer whose others are there already."""
    job.chunks = Chunks()
    for piece in pieces:
        job.chunks.put(piece)
    if error is None:
        job.chunks.end()
    else:
        job.chunks.fail(error)
    return Reply(0, b"first")


def test_a_prediction_is_a_job() -> None:
    async def scene() -> None:
        port = Port()
        context = await port.call("Predictions", request(version="2.0", data=b"x"), left=7.0)
        (job,) = port.engine.jobs
        assert bodies(context) == [b"ok"] and context.ended is None
        assert [(part.name, part.mime, part.value) for part in job.request.parts] == [("data", "", b"x")]
        assert (job.model, job.label, job.size, job.timeout) == ("m", "2.0", 1, 7.0)
        assert job.request.headers == [] and job.request.extra == {}
        assert port.engine.versions == ["2.0"] and not port.engine.cancelled
        ((remote, method, target, version, code, *_, ok),) = port.telemetry.records
        assert (remote, method, version, code, ok) == ("/127.0.0.1:1234", "gRPC", "HTTP/2.0", 0, True)
        assert target == "org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"

    run(scene())


def test_a_call_says_its_sequence_and_learns_it_from_stateful_models() -> None:
    async def scene() -> None:
        port = Port()
        sequences = []
        for stateful in (False, True):
            for method in ("Predictions", "StreamPredictions"):

                def answer(job: Job, stateful: bool = stateful) -> Reply:
                    if stateful:  # as its version tells the handler
                        job.request.extra = {"ts_request_sequence_id": "s"}
                    return streamed(job, b"second")

                port.engine.answer = answer
                context = await port.call(method, request(sequence="s"))
                sequences.append([PredictionResponse.FromString(data).sequence_id for data in context.written])
        assert sequences == [[""], ["", ""], ["s"], ["s", "s"]]
        assert [job.sequence for job in port.engine.jobs] == [Membership("s")] * 4
        await port.call("Predictions", request())
        assert port.engine.jobs[-1].sequence is None

    run(scene())


def test_a_message_of_a_conversation_says_its_sequence() -> None:
    async def scene() -> None:
        port = Port()
        port.engine.answer = lambda job: None
        start, end = "ts_request_sequence_start", "ts_request_sequence_end"
        marked = {start: b"true", end: b"TRUE"}
        messages = [request("m", "", "s", **marked), request("m", "", None, **{start: b"True"})]
        call = port.begin("StreamPredictions2", MemoryContext(*messages, None))
        await until(lambda: len(port.engine.jobs) == 2)
        given, made = (job.sequence for job in port.engine.jobs)
        assert given == Membership("s", end=True), "it is no start, which is for the server to say"
        assert made is not None and made.start and made.id.startswith("ts-seq-")
        assert port.engine.jobs[1].request.extra == {"ts_request_sequence_id": made.id, start: "true"}
        call.cancel()
        await asyncio.wait([call])

    run(scene())


def test_a_call_without_deadline_waits_without_limit() -> None:
    async def scene() -> None:
        port = Port()
        await port.call("Predictions", request())
        await port.call("Predictions", request(), left=0.0)
        assert port.engine.jobs[0].timeout == 0 and port.engine.jobs[1].timeout > 0

    run(scene())


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions", "StreamPredictions2", "Ping"])
def test_messages_that_grpcio_refuses(method: str) -> None:
    async def scene() -> None:
        port = Port()
        await port.call(method, TOO_LARGE)
        assert port.telemetry.codes == [8] and not port.engine.jobs and not port.telemetry.lines
        assert port.telemetry.records[0][0] == "/127.0.0.1:1234"

    run(scene())


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (WorkerError(503, "no"), Code.UNAVAILABLE, "no\norg.pytorch.serve.http.InternalServerException"),
        (RequestTimeout("late"), Code.DEADLINE_EXCEEDED, "late\norg.pytorch.serve.http.RequestTimeoutException"),
    ],
)
def test_failed_jobs(error: ServerError, code: grpc.StatusCode, text: str) -> None:
    async def scene() -> None:
        port = Port()
        port.engine.answer = lambda job: error
        for method in ("Predictions", "StreamPredictions"):
            context = await port.call(method, request())
            assert context.ended == (code, text) and not context.written
        assert port.telemetry.codes == [code.value[0]] * 2
        assert [facts[8] for facts in port.telemetry.records] == ["m", "m"], "the model of accepted jobs is told"

    run(scene())


def test_refused_jobs_count_where_the_model_exists() -> None:
    async def scene() -> None:
        port = Port()
        port.engine.refusal = ServiceUnavailable("full", certificate=Certificate(Cause.QUEUE_FULL, ""))
        context = await port.call("Predictions", request())
        assert context.ended == (Code.INTERNAL, "full\nInternalServerException.()")
        await port.call("Predictions", request("nope"))
        assert [facts[8:9] for facts in port.telemetry.records] == [("m",), ()]

    run(scene())


def test_pieces() -> None:
    async def scene() -> None:
        port = Port()
        port.engine.answer = lambda job: streamed(job, b"second", b"")
        assert bodies(await port.call("StreamPredictions", request())) == [b"first", b"second", b""]
        assert bodies(await port.call("Predictions", request())) == [b"firstsecond"]
        context = await port.call("StreamPredictions2", request(sequence="s"))
        assert bodies(context) == [b"first", b"second", b""]
        assert not port.engine.cancelled

    run(scene())


@pytest.mark.parametrize("error", [WorkerError(500, "broken"), Overrun("far behind")])
def test_pieces_that_break_off(error: ServerError | Overrun) -> None:
    async def scene() -> None:
        port = Port()
        port.engine.answer = lambda job: streamed(job, b"second", error=error)
        context = await port.call("StreamPredictions", request())
        assert bodies(context) == [b"first", b"second"]
        assert context.ended is not None and context.ended[0] is Code.INTERNAL
        context = await port.call("StreamPredictions2", request(sequence="s"))
        assert bodies(context) == [b"first", b"second", b""]
        assert PredictionResponse.FromString(context.written[-1]).status.code == 13

    run(scene())


def test_an_answer_in_one_is_bounded() -> None:
    async def scene() -> None:
        port = Port(max_response_size=10)
        port.engine.answer = lambda job: streamed(job, b"second")
        context = await port.call("Predictions", request())
        assert context.ended is not None and "exceeds max_response_size of 10 bytes" in context.ended[1]
        assert port.engine.cancelled == port.engine.jobs, "nobody wants the rest"

    run(scene())


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions", "StreamPredictions2"])
def test_a_client_that_leaves_takes_its_job_along(method: str) -> None:
    async def scene() -> None:
        port = Port()
        port.engine.answer = lambda job: None
        call = port.begin(method, MemoryContext(request(sequence="s"), None))
        await until(lambda: port.engine.jobs)
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await until(lambda: port.engine.cancelled == port.engine.jobs)
        assert port.telemetry.codes == [1] and port.board.owed == 0
        assert port.telemetry.lines == [("WARN", "grpcimpl.InferenceImpl", "grpc client call already cancelled")]

    run(scene())


METHODS = [
    "Predictions",
    "StreamPredictions",
    "StreamPredictions2",
    f"{STANDARD}/ModelInfer",
    f"{STANDARD}/ModelStreamInfer",
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ending", ["the client leaves", "the server ends"])
def test_the_end_at_any_moment(method: str, ending: str) -> None:
    """Whatever a call waits for: it is recorded once, and no job of it goes on."""

    async def scene(turns: int) -> bool:
        port = Port(ts_open_inference_protocol=True)
        sent = infer_request() if "Infer" in method else request(sequence="s")
        context = Lingering(sent, sent)  # of which most methods read the first one only
        call = port.begin(method, context)
        for _ in range(turns):
            await asyncio.sleep(0)
        early = not call.done()
        if ending == "the client leaves":
            call.cancel()
        else:
            port.board.cut()
        await asyncio.wait([call])
        for _ in range(10):
            await asyncio.sleep(0)
        assert port.board.owed == 0
        assert len(port.telemetry.codes) == 1 or turns == 0, "a call that was cancelled before it began is none"
        assert all(job in port.engine.cancelled or job.reply is not None for job in port.engine.jobs)
        if early and ending == "the server ends" and turns:
            assert call.exception() is None and context.ended == (Code.UNAVAILABLE, "The server is stopping.")
        return early

    turns = 0
    while asyncio.run(scene(turns)):
        turns += 1
    assert turns > 3


class Lingering(MemoryContext):
    """Every read and every write takes a while."""

    async def read(self) -> Any:
        await asyncio.sleep(0)
        return await super().read()

    async def write(self, message: bytes) -> None:
        await asyncio.sleep(0)
        await super().write(message)


def test_a_message_of_a_conversation_that_ends_at_once_is_withdrawn() -> None:
    """Its job is queued, but nobody has begun to wait for it."""

    async def scene() -> None:
        port = Port()
        port.engine.answer = lambda job: None
        context = await port.call("StreamPredictions2", request(sequence="s"), b"\xff")
        assert context.ended is not None and context.ended[0] is Code.INVALID_ARGUMENT
        await until(lambda: port.engine.cancelled)
        assert port.engine.cancelled == port.engine.jobs

    run(scene())


def test_the_end_of_the_server_cuts_calls() -> None:
    async def scene() -> None:
        port = Port()
        port.engine.answer = lambda job: None
        contexts = [MemoryContext(request()), MemoryContext(None)]
        calls = [port.begin("Predictions", contexts[0]), port.begin("StreamPredictions2", contexts[1])]
        await until(lambda: port.engine.jobs)
        assert port.board.owed == 2
        port.board.cut()
        await asyncio.wait(calls)
        assert [context.ended for context in contexts] == [(Code.UNAVAILABLE, "The server is stopping.")] * 2
        assert not any(call.exception() for call in calls)
        assert port.telemetry.codes == [14, 14] and port.engine.cancelled == port.engine.jobs

    run(scene())


def test_keys_are_asked_for_before_a_message_is_read() -> None:
    async def scene() -> None:
        lock = Lock(b"word")
        port = Port(lock=lock)
        context = await port.call("Predictions", request(), metadata=[("authorization", "wrong")])
        assert (context.ended, context.reads) == ((Code.PERMISSION_DENIED, "no"), 0)
        shown = [("authorization", "wrong"), ("authorization", "word")]
        assert bodies(await port.call("Predictions", request(), metadata=shown)) == [b"ok"]
        assert lock.kinds == ["inference"] and port.telemetry.codes == [7, 0]
        assert (await port.call("Ping", b"")).ended is not None
        assert (await Port(lock=lock, ping_without_token=True).call("Ping", b"")).ended is None

    run(scene())


@pytest.mark.parametrize("method", ["Ping", "Predictions", "StreamPredictions"])
def test_a_call_without_message(method: str) -> None:
    async def scene() -> None:
        context = await Port().call(method)
        assert context.ended is not None and context.ended[0] is Code.INVALID_ARGUMENT

    run(scene())


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions", "StreamPredictions2"])
def test_nonsense(method: str) -> None:
    async def scene() -> None:
        port = Port()
        for data in (b"\xff", b"\x0a\x05m", b"\x0a\x01\xff"):
            context = await port.call(method, data)
            assert context.ended is not None and context.ended[0] is Code.INVALID_ARGUMENT
        assert not port.engine.jobs

    run(scene())


def test_a_fault_of_ours_is_told_and_logged() -> None:
    async def scene() -> None:
        port = Port()

        def stumble(job: Job) -> None:
            raise KeyError("no")

        port.engine.answer = stumble
        context = await port.call("Predictions", request())
        assert context.ended is not None and context.ended[0] is Code.INTERNAL
        ((level, _, text),) = port.telemetry.lines
        assert level == "ERROR" and "KeyError" in text

    run(scene())


def test_ping() -> None:
    async def scene() -> None:
        port = Port()
        assert (await port.call("Ping", b"")).written == [b'\n\x19{\n  "status": "Healthy"\n}']
        port.engine.is_healthy = False
        assert (await port.call("Ping", b"")).written == [b'\n\x1b{\n  "status": "Unhealthy"\n}']

    run(scene())


def test_unknown_methods() -> None:
    async def scene() -> None:
        port = Port()
        context = await port.call("/a.B/C", b"")
        assert context.ended == (Code.UNIMPLEMENTED, "Method not found: a.B/C") and context.reads == 0
        assert not port.telemetry.records

    run(scene())


def test_the_answers_of_a_sequence_keep_its_order() -> None:
    async def scene() -> None:
        port = Port()
        port.engine.answer = lambda job: None
        context = MemoryContext(
            request(sequence="a"), request(sequence="b"), request("nope", sequence="a"), request(sequence="a"), None
        )
        call = port.begin("StreamPredictions2", context)
        await until(lambda: len(port.engine.jobs) == 3)
        first, other, last = port.engine.jobs
        last.succeed(Reply(0, b"last"))
        other.succeed(Reply(0, b"other"))
        await until(lambda: context.written)
        for _ in range(20):
            await asyncio.sleep(0)
        assert bodies(context) == [b"other"]
        first.succeed(Reply(0, b"first"))
        await until(lambda: len(context.written) == 4)
        assert bodies(context) == [b"other", b"first", b"", b"last"]
        responses = [PredictionResponse.FromString(data) for data in context.written]
        assert [response.sequence_id for response in responses] == ["b", "a", "a", "a"]
        assert [response.HasField("status") for response in responses] == [False, False, True, False]
        call.cancel()
        await asyncio.wait([call])

    run(scene())


def test_every_message_of_a_conversation_counts() -> None:
    async def scene() -> None:
        port = Port()
        await port.call("StreamPredictions2", request(sequence="a"), request(sequence="b"), request())
        jobs = [facts for facts in port.telemetry.records if facts[1] == ""]
        assert [(facts[4], facts[8], facts[9], facts[-1]) for facts in jobs] == [(0, "m", "default", True)] * 2
        assert port.telemetry.codes == [0]

    run(scene())


def test_a_conversation_reads_only_so_far_ahead() -> None:
    """Of a client that sends and does not read: what waits to be sent is bounded."""

    async def scene() -> None:
        port = Port()
        context = MemoryContext(*[request(sequence=str(number)) for number in range(3000)])
        context.paper = asyncio.Event()
        call = port.begin("StreamPredictions2", context)
        for _ in range(5000):
            await asyncio.sleep(0)
        assert len(port.engine.jobs) == 1024
        context.paper.set()
        await call
        assert len(port.engine.jobs) == 3000 and len(context.written) == 3000

    run(scene())


class Leisurely(MemoryContext):
    """Of a client whose next request comes when the last one has been answered."""

    async def read(self) -> Any:
        for _ in range(20):
            await asyncio.sleep(0)
        return await super().read()


@pytest.mark.parametrize("large", ["requests", "answers"])
def test_a_conversation_holds_only_so_many_bytes(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelserver.rpc.conversation._AHEAD_BYTES", 10_000)

    async def scene() -> None:
        port = Port()
        body, answer = (b"x" * 999, b"") if large == "requests" else (b"", b"x" * 999)
        port.engine.answer = lambda job: Reply(0, answer)
        context = Leisurely(*[request(sequence=str(number), data=body) for number in range(50)])
        context.paper = asyncio.Event()
        call = port.begin("StreamPredictions2", context)
        for _ in range(2000):
            await asyncio.sleep(0)
        assert 9 <= len(port.engine.jobs) <= 11
        context.paper.set()
        await call
        assert len(port.engine.jobs) == 50 and len(context.written) == 50

    run(scene())


@pytest.mark.parametrize("method", ["Predictions", "StreamPredictions", "StreamPredictions2"])
def test_inputs_are_numbered(method: str) -> None:
    async def scene() -> None:
        port = Port()
        head, entry = request(sequence="s"), b"\x1a\x02\x0a\x00"
        assert (await port.call(method, head + entry * 10_000)).ended is None
        context = await port.call(method, head + entry * 10_001)
        assert context.ended is not None and context.ended[0] is Code.INVALID_ARGUMENT
        assert context.ended[1].startswith("The request has more than 10000 inputs.")
        assert [len(job.request.parts) for job in port.engine.jobs] == [10_000]

    run(scene())


def test_what_has_no_end_is_not_waited_for() -> None:
    async def scene() -> None:
        port = Port(enable_grpc_health=True)
        port.engine.answer = lambda job: None
        prediction = port.begin("Predictions", MemoryContext(request()))
        context = MemoryContext(b"")
        watch = port.begin("/grpc.health.v1.Health/Watch", context)
        await until(lambda: context.written and port.engine.jobs)
        port.board.part()
        await asyncio.wait([watch])
        assert context.ended == (Code.UNAVAILABLE, "The server is stopping.")
        assert port.telemetry.codes == [14] and not port.telemetry.lines and port.board.owed == 1
        port.engine.jobs[0].succeed(Reply(0, b"ok"))
        assert await prediction == b"\x0a\x02ok"

    run(scene())


@pytest.mark.parametrize(
    ("peer", "remote"),
    [
        ("ipv4:10.0.0.1:80", "/10.0.0.1:80"),
        ("ipv6:%5B::1%5D:80", "/[::1]:80"),
        ("unix:", "unix:"),
    ],
)
def test_remotes(peer: str, remote: str) -> None:
    assert remote_of(peer) == remote
