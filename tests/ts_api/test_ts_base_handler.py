"""`BaseHandler`: loading of every kind of model file, the steps of a batch, and the switches around them."""

from __future__ import annotations

import json
import logging
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

import ts
from modelserver.wire.frames import Metric
from ts.context import Context, RequestProcessor
from ts.handler_utils.timer import timed
from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl
from ts.torch_handler import base_handler
from ts.torch_handler.base_handler import BaseHandler

# TorchScript is what this loads, and torch deprecates it.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

MODEL = """
import torch

class Doubler(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return x * self.factor
"""


class Doubler(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def context(folder: Path, headers: dict[str, str] | None = None, **changes: Any) -> Context:
    """A context for a model directory; its metrics go to `context.updates`."""
    updates: list[Metric] = []
    metrics = MetricsCacheYamlImpl(Path(ts.__file__).with_name("configs") / "metrics.yaml", updates.append)
    metrics.model_name = "m"
    metrics.set_request_ids({0: "a"})
    values: dict[str, Any] = {"manifest": {"model": {}}, "gpu": None, "model_yaml_config": {}, **changes}
    made = Context("m", str(folder), batch_size=1, mms_version="0", metrics=metrics, **values)
    made.request_ids = {0: "a"}
    made.request_processor = [RequestProcessor(headers or {})]
    made.updates = updates  # type: ignore[attr-defined]
    return made


def script(folder: Path) -> dict[str, Any]:
    torch.jit.script(Doubler()).save(str(folder / "model.pt"))  # type: ignore[no-untyped-call]
    return {"model": {"serializedFile": "model.pt"}}


def eager(folder: Path, weights: float | None = None, source: str = MODEL) -> dict[str, Any]:
    (folder / "model.py").write_text(textwrap.dedent(source))
    if weights is None:
        return {"model": {"modelFile": "model.py"}}
    torch.save({"factor": torch.tensor(weights)}, folder / "w.pth")
    return {"model": {"modelFile": "model.py", "serializedFile": "w.pth"}}


def initialized(folder: Path, manifest: dict[str, Any], **changes: Any) -> BaseHandler:
    handler = BaseHandler()
    handler.initialize(context(folder, manifest=manifest, **changes))
    return handler


def test_initial_state() -> None:
    handler = BaseHandler()
    names = ("model", "mapping", "device", "context", "model_pt_path", "manifest", "map_location")
    assert [getattr(handler, name) for name in names] == [None] * len(names)
    assert (handler.initialized, handler.explain, handler.target, handler.profiler_args) == (False, False, 0, {})


def test_torchscript(tmp_path: Path) -> None:
    handler = initialized(tmp_path, script(tmp_path))
    assert handler.initialized
    assert (handler.map_location, handler.get_device()) == ("cpu", torch.device("cpu"))
    assert handler.model_pt_path == str(tmp_path / "model.pt")
    assert handler.mapping is None
    assert not handler.model.training
    assert handler.handle([[1.0], [2.0]], context(tmp_path)) == [[2.0], [4.0]]


@pytest.mark.parametrize(("weights", "expected"), [(None, 2.0), (5.0, 5.0)])
def test_eager(tmp_path: Path, weights: float | None, expected: float) -> None:
    handler = initialized(tmp_path, eager(tmp_path, weights))
    assert not handler.model.training
    assert type(handler.model).__module__.endswith("model")
    assert handler.handle([[1.0]], context(tmp_path)) == [[expected]]


def test_labels(tmp_path: Path) -> None:
    (tmp_path / "index_to_name.json").write_text(json.dumps({"0": "cat"}))
    assert initialized(tmp_path, script(tmp_path)).mapping == {"0": "cat"}


@pytest.mark.check("handlers", 18)
@pytest.mark.parametrize(
    ("manifest", "error", "text"),
    [
        ({"model": {"serializedFile": "w.pth"}}, RuntimeError, "No model weights could be loaded"),
        ({"model": {"serializedFile": "w.pt2"}}, RuntimeError, "No model weights could be loaded"),
        ({"model": {"serializedFile": "w.so"}}, RuntimeError, "No model weights could be loaded"),
        ({"model": {}}, RuntimeError, "No model weights could be loaded"),
        ({"model": {"modelFile": "gone.py"}}, RuntimeError, "Missing the model.py file"),
    ],
)
def test_nothing_to_load(tmp_path: Path, manifest: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        initialized(tmp_path, manifest)


@pytest.mark.check("handlers", 18)
def test_two_model_classes(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"Expected only one class as model definition. \[<class '.*A'>, <class '.*B'>\]"
    ):
        initialized(tmp_path, eager(tmp_path, source="class A: pass\nclass B: pass\n"))


def test_subclasses_need_not_call_init(tmp_path: Path) -> None:
    class Mine(BaseHandler):
        def __init__(self) -> None:
            self.mine = True

    handler = Mine()
    handler.initialize(context(tmp_path, manifest=script(tmp_path)))
    assert handler.handle([[1.0]], context(tmp_path)) == [[2.0]]


def test_steps_and_handler_time(tmp_path: Path) -> None:
    handler = initialized(tmp_path, script(tmp_path))
    seen = context(tmp_path)
    handler.handle([[1.0]], seen)
    assert handler.context is seen
    (update,) = seen.updates
    assert (update.name, update.unit, update.type, update.request_ids) == ("HandlerTime", "Milliseconds", "GAUGE", "a")
    assert update.value == round(update.value, 2)


def test_inference_passes_arguments_on_without_gradients(tmp_path: Path) -> None:
    handler = BaseHandler()
    handler.device = torch.device("cpu")
    handler.model = lambda x, y, z: (x + y + z, torch.is_inference_mode_enabled())
    assert handler.inference(torch.tensor(1), 2, z=3) == (torch.tensor(6), True)


def test_rows_are_for_subclasses(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="Could not infer dtype of dict"):
        BaseHandler().preprocess([{"body": 1}])


class Explaining(BaseHandler):
    def preprocess(self, data: Any) -> Any:
        return "prepared"

    def get_insights(self, prepared: Any, inputs: Any, target: Any) -> list[Any]:
        return [prepared, inputs, target]

    def describe_handle(self) -> Any:
        return {"made": "of glass"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"body": b"x"}, [b"x", 0]),
        ({"data": b"d", "body": b"x"}, [b"d", 0]),
        ({"data": b"d", "target": bytearray(b"2")}, [b"d", 2]),
        ({"data": b"d", "target": bytearray(b"-2")}, [b"d", -2]),
        ({"data": b"d", "target": bytearray(b"two")}, [b"d", bytearray(b"two")]),
        ({"data": b"d", "target": bytearray(b"-")}, [b"d", bytearray(b"-")]),
        ({"data": b"d", "target": 3}, [b"d", 3]),
        ({"body": {"data": 1, "target": 2}}, [{"data": 1, "target": 2}, 0]),
        ({}, [None, 0]),
        ("not a row", [None, 0]),
    ],
)
def test_explain(tmp_path: Path, row: Any, expected: list[Any]) -> None:
    handler = Explaining()
    assert handler.handle([row], context(tmp_path, {"explain": "True"})) == ["prepared", *expected]
    assert handler.explain
    handler.model = handler.device = None
    with pytest.raises(AttributeError):
        handler.handle([row], context(tmp_path, {"explain": "False"}))  # a prediction, for which this has no model
    assert not handler.explain


def test_explain_without_insights(tmp_path: Path) -> None:
    handler = initialized(tmp_path, script(tmp_path))
    with pytest.raises(AttributeError, match="get_insights"):
        handler.handle([[1.0]], context(tmp_path, {"explain": "True"}))


def test_describe(tmp_path: Path) -> None:
    headers = {"describe": "True"}
    assert Explaining().handle([{}], context(tmp_path, headers)) == [{"made": "of glass"}]
    assert BaseHandler().handle([{}], context(tmp_path, headers)) == [None]


@pytest.mark.check("handlers", 19)
@pytest.mark.check("model config", 19)
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("form", ["compile", "text", "arguments"])
def test_compile(tmp_path: Path, caplog: pytest.LogCaptureFixture, backend: str, form: str) -> None:
    section: Any = {
        "compile": {"compile": {"enable": True, "backend": backend}},
        "text": backend,
        "arguments": {"backend": backend},
    }[form]
    config = {"pt2": section}
    before = json.dumps(config)
    with caplog.at_level(logging.INFO):
        handler = initialized(tmp_path, eager(tmp_path), model_yaml_config=config)
    assert f"Compiled model with backend {backend}" in caplog.messages
    assert ("deprecated" in caplog.text) == (form != "compile")
    assert json.dumps(config) == before
    assert isinstance(handler.model, torch._dynamo.eval_frame.OptimizedModule)


@pytest.mark.check("handlers", 19)
@pytest.mark.check("model config", 20)
@pytest.mark.check("model config", 21)
@pytest.mark.parametrize(
    "section",
    [
        {"compile": {"enable": False}},
        {"compile": {}},
        {"compile": None},
        {"compile": {"backend": "eager"}},
        {"export": {}},
        None,
    ],
)
def test_no_compile(tmp_path: Path, section: Any) -> None:
    handler = initialized(tmp_path, eager(tmp_path), model_yaml_config={"pt2": section})
    assert type(handler.model).__name__ == "Doubler"


@pytest.mark.check("handlers", 19)
@pytest.mark.parametrize("section", [5, ["eager"]])
def test_pt2_of_another_kind(tmp_path: Path, section: Any) -> None:
    with pytest.raises(ValueError, match="pt2 should be str or dict"):
        initialized(tmp_path, eager(tmp_path), model_yaml_config={"pt2": section})


@pytest.mark.check("handlers", 19)
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"backend": "warp"}, "warp is not a supported backend"),
        (
            {"backend": "openvino"},
            "Compiling model model with backend openvino has failed \n Proceeding without compilation",
        ),
        (
            {"backend": "inductor", "mode": "no-such"},
            "Compiling model model with backend inductor, mode no-such has failed \n Proceeding without compilation",
        ),
    ],
)
def test_compile_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture, options: Any, line: str) -> None:
    config = {"pt2": {"compile": {"enable": True, **options}}}
    handler = initialized(tmp_path, eager(tmp_path), model_yaml_config=config)
    assert line in caplog.messages
    assert handler.handle([[1.0]], context(tmp_path)) == [[2.0]]


@pytest.mark.parametrize(
    ("config", "profiled"),
    [
        ({"handler": {"profile": True}}, True),
        ({"handler": {"profile": False}}, False),
        ({"handler": {}}, False),
        ({"handler": None}, False),
        ({}, False),
        (None, False),
    ],
)
def test_timed_steps(tmp_path: Path, config: Any, profiled: bool) -> None:
    handler = initialized(tmp_path, script(tmp_path))
    seen = context(tmp_path, model_yaml_config=config)
    assert handler.handle([[1.0]], seen) == [[2.0]]
    steps = ["ts_handler_preprocess", "ts_handler_inference", "ts_handler_postprocess"] if profiled else []
    assert [update.name for update in seen.updates] == [*steps, "HandlerTime"]  # type: ignore[attr-defined]


def test_timed_without_context() -> None:
    class Plain:
        @timed
        def step(self, x: int) -> int:
            return x + 1

    assert Plain().step(1) == 2


@pytest.mark.check("handlers", 20)
@pytest.mark.check("explain", 9)
@pytest.mark.check("explain", 11)
@pytest.mark.parametrize(
    ("value", "traces"), [("TRUE", 1), ("1", 1), ("0", 0), ("no", 0), ("OFF", 0), ("False", 0), ("", 0)]
)
def test_profiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, value: str, traces: int
) -> None:
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", value)
    monkeypatch.setenv("TORCH_PROFILER_DIR", str(tmp_path / "traces"))
    manifest = script(tmp_path)
    manifest["model"]["modelName"] = "packed"
    handler = initialized(tmp_path, manifest)
    handler.profiler_args = {"activities": [torch.profiler.ProfilerActivity.CPU], "record_shapes": True}
    with caplog.at_level(logging.INFO):
        assert handler.handle([[1.0]], context(tmp_path)) == [[2.0]]
    assert len(list((tmp_path / "traces" / "packed").glob("*.pt.trace.json"))) == traces
    assert (f"Saving chrome trace to : {tmp_path / 'traces' / 'packed'}" in caplog.messages) == bool(traces)
    assert ("Self CPU time total" in caplog.text) == bool(traces)


@pytest.mark.check("explain", 10)
def test_a_profile_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "TRUE")
    monkeypatch.setenv("TORCH_PROFILER_DIR", str(tmp_path / "traces"))
    handler = initialized(tmp_path, script(tmp_path))
    ready: list[Any] = []
    handler.profiler_args = {"activities": [torch.profiler.ProfilerActivity.CPU], "on_trace_ready": ready.append}
    for _ in range(2):
        handler.handle([[1.0], [2.0]], context(tmp_path))
    assert len(ready) == 2
    assert not (tmp_path / "traces").exists()


@pytest.mark.check("explain", 14)
def test_describe_is_not_profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENABLE_TORCH_PROFILER", "TRUE")
    assert Explaining().handle([{}], context(tmp_path, {"describe": "True"})) == [{"made": "of glass"}]


def test_flags() -> None:
    assert base_handler.PT2_AVAILABLE is True
    assert base_handler.PT230_AVAILABLE is True
    assert base_handler.PROFILER_AVAILABLE is True
    assert {base_handler.XLA_AVAILABLE, base_handler.IPEX_AVAILABLE, base_handler.ONNX_AVAILABLE} <= {True, False}
    assert callable(base_handler.setup_ort_session)
