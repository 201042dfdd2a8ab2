"""The life of a service: what a handler sees while it loads, and batch after batch."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from workshop import KeepingChannel, batch, describe, load, load_frame, request, write_model

from modelserver.wire.frames import Metrics, Part, Request
from modelserver.worker.service import Service

ECHO = """
def handle(data, context):
    return None if data is None else [repr(row) for row in data]
"""


def answer(service: Service, *requests: Request) -> list[Any]:
    return [json.loads(reply.body) for reply in service.handle(batch(*requests)).replies]


def test_what_a_function_sees_while_it_loads(tmp_path: Path) -> None:
    source = """
    SEEN = []
    def handle(data, context):
        if data is None:
            SEEN.append([context.request_ids, context.request_processor, hasattr(context, "cl_socket"),
                         context.get_request_id(0), context.cancelled])
            try:
                context.get_request_header(0, "a")
            except TypeError:
                SEEN.append("TypeError")
            context.set_response_status(404, "", 0)
            return "ignored"
        return [[SEEN, hasattr(context, "cl_socket")]]
    """
    assert answer(load(tmp_path, source)) == [[[[None, None, False, None, []], "TypeError"], True]]


def test_system_properties(tmp_path: Path) -> None:
    source = "def handle(data, context):\n    return data and [[context.model_name, context.system_properties]]\n"
    version = json.loads(load(tmp_path, source).handle(batch()).replies[0].body)[1].pop("server_version")
    name, properties = answer(load(tmp_path, source, gpu=1, limit_max_image_pixels=False))[0]
    assert name == "m"
    assert properties == {
        "model_dir": str(tmp_path),
        "gpu_id": 1,
        "batch_size": 4,
        "server_name": "MMS",
        "server_version": version,
        "limit_max_image_pixels": False,
    }
    assert version.count(".") == 2


@pytest.mark.parametrize("model", [{}, {"handler": "h.py"}])
def test_manifest(tmp_path: Path, model: dict[str, str]) -> None:
    write_model(tmp_path, {}, **model)
    source = "def handle(data, context):\n    return data and [context.manifest]\n"
    expected = {"model": {"modelName": "m", **model}} if model else None
    assert answer(load(tmp_path, source)) == [expected]


def test_ids_headers_and_rows_of_a_batch(tmp_path: Path) -> None:
    source = """
    def handle(data, context):
        return data and [
            [context.get_request_id(i), context.request_ids[i], context.get_request_header(i, "X-N"), len(data)]
            for i in range(len(data))
        ]
    """
    first = request(id="a", headers=[(b"x-n", b"1")])
    second = request(id="b", headers=[(b"X-N", b"2")])
    assert answer(load(tmp_path, source), first, second) == [["a", "a", "1", 2], ["b", "b", "2", 2]]


def test_the_context_is_one_object_and_keeps_attributes(tmp_path: Path) -> None:
    source = """
    class H:
        def initialize(self, context):
            context.cache = {"id": id(context)}
        def handle(self, data, context):
            context.cache["n"] = context.cache.get("n", 0) + 1
            return [[context.cache["n"], context.cache["id"] == id(context)]]
    """
    service = load(tmp_path, source)
    assert answer(service) == [[1, True]]
    assert answer(service) == [[2, True]]


def test_nothing_of_a_batch_is_held_after_it(tmp_path: Path) -> None:
    source = "KEPT = []\ndef handle(data, context):\n    KEPT.append(context)\n    return data and ['x']\n"
    service = load(tmp_path, source)
    service.handle(batch(request(b"x" * 100, id="secret")))
    context = sys.modules["h"].KEPT[-1]
    assert not hasattr(context, "cl_socket")
    assert context.request_processor is None


def test_describe(tmp_path: Path) -> None:
    source = """
    def handle(data, context):
        return data and [{"row": data[0], "describe": context.get_request_header(0, "describe")}]
    """
    (reply,) = load(tmp_path, source).handle(describe()).replies
    assert json.loads(reply.body) == {"row": {}, "describe": "True"}


@pytest.mark.parametrize(("setting", "kind"), [("true", "dict"), ("false", "bytearray"), (None, "dict")])
def test_decoding_can_be_switched_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str | None, kind: str
) -> None:
    if setting is None:
        monkeypatch.delenv("TS_DECODE_INPUT_REQUEST", raising=False)
    else:
        monkeypatch.setenv("TS_DECODE_INPUT_REQUEST", setting)
    source = "def handle(data, context):\n    return data and [type(data[0]['body']).__name__]\n"
    (reply,) = load(tmp_path, source).handle(batch(request(b"{}", "application/json"))).replies
    assert reply.body.decode() == kind


def test_several_parameters(tmp_path: Path) -> None:
    parts = [Part("a", "application/json", b"[1]"), Part("b", "", b"x")]
    (reply,) = load(tmp_path, ECHO).handle(batch(Request("r0", parts, [], {}))).replies
    assert reply.body == b"{'a': [1], 'b': bytearray(b'x')}"


def test_cancelled_asks_the_channel_on_every_access(tmp_path: Path) -> None:
    source = """
    def handle(data, context):
        if data is None:
            return
        before = context.cancelled
        GONE.add("b")
        return [[before, context.cancelled]] * 2
    GONE = set()
    """
    channel = KeepingChannel()
    service = load(tmp_path, source, channel)
    channel.gone = sys.modules["h"].GONE
    replies = service.handle(batch(request(id="a"), request(id="b")))
    assert json.loads(replies.replies[0].body) == [[False, False], [False, True]]


def test_prediction_time(tmp_path: Path) -> None:
    replies = load(tmp_path, ECHO).handle(batch(request(id="a"), request(id="b")))
    (metric,) = replies.metrics
    assert (metric.name, metric.unit, metric.type) == ("PredictionTime", "Milliseconds", "GAUGE")
    assert metric.dimensions == [("ModelName", "m"), ("Level", "Model")]
    assert metric.request_ids == "a,b"
    assert metric.value == round(replies.handler_ns / 1e6, 2)
    assert replies.handler_ns > 0


def test_metrics_of_a_batch_travel_with_its_replies(tmp_path: Path) -> None:
    source = """
    from ts.metrics.dimension import Dimension
    def handle(data, context):
        if data is None:
            context.metrics.add_counter("Loads", 1)
            return
        context.metrics.add_counter("Seen", 2, 0, [Dimension("Kind", "a:b,c")])
        if data[0]["body"] == b"fail":
            raise ValueError
        return ["x"] * len(data)
    """
    channel = KeepingChannel()
    service = load(tmp_path, source, channel)
    (sent,) = channel.sent
    assert isinstance(sent, Metrics)
    (loads,) = sent.metrics
    assert (loads.name, loads.type, loads.value) == ("Loads", "COUNTER", 1.0)
    assert loads.request_ids  # an id of its own

    replies = service.handle(batch(request(id="a"), request(id="b")))
    assert [metric.name for metric in replies.metrics] == ["Seen", "PredictionTime"]
    assert replies.metrics[0].request_ids == "a"
    assert replies.metrics[0].dimensions == [("Kind", "a:b,c"), ("ModelName", "m"), ("Level", "Model")]

    failed = service.handle(batch(request(b"fail")))
    assert [metric.name for metric in failed.metrics] == ["Seen"]
    assert len(channel.sent) == 1


def test_metrics_between_batches_are_sent_at_once(tmp_path: Path) -> None:
    source = """
    import threading
    def handle(data, context):
        if data is not None:
            GO.context = context
            return ["x"]
    class GO: pass
    """
    channel = KeepingChannel()
    service = load(tmp_path, source, channel)
    service.handle(batch(request(id="a")))
    metrics = sys.modules["h"].GO.context.metrics
    thread = threading.Thread(target=metrics.add_counter, args=("Late", 1))
    thread.start()
    thread.join()
    (frame,) = channel.sent
    assert isinstance(frame, Metrics)
    assert frame.metrics[0].name == "Late"


_NO_LIST = "model_metrics: {gauge: [{name: a, unit: ms, dimensions: Level}]}"


@pytest.mark.parametrize("content", [None, "a: [1", "ts_metrics: {}", "model_metrics:", _NO_LIST])
def test_no_model_fails_for_its_metric_definitions(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "metrics.yaml"
    if content is not None:
        path.write_text(content)
    write_model(tmp_path, {"h.py": ECHO})
    service = Service.load(load_frame(tmp_path, metrics_config=str(path)), KeepingChannel())
    assert service.handle(batch()).code == 200
