"""`torch-model-archiver inspect`: what it tells of archives, whatever their form."""

from __future__ import annotations

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from model_archiver import ModelArchiver, ModelArchiverConfig
from model_archiver.commands import run_command
from model_archiver.inspection import inspect

MODEL = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, x):
        return self.layer(x)
"""


HANDLER = """
import json, os.path
import numpy as np, labels
from PIL import Image
from . import x
from ts.context import Context


class Handler(object):
    def initialize(self, context): ...

    def handle(self, data, context):
        import transformers.models
"""


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("h.py").write_text(HANDLER)
    Path("net.py").write_text(MODEL)
    Path("labels.py").write_text("")
    Path("cfg.yaml").write_text("batchSize: 4\nhandler: {a: 1}\n")
    Path("req.txt").write_text("numpy>=1.2  # why\ntorch==2.1\ntorchvision\n-f wheels\n")
    Path("_c.cpython-312-x86_64-linux-gnu.so").touch()
    return tmp_path


def pack(weights: Path, form: str = "default") -> Path:
    ModelArchiver.generate_model_archive(
        ModelArchiverConfig(
            model_name="m",
            handler="h.py",
            version="2.0",
            serialized_file=str(weights),
            model_file="net.py",
            extra_files="labels.py,_c.cpython-312-x86_64-linux-gnu.so",
            export_path="out",
            archive_format=form,
            requirements_file="req.txt",
            config_file="cfg.yaml",
            force=True,
        )
    )
    return Path("out", {"default": "m.mar", "tgz": "m.tar.gz", "no-archive": "m"}[form])


def net() -> Any:
    names: dict[str, Any] = {"__name__": "net"}
    exec(MODEL, names)
    return names["Net"]()


@pytest.mark.parametrize("form", ["default", "tgz", "no-archive"])
def test_everything_that_can_be_told(form: str) -> None:
    torch.save(net().state_dict(), "w.pt")
    path = pack(Path("w.pt"), form)
    found = inspect(path)
    assert found["form"] == {"default": "mar", "tgz": "tar.gz", "no-archive": "directory"}[form]
    assert found["packed_bytes"] == (path.stat().st_size if path.is_file() else None)
    assert found["manifest"]["model"]["modelVersion"] == "2.0"
    assert found["handler"] == {"name": "h.py", "file": "h.py", "entry": "class Handler"}
    assert found["serialized_file"] == {"name": "w.pt", "kind": "state dict (torch.save)"}
    assert found["model_file"] == {"name": "net.py", "classes": ["Net"]}
    assert found["requirements"] == ["numpy>=1.2", "torch==2.1", "torchvision", "-f wheels"]
    assert found["torch"] == ["torch==2.1", "torchvision"]
    assert found["config"] == {"batchSize": 4, "handler": {"a": 1}}
    assert found["imports"] == ["PIL", "numpy", "torch", "transformers"]
    assert found["python"] == ["3.12"]
    files = {file["name"]: file["bytes"] for file in found["files"]}
    assert files.keys() == {
        "MAR-INF/MANIFEST.json",
        "_c.cpython-312-x86_64-linux-gnu.so",
        "cfg.yaml",
        "h.py",
        "labels.py",
        "net.py",
        "req.txt",
        "w.pt",
    }
    assert files["w.pt"] == Path("w.pt").stat().st_size
    assert found["unpacked_bytes"] == sum(files.values())


def save_state(path: Path) -> None:
    torch.save(net().state_dict(), path)


def save_old(path: Path) -> None:
    torch.save(net().state_dict(), path, _use_new_zipfile_serialization=False)


def save_script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # users still have such files
        torch.jit.trace(net(), torch.ones(1, 2)).save(str(path))  # type: ignore[no-untyped-call]


def save_whole(path: Path) -> None:
    """As `torch.save(model)` does, without a module `net` that could be imported here."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02cnet\nNet\nq\x00)\x81q\x01.")


def save_exported(path: Path) -> None:
    torch.export.save(torch.export.export(net(), (torch.ones(1, 2),)), path)


def save_compiled(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data/aotinductor/model/x.wrapper.so", b"")


def save_safe(path: Path) -> None:
    path.write_bytes((2).to_bytes(8, "little") + b"{}")


def save_nothing(path: Path) -> None:
    path.write_bytes(b"")


def save_odd_zip(path: Path) -> None:
    path.write_bytes(b"PK and no more")


@pytest.mark.parametrize(
    ("save", "name", "kind"),
    [
        (save_state, "w.pth", "state dict (torch.save)"),
        (save_old, "w.pt", "pickle, as torch.save wrote it before version 1.6"),
        (save_script, "w.pt", "TorchScript"),
        (save_whole, "w.pt", "pickled objects (torch.save), which need net.Net"),
        (save_exported, "w.pt2", "exported program (torch.export)"),
        (save_compiled, "w.pt2", "package compiled ahead of time (AOTInductor)"),
        (save_safe, "w.safetensors", "safetensors"),
        (save_nothing, "w.onnx", "ONNX"),
        (save_nothing, "w.bin", None),
        (save_odd_zip, "w.pt", None),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_kinds_of_weights(save: Any, name: str, kind: str | None) -> None:
    save(Path(name))
    assert inspect(pack(Path(name), "tgz"))["serialized_file"] == {"name": name, "kind": kind}


def test_an_archive_without_a_manifest() -> None:
    with zipfile.ZipFile("m.mar", "w") as archive:
        archive.writestr("h.py", "")
    found = inspect(Path("m.mar"))
    assert found["manifest"] is None
    assert [found[name] for name in ("handler", "serialized_file", "model_file", "requirements", "config")] == [
        None
    ] * 5
    assert found["files"] == [{"name": "h.py", "bytes": 0}]


def test_an_archive_of_another_language_is_shown_too(capsys: pytest.CaptureFixture[str]) -> None:
    Path("foo.so").touch()
    ModelArchiver.generate_model_archive(ModelArchiverConfig("m", "foo:Bar", "1", runtime="LSP", export_path="."))
    assert run_command(["inspect", "m.mar"]) == 0
    assert "  runtime       LSP\n  made " in capsys.readouterr().out


def test_a_handler_that_cannot_be_understood_is_still_named() -> None:
    Path("h.py").write_text("def handle(:")
    Path("w.pt").touch()
    found = inspect(pack(Path("w.pt")))
    assert found["handler"] == {"name": "h.py", "file": "h.py", "entry": None}
    assert found["imports"] == ["torch"]


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(net().state_dict(), "w.pt")
    path = pack(Path("w.pt"))
    size = path.stat().st_size
    assert run_command(["inspect", str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("out/m.mar: model archive (zip), 8 files, ")
    assert lines[0].endswith(f" kB, {size / 1000:.1f} kB packed")
    assert lines[1:3] == ["  model         m, version 2.0", "  runtime       python"]
    assert lines[4:12] == [
        "  handler       h.py: class Handler",
        "  weights       w.pt: state dict (torch.save)",
        "  model file    net.py: class Net",
        "  requirements  numpy>=1.2, torch==2.1, torchvision, -f wheels",
        '  config        {"batchSize": 4, "handler": {"a": 1}}',
        "  imports       PIL, numpy, torch, transformers",
        "  python        3.12",
        "  torch         torch==2.1, torchvision",
    ]
    assert lines[12] == "  files"
    assert f"{Path('h.py').stat().st_size:>14}  h.py" in lines


def test_several_archives_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    Path("w.pt").touch()
    first, second = pack(Path("w.pt")), pack(Path("w.pt"), "tgz")
    assert run_command(["inspect", "--json", str(first), str(second)]) == 0
    assert [document["archive"] for document in json.loads(capsys.readouterr().out)] == ["out/m.mar", "out/m.tar.gz"]


def test_what_cannot_be_inspected(capsys: pytest.CaptureFixture[str]) -> None:
    Path("x.mar").write_bytes(b"text")
    with zipfile.ZipFile("y.mar", "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", "{no")
    assert run_command(["inspect", "x.mar", "absent", "y.mar"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    lines = told.err.splitlines()
    assert lines[:2] == ["x.mar: not a zip archive, as the suffix .mar promises", "absent: No such file or directory"]
    assert lines[2].startswith("y.mar: MAR-INF/MANIFEST.json: not JSON: ")
