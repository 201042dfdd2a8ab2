"""The digits example: it trains, packs and reads its own pictures, and the pictures are what they claim to be."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from model_archiver import ModelArchiver, ModelArchiverConfig

DIGITS = Path(__file__).parents[2] / "docs" / "examples" / "digits"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def example() -> Iterator[SimpleNamespace]:
    """The example's modules, imported as its own directory would: they lie beside each other in the archive as well."""
    names = ("model", "train", "digits_handler")
    for name in names:  # other tests of this process may have loaded models by the same names
        sys.modules.pop(name, None)
    sys.path.insert(0, str(DIGITS))
    try:
        modules: dict[str, ModuleType] = {name: importlib.import_module(name) for name in names}
        yield SimpleNamespace(**modules)
    finally:
        sys.path.remove(str(DIGITS))
        for name in names:
            sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state dict, trained by the command that the example names."""
    path = tmp_path_factory.mktemp("digits") / "model.pt"
    command = [sys.executable, "-W", "error", str(DIGITS / "train.py"), "--output", str(path)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return path


@pytest.fixture(scope="module")
def classifier(example: SimpleNamespace, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The handler, initialized from the unpacked archive."""
    directory = tmp_path_factory.mktemp("archive")
    ModelArchiver.generate_model_archive(
        ModelArchiverConfig(
            model_name="digits",
            version="1.0",
            model_file=str(DIGITS / "model.py"),
            serialized_file=str(weights),
            handler=str(DIGITS / "digits_handler.py"),
            extra_files=str(DIGITS / "index_to_name.json"),
            export_path=str(directory),
        )
    )
    with zipfile.ZipFile(directory / "digits.mar") as archive:
        archive.extractall(directory / "model")
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))
    properties = {"model_dir": str(directory / "model"), "gpu_id": None, "limit_max_image_pixels": True}
    handler = example.digits_handler.DigitClassifier()
    handler.initialize(
        SimpleNamespace(manifest=manifest, system_properties=properties, model_yaml_config={}, metrics=None)
    )
    return handler


def read(classifier: Any, *bodies: bytes) -> list[dict[str, float]]:
    scans = classifier.preprocess([{"body": bytearray(body)} for body in bodies])
    answers: list[dict[str, float]] = classifier.postprocess(classifier.inference(scans))
    return answers


def picture(digit: int) -> bytes:
    return (DIGITS / f"{digit}.png").read_bytes()


def test_every_picture_is_read_right(classifier: Any) -> None:
    answers = read(classifier, *map(picture, range(10)))
    assert [max(answer, key=answer.__getitem__) for answer in answers] == NAMES


def test_an_answer_names_the_three_likeliest_digits_in_order(classifier: Any) -> None:
    (answer,) = read(classifier, picture(7))
    shares = list(answer.values())
    assert next(iter(answer)) == "seven"
    assert len(shares) == 3
    assert shares == sorted(shares, reverse=True)
    assert 0.9 < sum(shares) <= 1.0001


@pytest.mark.parametrize("digit", range(10))
def test_a_picture_is_exactly_a_held_out_scan(example: SimpleNamespace, digit: int) -> None:
    split = example.train.load_split()
    with Image.open(DIGITS / f"{digit}.png") as image:
        scan = example.digits_handler.to_scan(image)
    held_out = split.held_scans[split.held_digits == digit]
    assert (held_out == scan).flatten(1).all(dim=1).any()
    assert not (split.scans == scan).flatten(1).all(dim=1).any()


def test_other_sizes_and_colours_become_scans(example: SimpleNamespace) -> None:
    scan = example.digits_handler.to_scan(Image.new("RGBA", (31, 17), "white"))
    assert scan.shape == (1, 8, 8)
    assert scan.dtype == torch.float32
    assert (scan == 1).all()


def test_bytes_that_are_no_picture_are_refused(classifier: Any) -> None:
    with pytest.raises(OSError, match="cannot identify image"):
        read(classifier, b"not a picture")


def test_a_network_that_cannot_read_is_not_written(
    example: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(example.train, "EPOCHS", 0)
    assert example.train.main(["--output", str(tmp_path / "model.pt")]) == 1
    assert "nothing written" in capsys.readouterr().err
    assert not (tmp_path / "model.pt").exists()


def test_pictures_in_the_repository_are_what_training_writes(example: SimpleNamespace, tmp_path: Path) -> None:
    example.train.write_scans(example.train.load_split(), tmp_path)
    for digit in range(10):
        with Image.open(tmp_path / f"{digit}.png") as written, Image.open(DIGITS / f"{digit}.png") as kept:
            assert written.mode == kept.mode == "L"
            assert written.tobytes() == kept.tobytes()
