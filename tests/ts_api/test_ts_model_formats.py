"""Models that are neither eager nor TorchScript: ONNX, exported programs, compiled libraries."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from ts.context import Context, RequestProcessor
from ts.metrics.metrics_store import MetricsStore
from ts.torch_handler.base_handler import BaseHandler

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")


class Doubler(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


def context(folder: Path, file: str, config: Any = None) -> Context:
    metrics: Any = MetricsStore({0: "a"}, "m")
    manifest = {"model": {"serializedFile": file}}
    made = Context("m", str(folder), manifest, 1, None, "0", metrics=metrics, model_yaml_config=config)
    made.request_ids, made.request_processor = {0: "a"}, [RequestProcessor({})]
    return made


def answer(folder: Path, file: str, config: Any) -> Any:
    handler = BaseHandler()
    given = context(folder, file, config)
    handler.initialize(given)
    return handler.handle([[1.0, 2.5]], given)


def exported() -> torch.export.ExportedProgram:
    return torch.export.export(Doubler(), (torch.zeros(1, 2),))


@pytest.mark.parametrize("export", [{}, {"aot_compile": True}, {"aot_compile": False}])
def test_an_exported_program(tmp_path: Path, export: dict[str, bool]) -> None:
    torch.export.save(exported(), tmp_path / "model.pt2")
    assert answer(tmp_path, "model.pt2", {"pt2": {"export": export}}) == [[2.0, 5.0]]


@pytest.mark.parametrize("config", [None, {}, {"pt2": {"compile": {"enable": False}}}])
def test_an_exported_program_that_the_configuration_does_not_mention(tmp_path: Path, config: Any) -> None:
    torch.export.save(exported(), tmp_path / "model.pt2")
    with pytest.raises(RuntimeError, match="No model weights could be loaded"):
        answer(tmp_path, "model.pt2", config)


@needs_compiler
@pytest.mark.timeout(300)  # the compiler takes half a minute of a processor
@pytest.mark.filterwarnings("ignore")  # of the compiler's own modules
def test_a_compiled_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    from torch._inductor import aoti_compile_and_package

    quick = {"aot_inductor.precompile_headers": False, "aot_inductor.compile_wrapper_opt_level": "O0"}
    aoti_compile_and_package(exported(), package_path=str(tmp_path / "model.pt2"), inductor_configs=quick)
    assert answer(tmp_path, "model.pt2", {"pt2": {"export": {"aot_compile": True}}}) == [[2.0, 5.0]]
    with pytest.raises(RuntimeError, match=r"set pt2\.export\.aot_compile to run it"):
        answer(tmp_path, "model.pt2", {"pt2": {"export": {}}})


def test_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    if importlib.util.find_spec("onnxruntime") is None:
        pytest.skip("no onnxruntime")
    numbers = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 2]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "x"], ["y"])], "double", *[[n] for n in numbers])
    opset = [onnx.helper.make_opsetid("", 13)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "model.onnx")
    handler = BaseHandler()
    handler.initialize(context(tmp_path, "model.onnx"))
    (output,) = handler.model.run(None, {"x": torch.tensor([[1.0, 2.5]]).numpy()})
    assert output.tolist() == [[2.0, 5.0]]
    assert handler.model.get_providers() == ["CPUExecutionProvider"]
