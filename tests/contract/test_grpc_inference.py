"""Inference over gRPC: rows, results, errors, streams, and workers that no client can hurt."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from contract.grpc_server import CLASS, FAILED, PATIENCE, GrpcServer, refused, request, start_grpc
from harness.archives import pack
from harness.server import eventually
from harness.stubs import message, module

check, fixed = pytest.mark.check, pytest.mark.fixed
Code = grpc.StatusCode


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GrpcServer]:
    with ExitStack() as stack:
        yield start_grpc(stack, tmp_path_factory.mktemp("server"))


@check("grpc", 1)
def test_each_port_serves_its_own_services_only(oracle: GrpcServer) -> None:
    for api, path in (
        ("inference", "org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels"),
        ("management", "org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping"),
        ("inference", "org.pytorch.serve.grpc.inference.InferenceAPIsService/Nothing"),
        ("inference", "grpc.health.v1.Health/Check"),
    ):
        with refused(Code.UNIMPLEMENTED, f"Method not found: {path}"):
            oracle.channel(api).unary_unary(f"/{path}")(b"", timeout=PATIENCE)


@check("grpc", 3)
def test_ping(oracle: GrpcServer) -> None:
    empty = module("google.protobuf.empty_pb2").Empty()
    assert oracle.inference().Ping(empty, timeout=PATIENCE).health == '{\n  "status": "Healthy"\n}'


@check("grpc", 5)
def test_rows_are_bytes_whatever_they_hold(oracle: GrpcServer) -> None:
    told = oracle.look(data=b"hello", b=b"", json=b'{"a": 1}')
    assert told["row"] == {"data": ["bytearray", "hello"], "b": ["bytearray", ""], "json": ["bytearray", '{"a": 1}']}
    assert told["headers"] == {"data": {"content-type": ""}, "b": {"content-type": ""}, "json": {"content-type": ""}}
    assert told["sequence"] is None and len(told["id"]) == 36


def test_entries_keep_the_order_of_the_wire(oracle: GrpcServer) -> None:
    """Clients that write their maps in order find them so; protobuf for Python writes them in any."""
    names = [f"k{number}" for number in (5, 3, 9, 1, 7, 2)]
    entries = b"".join(message("PredictionsRequest", input={name: b"x"}).SerializeToString() for name in names)
    call = oracle.channel().unary_unary("/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions")
    answer = module("inference_pb2").PredictionResponse.FromString(
        call(request().SerializeToString() + entries, timeout=PATIENCE)
    )
    assert list(json.loads(answer.prediction)["row"]) == names


@check("grpc", 6)
@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("dict", b'{\n  "a": [\n    1,\n    "\\u00e9"\n  ]\n}'),
        ("str", "é".encode()),
        ("bytes", b"\x00\xff"),
        ("none", b"null"),
    ],
)
def test_results(oracle: GrpcServer, kind: str, wanted: bytes) -> None:
    assert oracle.predict(do=f"result {kind}".encode()) == wanted


@check("grpc", 6)
def test_tensors_are_saved(oracle: GrpcServer) -> None:
    """As an archive that `torch.load` reads."""
    with zipfile.ZipFile(io.BytesIO(oracle.predict(do=b"result tensor"))) as archive:
        assert any(name.endswith("/data.pkl") for name in archive.namelist())


@check("grpc", 6)
def test_a_status_of_the_handler_has_no_effect(oracle: GrpcServer) -> None:
    assert oracle.predict(do=b"status 400") == b"with a status"


def test_results_that_cannot_be_written(oracle: GrpcServer) -> None:
    with refused(Code.UNAVAILABLE, f"Unsupported model output data type.\n{CLASS}http.InternalServerException"):
        oracle.predict(do=b"result object")


@check("grpc", 7)
@pytest.mark.parametrize(
    ("model", "version", "text"),
    [
        ("nope", "", f"Model not found: nope\n{CLASS}archive.model.ModelNotFoundException"),
        (
            "oracle",
            "9.9",
            f"Model version: 9.9 does not exist for model: oracle\n{CLASS}archive.model.ModelVersionNotFoundException",
        ),
        ("", "", "Parameter model_name is required.\nBadRequestException.()"),
    ],
)
def test_models_that_are_not_there(oracle: GrpcServer, model: str, version: str, text: str) -> None:
    stub = oracle.inference()
    with refused(Code.INTERNAL, text):
        stub.Predictions(request(model, version), timeout=PATIENCE)
    with refused(Code.INTERNAL, text):
        list(stub.StreamPredictions(request(model, version), timeout=PATIENCE))


@check("grpc", 8)
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (400, Code.INVALID_ARGUMENT),
        (401, Code.UNAUTHENTICATED),
        (403, Code.PERMISSION_DENIED),
        (404, Code.NOT_FOUND),
        (409, Code.ABORTED),
        (413, Code.RESOURCE_EXHAUSTED),
        (416, Code.OUT_OF_RANGE),
        (418, Code.FAILED_PRECONDITION),
        (429, Code.RESOURCE_EXHAUSTED),
        (499, Code.CANCELLED),
        (500, Code.INTERNAL),
        (501, Code.UNIMPLEMENTED),
        (503, Code.UNAVAILABLE),
        (504, Code.DEADLINE_EXCEEDED),
        (507, Code.INTERNAL),
        (600, Code.UNKNOWN),
    ],
)
def test_codes_of_prediction_exceptions(oracle: GrpcServer, number: int, code: grpc.StatusCode) -> None:
    with refused(code, f"told so\n{CLASS}http.InternalServerException"):
        oracle.predict(do=f"code {number}".encode())


def test_a_prediction_exception_that_is_none(oracle: GrpcServer) -> None:
    assert oracle.predict(do=b"code 200") == b"error"


@check("grpc", 9)
def test_a_handler_that_raises_goes_on_serving(oracle: GrpcServer) -> None:
    pid = oracle.pid()
    with refused(Code.UNAVAILABLE, FAILED):
        oracle.predict(do=b"raise")
    assert oracle.pid() == pid


@check("grpc", 10)
@fixed("grpc stream of one")
def test_pieces_are_messages(oracle: GrpcServer) -> None:
    pid = oracle.pid()
    for count in (3, 0):
        answers = oracle.inference().StreamPredictions(request(do=b"pieces %d" % count), timeout=PATIENCE)
        parts = [f"part{number}".encode() for number in range(count)]
        assert [answer.prediction for answer in answers] == [*parts, b"last"]
    assert len(list(oracle.inference().StreamPredictions(request(), timeout=PATIENCE))) == 1
    assert oracle.pid() == pid


def test_a_stream_that_breaks_off_keeps_what_was_sent(oracle: GrpcServer) -> None:
    answers = oracle.inference().StreamPredictions(request(do=b"pieces-then-raise"), timeout=PATIENCE)
    assert next(answers).prediction == b"part0"
    with refused(Code.UNAVAILABLE, FAILED):
        next(answers)


@check("grpc", 12)
@fixed("grpc pieces joined")
def test_one_response_holds_all_pieces(oracle: GrpcServer) -> None:
    pid = oracle.pid()
    assert oracle.predict(do=b"pieces 3") == b"part0part1part2last"
    assert oracle.pid() == pid


def converse(oracle: GrpcServer, *requests: Any) -> list[Any]:
    """All answers on one stream whose client sends its requests and says at once that there are no more."""
    return list(oracle.inference().StreamPredictions2(iter(requests), timeout=PATIENCE))


def reason_of(answer: Any) -> str:
    info = module("google.rpc.error_details_pb2").ErrorInfo()
    (detail,) = answer.status.details
    assert detail.Unpack(info)
    reason: str = info.reason
    return reason


@check("grpc", 13)
@fixed("grpc half-close")
def test_a_half_closed_stream_is_answered_to_the_end(oracle: GrpcServer) -> None:
    pid = oracle.pid()
    requests = [request(sequence="s", do=b"echo", data=str(number).encode()) for number in range(3)]
    answers = converse(oracle, *requests)
    assert [answer.prediction for answer in answers] == [b"0", b"1", b"2"]
    assert {answer.sequence_id for answer in answers} == {"s"}
    assert not any(answer.HasField("status") for answer in answers)
    assert oracle.pid() == pid


@check("grpc", 14)
@fixed("grpc half-close")
def test_a_message_without_sequence_is_refused_in_band(oracle: GrpcServer) -> None:
    first, second = sorted(converse(oracle, request(), request(sequence="s", do=b"echo", data=b"ok")), key=bytes_of)
    assert (first.status.code, first.status.message) == (13, "Parameter sequenceId is required.")
    assert reason_of(first) == "BadRequestException.()" and not first.prediction
    assert second.prediction == b"ok"


def bytes_of(answer: Any) -> bytes:
    prediction: bytes = answer.prediction
    return prediction


@check("grpc", 15)
@fixed("grpc errors in band")
def test_errors_of_handlers_are_in_band(oracle: GrpcServer) -> None:
    pid = oracle.pid()
    answers = converse(
        oracle,
        request(sequence="s", do=b"raise"),
        request(sequence="s", do=b"code 404"),
        request("nope", sequence="s"),
        request("oracle", "9", sequence="s"),
        request(sequence="s", do=b"echo", data=b"ok"),
    )
    assert [(answer.status.code, answer.status.message) for answer in answers[:4]] == [
        (14, "Prediction failed"),
        (5, "told so"),
        (13, "Model not found: nope"),
        (13, "Model version: 9 does not exist for model: oracle"),
    ]
    assert reason_of(answers[0]) == f"{CLASS}http.InternalServerException"
    assert answers[4].prediction == b"ok" and oracle.pid() == pid


@fixed("grpc sequence headers")
def test_headers_of_sequences(oracle: GrpcServer) -> None:
    """An id that the server makes is told; the end is said only by whoever says it."""
    (answer,) = converse(oracle, request(ts_request_sequence_start=b"True"))
    told = json.loads(answer.prediction)
    assert answer.sequence_id.startswith("ts-seq-") and told["sequence"] == answer.sequence_id
    assert told["headers"]["ts_request_sequence_start"] == "true"
    (answer,) = converse(oracle, request(sequence="s", ts_request_sequence_end=b"true"))
    told = json.loads(answer.prediction)
    assert told["headers"] == {"ts_request_sequence_id": "s", "ts_request_sequence_end": "true"}
    assert told["row"] == {"ts_request_sequence_end": ["bytearray", "true"]}


@check("grpc", 16)
@fixed("grpc without sequences")
def test_a_full_queue_is_told_in_band(oracle: GrpcServer) -> None:
    """All messages are read, however slow the worker is: what has no place is refused."""
    requests = [request(sequence=str(number), do=b"wait full") for number in range(150)]
    answers = oracle.inference().StreamPredictions2(iter(requests), timeout=PATIENCE)
    refusals = [next(answers) for _ in range(49)]
    assert {answer.status.code for answer in refusals} == {13}
    assert "has no worker to serve inference request" in refusals[0].status.message
    assert reason_of(refusals[0]) == "InternalServerException.()"
    oracle.open("full")
    assert not any(answer.HasField("status") for answer in answers)


@check("grpc", 17)
def test_large_messages_pass(oracle: GrpcServer) -> None:
    body = b"y" * 5_000_000
    assert oracle.predict(do=b"echo", data=body) == body


@check("grpc", 18)
def test_compressed_requests_are_read_and_responses_never_compressed(oracle: GrpcServer) -> None:
    answer, call = oracle.inference().Predictions.with_call(
        request(do=b"echo", data=b"z" * 1000), compression=grpc.Compression.Gzip, timeout=PATIENCE
    )
    assert answer.prediction == b"z" * 1000
    assert not any(key == "grpc-encoding" and value != "identity" for key, value in call.initial_metadata())


@check("grpc", 36)
def test_access_lines(oracle: GrpcServer) -> None:
    def last() -> str:
        lines = oracle.access_lines("Predictions")
        return lines[-1] if lines and " 13 " in lines[-1] else ""

    with refused(Code.INTERNAL):
        oracle.predict("nope")
    line = eventually(last)
    assert '"gRPC org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions HTTP/2.0" 13 ' in line
    assert "/127.0.0.1:" in line


@check("grpc", 37)
@fixed("grpc without sequences")
def test_requests_are_counted(oracle: GrpcServer) -> None:
    def counts() -> list[int]:
        log = (oracle.server.directory / "logs" / "ts_metrics.log").read_text()
        requests = "ts_inference_requests_total.Count:1.0|#model_name:oracle,model_version:default"
        return [log.count(requests), log.count("QueueTime.Milliseconds:")]

    requests, times = counts()
    oracle.predict()
    list(oracle.inference().StreamPredictions(request(do=b"pieces 2"), timeout=PATIENCE))
    converse(oracle, request(sequence="s"), request(sequence="s"))
    with refused(Code.INTERNAL):
        oracle.predict("nope")
    with refused(Code.UNAVAILABLE):
        oracle.predict(do=b"raise")
    oracle.predict()
    eventually(lambda: counts()[0] >= requests + 6)
    assert counts() == [requests + 6, times + 5]  # failures have no time in the queue


Cancel = Callable[[GrpcServer, str], None]


def cancel_unary(oracle: GrpcServer, gate: str) -> None:
    future = oracle.inference().Predictions.future(request(do=f"wait {gate}".encode()))
    oracle.await_call(f"wait {gate}")
    future.cancel()


def expire_unary(oracle: GrpcServer, gate: str) -> None:
    with refused(Code.DEADLINE_EXCEEDED):
        oracle.inference().Predictions(request(do=f"wait {gate}".encode()), timeout=0.3)


def cancel_stream(oracle: GrpcServer, gate: str) -> None:
    answers = oracle.inference().StreamPredictions(request(do=f"wait {gate}".encode()))
    oracle.await_call(f"wait {gate}")
    answers.cancel()


def cancel_conversation(oracle: GrpcServer, gate: str) -> None:
    requests = [request(sequence="s", do=f"wait {gate}".encode()) for _ in range(3)]
    answers = oracle.inference().StreamPredictions2(iter(requests))
    oracle.await_call(f"wait {gate}")
    answers.cancel()


def close_connection(oracle: GrpcServer, gate: str) -> None:
    channel = oracle.channel()
    future = oracle.inference(channel).Predictions.future(request(do=f"wait {gate}".encode()))
    oracle.await_call(f"wait {gate}")
    channel.close()
    assert future.code() is Code.CANCELLED


def send_nonsense(oracle: GrpcServer, gate: str) -> None:
    for method in ("Predictions", "StreamPredictions", "StreamPredictions2"):
        call = oracle.channel().stream_stream(f"/org.pytorch.serve.grpc.inference.InferenceAPIsService/{method}")
        with pytest.raises(grpc.RpcError):
            list(call(iter([b"\xff\xff\xff"]), timeout=PATIENCE))


def send_nothing(oracle: GrpcServer, gate: str) -> None:
    path = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
    with pytest.raises(grpc.RpcError):
        oracle.channel().stream_unary(path)(iter(()), timeout=PATIENCE)


@check("grpc", 38)
@pytest.mark.parametrize(
    "deed",
    [
        cancel_unary,
        expire_unary,
        cancel_stream,
        pytest.param(cancel_conversation, marks=fixed("grpc without sequences")),
        close_connection,
        send_nonsense,
        send_nothing,
    ],
)
def test_no_client_hurts_a_worker(oracle: GrpcServer, deed: Cancel) -> None:
    pid = oracle.pid()
    deed(oracle, deed.__name__)
    oracle.open(deed.__name__)
    assert oracle.pid() == pid
    assert oracle.server.waiting("oracle") == 0


@fixed("grpc stream of one")
def test_responses_that_are_too_large(oracle: GrpcServer) -> None:
    """The limit is that of REST; the worker goes on."""
    pid = oracle.pid()
    with refused(Code.INTERNAL, f"Worker died.\n{CLASS}http.InternalServerException"):
        oracle.predict(do=b"size 7000000")
    assert oracle.pid() == pid


@fixed("grpc cancellation")
def test_a_cancelled_call_leaves_the_queue_at_once(oracle: GrpcServer) -> None:
    stub = oracle.inference()
    running = stub.Predictions.future(request(do=b"wait busy"), timeout=PATIENCE)
    oracle.await_call("wait busy")
    waiting = stub.Predictions.future(request(do=b"echo", data=b"never run"), timeout=PATIENCE)
    oracle.server.await_queue("oracle", 1)
    waiting.cancel()
    oracle.server.await_queue("oracle", 0)
    oracle.open("busy")
    assert running.result().prediction
    oracle.pid()
    assert "never run" not in (oracle.server.record / "oracle.calls").read_text()


def test_a_model_without_workers(oracle: GrpcServer) -> None:
    pack(oracle.server.store, "idle", "def handle(data, context):\n    return data and ['ok']\n")
    assert oracle.server.register("idle.mar", workers=0).status_code == 200
    text = (
        'Model "idle" has no worker to serve inference request. Please use scale workers API to add workers. If this '
        "is a sequence inference, please check if it is closed, or expired; or exceeds maxSequenceJobQueueSize"
    )
    with refused(Code.INTERNAL, f"{text}\nInternalServerException.()"):
        oracle.predict("idle")


def test_the_stubs_are_those_of_clients() -> None:
    """Made from the `.proto` files as they stand, in this process, beside everything else that is imported here."""
    assert message("PredictionsRequest").DESCRIPTOR.file.name == "inference.proto"
    assert Path(str(module("inference_pb2").__file__)).name == "inference_pb2.py"
