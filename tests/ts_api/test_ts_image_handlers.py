"""Segmentation, detection, saved tensors, and explanations of image models."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from ts.context import Context, RequestProcessor
from ts.metrics.metrics_store import MetricsStore
from ts.torch_handler.dali_image_classifier import DALIImageClassifier
from ts.torch_handler.densenet_handler import DenseNetHandler
from ts.torch_handler.image_classifier import ImageClassifier
from ts.torch_handler.image_segmenter import ImageSegmenter
from ts.torch_handler.object_detector import ObjectDetector

SEGMENTER = """
import torch

class Halves(torch.nn.Module):
    def forward(self, x):
        left = torch.zeros(x.shape[0], 3, x.shape[2], x.shape[3])
        left[:, 1, :, : x.shape[3] // 2] = 2.0
        left[:, 2, :, x.shape[3] // 2 :] = 4.0
        return {"out": left}
"""

DETECTOR = """
import torch

class Boxes(torch.nn.Module):
    def forward(self, images):
        found = {
            "boxes": torch.tensor([[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]),
            "labels": torch.tensor([2, 1, 2]),
            "scores": torch.tensor([0.9, 0.2, 0.5]),
        }
        return [found] * len(images)
"""

SCORES = """
import torch

class Scores(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = torch.nn.Linear(48, 5)

    def forward(self, x):
        return self.scores(x.reshape(x.shape[0], -1))
"""


def context(folder: Path, headers: dict[str, str] | None = None) -> Context:
    metrics: Any = MetricsStore({0: "a"}, "m")
    made = Context("m", str(folder), {"model": {"modelFile": "model.py"}}, 1, None, "0", metrics=metrics)
    made.request_ids, made.request_processor = {0: "a"}, [RequestProcessor(headers or {})]
    return made


def loaded(handler: Any, folder: Path, model: str) -> Any:
    (folder / "model.py").write_text(model)
    handler.initialize(context(folder))
    return handler


def picture(mode: str = "RGB", size: tuple[int, int] = (300, 240)) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert(mode).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.check("handlers", 16)
def test_segmenter(tmp_path: Path) -> None:
    handler = loaded(ImageSegmenter(), tmp_path, SEGMENTER)
    pixels, other = handler.handle([{"body": picture()}, {"data": picture("L")}], context(tmp_path))
    assert (len(pixels), len(pixels[0]), len(pixels[0][0])) == (224, 224, 2)
    assert pixels == other
    left, right = pixels[100][0], pixels[100][-1]
    assert left == [1.0, pytest.approx(torch.softmax(torch.tensor([0.0, 2.0, 0.0]), 0)[1].item())]
    assert right == [2.0, pytest.approx(torch.softmax(torch.tensor([0.0, 0.0, 4.0]), 0)[2].item())]
    assert torch.equal(
        handler.preprocess([{"body": picture()}])[0],
        ImageClassifier.image_processing(Image.open(io.BytesIO(picture()))),
    )


@pytest.mark.check("handlers", 16)
@pytest.mark.parametrize("labels", [None, {"1": "cat", "2": "dog"}])
def test_detector(tmp_path: Path, labels: dict[str, str] | None) -> None:
    if labels:
        (tmp_path / "index_to_name.json").write_text(json.dumps(labels))
    handler = loaded(ObjectDetector(), tmp_path, DETECTOR)
    name = "dog" if labels else "2"
    first = {name: [0.0, 1.0, 2.0, 3.0], "score": pytest.approx(0.9)}
    (answer,) = handler.handle([{"body": picture()}], context(tmp_path))
    assert answer == [first, {name: [8.0, 9.0, 10.0, 11.0], "score": 0.5}]
    assert list(answer[0]) == [name, "score"]
    handler.threshold = 0.6
    assert handler.handle([{"body": picture()}] * 2, context(tmp_path)) == [[first], [first]]


def test_detector_sees_the_whole_image(tmp_path: Path) -> None:
    handler = loaded(ObjectDetector(), tmp_path, DETECTOR)
    batch = handler.preprocess([{"body": picture("RGBA", (30, 20))}])
    assert batch.shape == (1, 3, 20, 30)
    assert 0 <= batch.min() <= batch.max() <= 1


def test_saved_tensors(tmp_path: Path) -> None:
    handler = loaded(DenseNetHandler(), tmp_path, SCORES)
    tensor = torch.rand(48)
    buffer = io.BytesIO()
    torch.save(tensor, buffer)
    (answer,) = handler.handle([{"body": buffer.getvalue()}], context(tmp_path))
    assert torch.allclose(answer, handler.model(tensor[None]))
    assert not answer.requires_grad


def explained(folder: Path, row: dict[str, Any]) -> Any:
    handler = loaded(ImageClassifier(), folder, SCORES)
    return handler, handler.handle([row], context(folder, {"explain": "True"}))


@pytest.mark.check("handlers", 17)
@pytest.mark.check("explain", 2)
def test_explanation_has_the_shape_of_the_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = torch.rand(3, 4, 4).tolist()
    _, (attributions,) = explained(tmp_path, {"data": image})
    assert torch.tensor(attributions).shape == (3, 4, 4)
    assert "input shape torch.Size([1, 3, 4, 4])" in capsys.readouterr().out


def test_explanations_of_a_linear_model_are_known(tmp_path: Path) -> None:
    """Integrated gradients of a linear model from a black image: weight times input."""
    image = torch.rand(3, 4, 4)
    handler, (attributions,) = explained(tmp_path, {"data": image.tolist(), "target": bytearray(b"2")})
    expected = handler.model.scores.weight[2].reshape(3, 4, 4) * image
    assert torch.allclose(torch.tensor(attributions), expected, atol=1e-5)


@pytest.mark.check("explain", 15)
def test_explanations_name_the_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("captum", "captum.attr"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match="captum"):
        explained(tmp_path, {"data": torch.rand(3, 4, 4).tolist()})


def test_dali_classifier_prepares_by_its_pipeline_and_answers_as_the_image_classifier() -> None:
    assert DALIImageClassifier.postprocess is ImageClassifier.postprocess
    assert DALIImageClassifier.preprocess is not ImageClassifier.preprocess
    assert DALIImageClassifier().get_max_result_classes() == 5
