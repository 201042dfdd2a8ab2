"""Weights of eager models are mapped from their file, so that workers share them, wherever that makes no difference."""

from __future__ import annotations

import os
import textwrap
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ts.torch_handler.records import Records
from ts.torch_handler.weights import load_eager, load_package, load_torchscript

MODEL = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Linear(64, 64)
        self.norm = torch.nn.BatchNorm1d(64)
        self.last = torch.nn.Linear(64, 64)
        {more}

    def forward(self, x):
        return self.last(self.norm(self.first(x)))
"""
TIED = "self.last.weight = self.first.weight"
HALF = "self.half()"
LAZY = "self.last = torch.nn.LazyLinear(64)"
TRANSPOSED = "self.last.weight = torch.nn.Parameter(self.last.weight.t())"
OWN_LOADER = """
    def load_state_dict(self, state, strict=True):
        return super().load_state_dict({name: tensor * 2 for name, tensor in state.items()}, strict)
"""


class Shelf:
    """A model directory with weights in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.weights = directory / "weights.pt"

    def write(self, more: str = "", methods: str = "", file: str = "model.py") -> None:
        (self.directory / file).write_text(textwrap.dedent(MODEL).format(more=more) + methods)

    def save(self, **options: Any) -> dict[str, torch.Tensor]:
        """The weights of such a model without anything of its own; the model is one too until it is written."""
        for file in ("model.py", "plain.py"):
            self.write(file=file)
        state: dict[str, torch.Tensor] = load_eager(str(self.directory), "plain.py", None, "cpu").state_dict()
        torch.save(state, self.weights, **options)
        return state

    def load(self, *, weights: bool = True, directory: Path | None = None) -> Any:
        return load_eager(str(directory or self.directory), "model.py", str(self.weights) if weights else None, "cpu")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def mapped(tensor: torch.Tensor, path: Path) -> bool:
    """Whether the tensor lies in a mapping of the file."""
    place = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(number, 16) for number in line.split()[0].split("-"))
        if begin <= place < end:
            return line.endswith(os.path.realpath(path))
    return False


def same(model: Any, state: dict[str, torch.Tensor]) -> bool:
    own = model.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[name], state[name]) for name in own)


needs_maps = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="there is no /proc")


@needs_maps
def test_weights_lie_in_the_file(shelf: Shelf) -> None:
    state = shelf.save()
    model = shelf.load()
    assert same(model, state)
    assert all(mapped(tensor, shelf.weights) for tensor in model.state_dict().values())
    assert all(parameter.requires_grad for parameter in model.parameters())


@needs_maps
def test_what_a_model_writes_stays_its_own(shelf: Shelf) -> None:
    shelf.save()
    before = shelf.weights.read_bytes()
    model, other = shelf.load(), shelf.load()
    with torch.no_grad():
        model.first.weight.zero_()
    assert bool(other.first.weight.any())
    assert shelf.weights.read_bytes() == before


@needs_maps
@pytest.mark.parametrize("more", [TIED, HALF, LAZY, TRANSPOSED])
def test_weights_that_differ_from_the_model_are_copied(shelf: Shelf, more: str) -> None:
    state = shelf.save()
    shelf.write(more)
    plain = shelf.load(weights=False)
    plain.load_state_dict(state)
    model = shelf.load()
    assert same(model, plain.state_dict())
    assert [each.dtype for each in model.parameters()] == [each.dtype for each in plain.parameters()]
    assert not any(mapped(tensor, shelf.weights) for tensor in model.state_dict().values())
    assert (model.last.weight is model.first.weight) == (more == TIED)


@needs_maps
def test_a_model_that_loads_weights_in_its_own_way(shelf: Shelf) -> None:
    state = shelf.save()
    shelf.write(methods=OWN_LOADER)
    model = shelf.load()
    assert torch.equal(model.first.weight, state["first.weight"] * 2)
    assert not mapped(model.first.weight, shelf.weights)


@needs_maps
def test_files_that_others_may_change_are_copied(shelf: Shelf, tmp_path: Path) -> None:
    """A directory of the operator is served in its place, by a link."""
    state = shelf.save()
    link = tmp_path / "link"
    link.symlink_to(shelf.directory)
    model = shelf.load(directory=link)
    assert same(model, state)
    assert not mapped(model.first.weight, shelf.weights)


@needs_maps
def test_files_of_the_old_format_are_copied(shelf: Shelf) -> None:
    state = shelf.save(_use_new_zipfile_serialization=False)
    model = shelf.load()
    assert same(model, state)
    assert not mapped(model.first.weight, shelf.weights)


def drop(state: dict[str, Any]) -> None:
    del state["norm.bias"]


def add(state: dict[str, Any]) -> None:
    state["other"] = torch.zeros(1)


def reshape(state: dict[str, Any]) -> None:
    state["norm.bias"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("spoil", "text"), [(drop, "Missing key"), (add, "Unexpected key"), (reshape, "size mismatch for norm.bias")]
)
def test_weights_that_do_not_fit(shelf: Shelf, spoil: Callable[[dict[str, Any]], None], text: str) -> None:
    state = shelf.save()
    spoil(state)
    torch.save(state, shelf.weights)
    with pytest.raises(RuntimeError, match=text):
        shelf.load()


class Scripted(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module, again: torch.nn.Module) -> None:
        super().__init__()
        self.layer, self.again = layer, again
        self.register_buffer("offset", torch.arange(2048.0) / 2**22)
        self.register_buffer("small", torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.layer(x)).sum() + self.offset.sum() + self.small.sum()  # type: ignore[operator, no-any-return]


def scripted(path: Path, *, tied: bool = False) -> torch.Tensor:
    """Write TorchScript; returns what it answers."""
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 64)
    model = Scripted(layer, torch.nn.Linear(64, 64)).eval()
    if tied:
        model.again.weight = torch.nn.Parameter(layer.weight.detach().view(64, 64))
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.trace(model, torch.ones(1, 64)).save(str(path))  # type: ignore[no-untyped-call]
    answer: torch.Tensor = model(torch.ones(1, 64))
    return answer


def load_script(path: Path) -> Any:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return load_torchscript(str(path), torch.device("cpu"))


@needs_maps
def test_weights_of_torchscript_lie_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    answer = scripted(path)
    before = path.read_bytes()
    model = load_script(path)
    assert torch.allclose(model(torch.ones(1, 64)), answer)
    places = {name: mapped(tensor, path) for name, tensor in model.state_dict().items()}
    assert places == {
        "layer.weight": True,
        "layer.bias": False,  # less than a page
        "again.weight": True,
        "again.bias": False,
        "offset": True,
        "small": False,
    }
    assert all(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        model.layer.weight.zero_()
    assert not torch.allclose(model(torch.ones(1, 64)), answer), "the model has no other copy"
    assert path.read_bytes() == before
    assert torch.allclose(load_script(path)(torch.ones(1, 64)), answer)


@needs_maps
def test_tensors_of_torchscript_that_share_memory_stay_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    answer = scripted(path, tied=True)
    model = load_script(path)
    assert torch.allclose(model(torch.ones(1, 64)), answer)
    assert not any(mapped(tensor, path) for tensor in model.state_dict().values())


@needs_maps
def test_torchscript_that_others_may_change_is_copied(tmp_path: Path) -> None:
    directory, link = tmp_path / "directory", tmp_path / "link"
    directory.mkdir()
    link.symlink_to(directory)
    path = directory / "folder" / "model.pt"
    path.parent.mkdir()
    answer = scripted(path)
    model = load_script(link / "folder" / "model.pt")
    assert torch.allclose(model(torch.ones(1, 64)), answer)
    assert not mapped(model.layer.weight, path)


@needs_maps
def test_weights_of_an_exported_model_lie_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    model = torch.nn.Linear(64, 64).eval()
    torch.export.save(torch.export.export(model, (torch.zeros(1, 64),)), path)
    loaded = load_package(str(path), torch.device("cpu"), compiled=False)
    assert torch.allclose(loaded(torch.ones(1, 64)), model(torch.ones(1, 64)))
    assert mapped(loaded.state_dict()["weight"], path)


def test_records_are_found_by_their_bytes(tmp_path: Path) -> None:
    path = tmp_path / "records.zip"
    one, other = torch.zeros(2048), torch.zeros(2048)
    other[-1] = 1
    nan = torch.full((2048,), float("nan"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("aa", bytes(one.view(torch.uint8).tolist()))
        archive.writestr("bb", bytes(other.view(torch.uint8).tolist()))
        archive.writestr("cc", bytes(nan.view(torch.uint8).tolist()), zipfile.ZIP_DEFLATED)
    records = Records(str(path))
    found = [records.like(each) for each in (one, other, other + 1, nan)]
    assert [each is not None for each in found] == [True, True, False, False]
    for tensor, mine in zip(found, (one, other), strict=False):
        assert tensor is not None and torch.equal(tensor, mine)


def test_records_that_lie_between_numbers_are_left(tmp_path: Path) -> None:
    path = tmp_path / "records.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("odd", bytes(8192))
    assert Records(str(path)).like(torch.zeros(2048)) is None
