"""`Context` and `RequestProcessor` as handlers and their unit tests construct and use them."""

from __future__ import annotations

import copy

import pytest

from ts.context import Context, RequestProcessor


def context(requests: int = 2) -> Context:
    made = Context("m", "/models/m", {"model": {}}, 4, None, "0.12.0")
    if requests:
        made.request_ids = {index: f"id{index}" for index in range(requests)}
        made.request_processor = [RequestProcessor({"n": index}) for index in range(requests)]
    return made


def test_attributes() -> None:
    made = Context("m", "/models/m", None, 4, 1, "0.12.0", False, "metrics", {"a": 1})  # type: ignore[arg-type]
    assert made.system_properties == {
        "model_dir": "/models/m",
        "gpu_id": 1,
        "batch_size": 4,
        "server_name": "MMS",
        "server_version": "0.12.0",
        "limit_max_image_pixels": False,
    }
    assert (made.model_name, made.manifest, made.metrics, made.model_yaml_config) == ("m", None, "metrics", {"a": 1})
    assert (made.request_ids, made.request_processor, made.stopping_criteria) == (None, None, None)
    assert not hasattr(made, "cl_socket")
    assert not hasattr(made, "cache")
    with pytest.raises(AttributeError):
        made.system_properties = {}  # type: ignore[misc]


def test_settable() -> None:
    made = context()
    made.metrics = "other"
    made.cache = {}  # type: ignore[attr-defined]
    made.stopping_criteria = [lambda result: None]
    assert made.metrics == "other"


def test_sequence_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    assert context().header_key_sequence_id == "ts_request_sequence_id"
    assert context().header_key_sequence_start == "ts_request_sequence_start"
    assert context().header_key_sequence_end == "ts_request_sequence_end"
    monkeypatch.setenv("TS_REQUEST_SEQUENCE_ID", "my_id")
    made = context(0)
    made.request_processor = [RequestProcessor({"my_id": "s1"}), RequestProcessor({})]
    assert made.get_sequence_id(0) == "s1"
    assert made.get_sequence_id(1) is None


def test_request_side() -> None:
    made = context()
    assert made.get_request_id() == "id0"
    assert made.get_request_id(1) == "id1"
    assert made.get_request_id(5) is None
    assert made.get_request_header(1, "n") == 1
    assert made.get_request_header(1, "missing") is None
    assert made.get_all_request_header(0) == {"n": 0}
    with pytest.raises(IndexError):
        made.get_request_header(2, "n")


def test_while_loading() -> None:
    made = context(0)
    assert made.get_request_id() is None
    made.set_response_status(404, "No", 3)
    made.set_all_response_status(404)
    with pytest.raises(TypeError):
        made.get_request_header(0, "n")
    assert made.cancelled == []


def test_response_side() -> None:
    made = context()
    assert made.get_response_status(0) == (200, None)
    made.set_response_status(201, "Made", 1)
    made.set_response_header(0, "X-A", "1")
    made.set_response_content_type(0, "text/plain")
    assert made.get_response_status(0) == (200, None)
    assert made.get_response_status(1) == (201, "Made")
    assert made.get_response_headers(0) == {"X-A": "1", "content-type": "text/plain"}
    assert made.get_response_content_type(0) == "text/plain"
    assert made.get_response_content_type(1) is None
    made.set_all_response_status(503, "Busy")
    assert [made.get_response_status(index) for index in (0, 1)] == [(503, "Busy")] * 2
    with pytest.raises(IndexError):
        made.set_response_status(404, "", 2)


def test_content_type_is_the_header_of_exactly_that_name() -> None:
    made = context()
    made.set_response_header(0, "Content-Type", "text/plain")
    assert made.get_response_content_type(0) is None


def test_equality() -> None:
    made = context(0)
    assert made == copy.deepcopy(made)
    assert made != context()
    assert made != "m"
    with pytest.raises(TypeError):
        hash(made)


def test_cancelled_has_one_entry_per_request() -> None:
    assert context().cancelled == [False, False]


def test_request_processor() -> None:
    processor = RequestProcessor({"a": "1"})
    assert processor.get_request_property("a") == "1"
    assert processor.get_request_property("A") is None
    assert processor.get_request_properties() == {"a": "1"}
    assert (processor.get_response_status_code(), processor.get_response_status_phrase()) == (200, None)
    processor.report_status(404)
    assert (processor.get_response_status_code(), processor.get_response_status_phrase()) == (404, None)
    processor.report_status(404, "Gone")
    processor.add_response_property("k", "v")
    assert processor.get_response_status_phrase() == "Gone"
    assert processor.get_response_headers() == {"k": "v"}
    assert processor.get_response_header("k") == "v"
    assert processor.get_response_header("K") is None
