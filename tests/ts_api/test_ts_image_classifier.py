"""Images to tensors, and tensors to labels, against computations written out in plain torch."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ts.context import Context
from ts.torch_handler.image_classifier import ImageClassifier
from ts.torch_handler.transforms import CenterCrop, Compose, Normalize, Resize, ToRGB, ToTensor

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


class TenClasses(torch.nn.Module):
    """Scores that grow with the class number, whatever the image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.arange(10.0).repeat(x.shape[0], 1) + x.mean() * 0


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """A picture with detail at every scale, the same each time."""
    generator = torch.Generator().manual_seed(width * 1000 + height)
    pixels = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)
    return Image.frombytes("RGB", (width, height), bytes(pixels.flatten().tolist())).convert(mode)


def pixels_of(image: Image.Image) -> torch.Tensor:
    """Channels x height x width, 0..255."""
    width, height = image.size
    return torch.tensor(list(image.tobytes()), dtype=torch.float32).view(height, width, -1).permute(2, 0, 1)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> ImageClassifier:
    folder = tmp_path_factory.mktemp("model")
    torch.jit.script(TenClasses()).save(str(folder / "model.pt"))  # type: ignore[no-untyped-call]
    handler = ImageClassifier()
    handler.initialize(Context("m", str(folder), {"model": {"serializedFile": "model.pt"}}, 1, None, "0"))
    return handler


def predict(handler: ImageClassifier, *rows: dict[str, Any]) -> list[dict[str, float]]:
    return handler.postprocess(handler.inference(handler.preprocess(list(rows))))


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (640, 480), (257, 256), (100, 130), (256, 256), (256, 999)])
def test_classifier_transforms_match_plain_torch(size: tuple[int, int]) -> None:
    image = picture(*size)
    width, height = size
    short = min(size)
    target = (int(256 * height / short), int(256 * width / short))
    resized = interpolate(pixels_of(image)[None], target, mode="bilinear", antialias=True, align_corners=False)[0]
    top, left = round((target[0] - 224) / 2), round((target[1] - 224) / 2)
    cropped = resized[:, top : top + 224, left : left + 224].round().clamp(0, 255) / 255
    expected = (cropped - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)

    found = ImageClassifier.image_processing(image)
    assert found.shape == (3, 224, 224)
    assert found.dtype == torch.float32
    # Pillow rounds after each of its two passes: one step of 1/255 is the most that can differ.
    assert (found - expected).abs().max() <= 1.01 / 255 / min(STD)
    assert (found - expected).abs().mean() < 0.2 / 255 / min(STD)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((300, 400), (256, 341)), ((400, 300), (341, 256)), ((256, 256), (256, 256)), ((10, 1000), (256, 25600))],
)
def test_resize(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert Resize(256)(Image.new("L", size)).size == expected


@pytest.mark.parametrize(("size", "first"), [((6, 6), (1, 1)), ((7, 6), (2, 1)), ((9, 5), (2, 0)), ((4, 4), (0, 0))])
def test_center_crop(size: tuple[int, int], first: tuple[int, int]) -> None:
    image = picture(*size)
    cropped = CenterCrop(4)(image)
    assert cropped.size == (4, 4)
    assert cropped.getpixel((0, 0)) == image.getpixel(first)


def test_center_crop_of_a_small_image_is_padded_with_black() -> None:
    cropped = CenterCrop(5)(Image.new("L", (2, 3), 9))
    rows = pixels_of(cropped)[0].tolist()
    assert rows == [[0] * 5, [0, 9, 9, 0, 0], [0, 9, 9, 0, 0], [0, 9, 9, 0, 0], [0] * 5]


def test_to_tensor_of_bytes() -> None:
    image = picture(3, 2)
    assert torch.equal(ToTensor()(image), pixels_of(image) / 255)
    assert ToTensor()(picture(3, 2, "L")).shape == (1, 2, 3)
    assert ToTensor()(picture(3, 2, "RGBA")).shape == (4, 2, 3)


@pytest.mark.parametrize(
    ("mode", "value", "expected", "dtype"),
    [
        ("1", 1, 1.0, torch.float32),
        ("L", 255, 1.0, torch.float32),
        ("I", 70000, 70000, torch.int32),
        ("I;16", 300, 300, torch.int16),
        ("F", 0.25, 0.25, torch.float32),
    ],
)
def test_to_tensor_of_other_samples(mode: str, value: float, expected: float, dtype: torch.dtype) -> None:
    image = Image.new(mode, (9, 2))
    image.putpixel((8, 1), value)
    tensor = ToTensor()(image)
    assert tensor.dtype == dtype
    assert tensor.shape == (1, 2, 9)
    assert tensor[0, 1, 8].item() == expected
    assert tensor.sum().item() == expected


def test_normalize() -> None:
    tensor = torch.ones(2, 1, 1)
    assert Normalize([1.0, 0.0], [2.0, 4.0])(tensor).flatten().tolist() == [0.0, 0.25]
    assert tensor.tolist() == [[[1.0]], [[1.0]]]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_other_modes_are_converted(mode: str) -> None:
    image = picture(300, 300, mode)
    found = ImageClassifier.image_processing(image)
    assert torch.equal(found, ImageClassifier.image_processing(image.convert("RGB")))
    rgb = picture(2, 2)
    assert ToRGB()(rgb) is rgb


@pytest.mark.check("handlers", 15)
def test_five_classes_in_descending_order(classifier: ImageClassifier) -> None:
    (answer,) = predict(classifier, {"body": bytearray(encoded(picture(300, 300)))})
    expected = torch.softmax(torch.arange(10.0), 0)
    assert list(answer) == ["9", "8", "7", "6", "5"]
    assert list(answer.values()) == pytest.approx([expected[index].item() for index in (9, 8, 7, 6, 5)])


@pytest.mark.check("handlers", 15)
def test_kinds_of_input(classifier: ImageClassifier) -> None:
    data = encoded(picture(300, 300))
    tensor = ImageClassifier.image_processing(picture(300, 300))
    rows = [
        {"data": bytearray(data)},
        {"body": data},
        {"body": base64.b64encode(data).decode()},
        {"body": tensor.tolist()},
        {"data": None, "body": data},
    ]
    batch = classifier.preprocess(rows)
    assert batch.shape == (5, 3, 224, 224)
    for image in batch:
        assert torch.allclose(image, tensor)


@pytest.mark.parametrize("body", [b"not an image", "bm90IGFuIGltYWdl", b""])
def test_what_is_no_image(classifier: ImageClassifier, body: Any) -> None:
    with pytest.raises(Exception, match=r"cannot identify image file|could not determine|NoneType|stack|must be"):
        classifier.preprocess([{"body": body}])


def test_labels_and_number_of_classes(tmp_path: Path) -> None:
    torch.jit.script(TenClasses()).save(str(tmp_path / "model.pt"))  # type: ignore[no-untyped-call]
    (tmp_path / "index_to_name.json").write_text(json.dumps({str(n): f"class {n}" for n in range(10)}))
    handler = ImageClassifier()
    handler.initialize(Context("m", str(tmp_path), {"model": {"serializedFile": "model.pt"}}, 1, None, "0"))
    assert handler.get_max_result_classes() == 5
    handler.set_max_result_classes(2)
    assert [list(row) for row in predict(handler, {"body": encoded(picture(300, 300))})] == [["class 9", "class 8"]]
    handler.set_max_result_classes(11)
    with pytest.raises(RuntimeError):
        predict(handler, {"body": encoded(picture(300, 300))})


def test_a_subclass_with_its_own_transforms_gets_the_image_as_sent() -> None:
    class Digits(ImageClassifier):
        image_processing = Compose([ToTensor(), Normalize([0.5], [0.5])])

    handler = Digits()
    handler.device = torch.device("cpu")
    assert handler.preprocess([{"body": encoded(picture(28, 28, "L"))}]).shape == (1, 1, 28, 28)


@pytest.mark.parametrize("limited", [True, False])
def test_limit_on_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limited: bool) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    torch.jit.script(TenClasses()).save(str(tmp_path / "model.pt"))  # type: ignore[no-untyped-call]
    context = Context("m", str(tmp_path), {"model": {"serializedFile": "model.pt"}}, 1, None, "0", limited)
    ImageClassifier().initialize(context)
    assert (1000 if limited else None) == Image.MAX_IMAGE_PIXELS
