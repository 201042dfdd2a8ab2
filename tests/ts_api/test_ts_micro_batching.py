"""A handler's steps as a pipeline of threads."""

from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from ts.context import Context, RequestProcessor
from ts.handler_utils.micro_batching import HANDLER_METHODS, MicroBatching
from ts.metrics.metrics_store import MetricsStore
from ts.torch_handler.base_handler import BaseHandler
from ts.torch_handler.image_classifier import ImageClassifier


class Steps(BaseHandler):
    """Notes step, index of the micro batch and data of every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int | None, Any]] = []
        self.threads: set[threading.Thread] = set()
        self.initialized = True

    def _note(self, step: str, data: Any) -> None:
        self.threads.add(threading.current_thread())
        self.calls.append((step, self.pipeline.get_micro_batch_idx(), data))

    def preprocess(self, data: Any) -> Any:
        self._note("preprocess", data)
        return [row["body"] for row in data]

    def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
        self._note("inference", data)
        return [number * 10 for number in data]

    def postprocess(self, data: Any) -> Any:
        self._note("postprocess", data)
        return [f"<{number}>" for number in data]

    def get_insights(self, prepared: Any, inputs: Any, target: Any) -> Any:
        return [["insight", len(prepared), target]] * len(prepared)

    def describe_handle(self) -> Any:
        return {"steps": 3}

    pipeline: MicroBatching


def context(headers: dict[str, str] | None = None) -> Context:
    metrics: Any = MetricsStore({0: "a"}, "m")
    made = Context("m", ".", {"model": {"modelName": "m"}}, 1, None, "0", metrics=metrics)
    made.request_ids, made.request_processor = {0: "a"}, [RequestProcessor(headers or {})]
    return made


@pytest.fixture
def handler() -> Any:
    made = Steps()
    made.pipeline = made.handle = MicroBatching(made, 2)  # type: ignore[method-assign]
    yield made
    made.pipeline.shutdown()


def rows(count: int) -> list[dict[str, int]]:
    return [{"body": number} for number in range(count)]


@pytest.mark.check("handlers", 22)
def test_five_requests_in_slices_of_two(handler: Steps) -> None:
    seen = context()
    assert handler.handle(rows(5), seen) == ["<0>", "<10>", "<20>", "<30>", "<40>"]
    assert handler.context is seen
    assert [metric.name for metric in seen.metrics.store] == ["HandlerTime"]
    for step in HANDLER_METHODS:
        assert sorted(index for name, index, _ in handler.calls if name == step if index is not None) == [0, 1, 2]
    indices = [index for name, index, data in handler.calls if name == "preprocess" for _ in data]
    assert indices == [0, 0, 1, 1, 2]
    assert handler.pipeline.get_micro_batch_idx() is None
    assert threading.current_thread() not in handler.threads


@pytest.mark.parametrize(("size", "slices"), [(1, 5), (3, 2), (5, 1), (9, 1)])
def test_size(handler: Steps, size: int, slices: int) -> None:
    handler.pipeline.micro_batch_size = size
    assert len(handler.handle(rows(5), context())) == 5
    assert len([call for call in handler.calls if call[0] == "inference"]) == slices


def test_parallelism(handler: Steps) -> None:
    pipeline = handler.pipeline
    assert pipeline.parallelism == {}
    pipeline.parallelism = {"inference": 3}
    pipeline.parallelism["inference"] = 9  # a copy
    assert pipeline.parallelism == {"inference": 3}
    assert [len(step.threads) for step in pipeline._steps] == [1, 3, 1]
    pipeline.parallelism = {"preprocess": 2, "inference": 1}
    assert pipeline.parallelism == {"preprocess": 2, "inference": 1}
    assert handler.handle(rows(20), context()) == [f"<{10 * number}>" for number in range(20)]


@pytest.mark.parametrize("parallelism", [{"digest": 1}, {"inference": 0}])
def test_parallelism_that_cannot_be(handler: Steps, parallelism: dict[str, int]) -> None:
    with pytest.raises(AssertionError):
        handler.pipeline.parallelism = parallelism
    with pytest.raises(AssertionError):
        MicroBatching(handler, parallelism=parallelism)
    assert handler.pipeline.parallelism == {}


def test_threads_of_a_step_work_at_the_same_time(handler: Steps) -> None:
    both = threading.Barrier(2, timeout=60)

    def meet(data: Any) -> Any:
        return [both.wait() >= 0 for _ in data]

    handler.inference = meet  # type: ignore[method-assign]
    pipeline = MicroBatching(handler, 1, {"inference": 2})  # threads look the steps up when they are made
    assert pipeline.handle(rows(2)) == ["<True>", "<True>"]
    pipeline.shutdown()


@pytest.mark.parametrize("step", HANDLER_METHODS)
@pytest.mark.parametrize("error", [ValueError("bad"), SystemExit(3)])
def test_an_exception_reaches_the_caller_and_the_next_batch_runs(step: str, error: BaseException) -> None:
    made = Steps()
    good = getattr(made, step)
    failing = [True]

    def fail(data: Any) -> Any:
        if failing and failing.pop():
            raise error
        return good(data)

    setattr(made, step, fail)
    made.pipeline = MicroBatching(made, 2)
    with pytest.raises(type(error)):
        made.pipeline(rows(5), context())
    assert made.pipeline(rows(3), context()) == ["<0>", "<10>", "<20>"]
    made.pipeline.shutdown()


def test_a_failed_batch_is_let_go_of_at_once(handler: Steps) -> None:
    class Row(dict[str, int]):
        pass

    def fail(data: Any) -> Any:
        raise ValueError

    handler.preprocess = handler.inference = list  # type: ignore[method-assign,assignment]
    handler.postprocess = fail  # type: ignore[method-assign]
    pipeline = MicroBatching(handler, 2)
    kept = [Row(body=1), Row(body=2), Row(body=3)]
    left = [weakref.ref(row) for row in kept]
    gc.disable()
    try:
        with pytest.raises(ValueError):
            pipeline.handle(kept)
        kept.clear()
        pipeline.shutdown()
        assert [reference() for reference in left] == [None] * 3
    finally:
        gc.enable()


def test_explanations_take_the_whole_batch(handler: Steps) -> None:
    asked = context({"explain": "True"})
    assert handler.handle([{"body": 1, "target": 2}, {"body": 3}], asked) == [["insight", 2, 2]] * 2
    assert [(name, index) for name, index, _ in handler.calls] == [("preprocess", None)]


def test_describe(handler: Steps) -> None:
    assert handler.handle([{}], context({"describe": "True"})) == [{"steps": 3}]
    assert handler.calls == []


def test_the_profiler_takes_the_whole_batch(handler: Steps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "TRUE")
    monkeypatch.setenv("TORCH_PROFILER_DIR", str(tmp_path))
    handler.profiler_args = {"activities": [torch.profiler.ProfilerActivity.CPU]}
    assert handler.handle(rows(5), context()) == ["<0>", "<10>", "<20>", "<30>", "<40>"]
    assert [(name, index) for name, index, _ in handler.calls] == [(step, None) for step in HANDLER_METHODS]
    assert len(list(tmp_path.glob("m/*.pt.trace.json"))) == 1


def test_shut_down(handler: Steps) -> None:
    threads = [worker.thread for step in handler.pipeline._steps for worker in step.threads]
    handler.pipeline.shutdown()
    assert not any(thread.is_alive() for thread in threads)
    with pytest.raises(RuntimeError, match="shut down"):
        handler.handle(rows(1), context())


@pytest.mark.check("handlers", 24)
def test_a_handler_that_does_not_call_the_base_constructor() -> None:
    class Mine(ImageClassifier):
        def __init__(self) -> None:
            self.handle = MicroBatching(self)  # type: ignore[method-assign]

        def preprocess(self, data: Any) -> Any:
            return data

        def inference(self, data: Any, *args: Any, **kwargs: Any) -> Any:
            return data

        def postprocess(self, data: Any) -> Any:
            return [row["body"] for row in data]

    assert Mine().handle(rows(3), context()) == [0, 1, 2]
