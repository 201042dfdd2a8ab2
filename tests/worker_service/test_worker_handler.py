"""Which code a handler's name leads to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from workshop import KeepingChannel, batch, load_frame, request, write_model

from modelserver.worker.service import Service
from ts.entry_point import Class, find_handler

FUNCTION = """
def handle(data, context):
    return None if data is None else ["module function"] * len(data)

def other(data, context):
    return None if data is None else ["named function"] * len(data)
"""

CLASS = """
class Only:
    def initialize(self, context):
        self.greeting = "class"

    def handle(self, data, context):
        return [self.greeting] * len(data)
"""


def answer(folder: Path, handler: str) -> str:
    service = Service.load(load_frame(folder, handler), KeepingChannel())
    replies = service.handle(batch(request()))
    assert replies.code == 200
    return replies.replies[0].body.decode()


@pytest.mark.parametrize("spec", ["h.py", "h", "/anywhere/h.py", "h.py:", "h:handle"])
def test_module_function(tmp_path: Path, spec: str) -> None:
    write_model(tmp_path, {"h.py": FUNCTION})
    assert answer(tmp_path, spec) == "module function"


@pytest.mark.parametrize("spec", ["h.py:other", "h:other", "/abs/dir/h.py:other"])
def test_named_function(tmp_path: Path, spec: str) -> None:
    write_model(tmp_path, {"h.py": FUNCTION})
    assert answer(tmp_path, spec) == "named function"


@pytest.mark.parametrize("spec", ["h.py", "h:no_such_function"])
def test_only_class(tmp_path: Path, spec: str) -> None:
    write_model(tmp_path, {"h.py": CLASS})
    assert answer(tmp_path, spec) == "class"


def test_imported_classes_do_not_count(tmp_path: Path) -> None:
    source = "from collections import OrderedDict\nfrom ts.context import Context\n" + CLASS
    write_model(tmp_path, {"h.py": source})
    assert answer(tmp_path, "h.py") == "class"


def test_handle_may_be_set_by_initialize(tmp_path: Path) -> None:
    source = """
    class Late:
        def __init__(self):
            self.handle = None
        def initialize(self, context):
            self.handle = lambda data, context: ["late"] * len(data)
    """
    write_model(tmp_path, {"h.py": source})
    assert answer(tmp_path, "h.py") == "late"


@pytest.mark.parametrize("files", [["pkg/__init__.py"], []], ids=["package", "namespace"])
def test_dotted_module_with_relative_import(tmp_path: Path, files: list[str]) -> None:
    sources = dict.fromkeys(files, "")
    sources["pkg/words.py"] = "WORD = 'relative'"
    sources["pkg/h.py"] = "from .words import WORD\ndef handle(data, context):\n    return data and [WORD]\n"
    write_model(tmp_path, sources)
    assert answer(tmp_path, "pkg.h") == "relative"


@pytest.mark.parametrize("name", ["json", "yaml", "statistics", "html"])
def test_the_models_file_beats_a_module_of_its_name(tmp_path: Path, name: str) -> None:
    write_model(tmp_path, {f"{name}.py": FUNCTION})
    assert answer(tmp_path, f"{name}.py") == "module function"
    assert sys.modules["json"] is json  # and the libraries keep theirs


def test_a_package_of_a_taken_name(tmp_path: Path) -> None:
    files = {
        "json/__init__.py": "",
        "json/words.py": "WORD = 'mine'",
        "json/h.py": "from .words import WORD\ndef handle(data, context):\n    return data and [WORD]\n",
    }
    write_model(tmp_path, files)
    assert answer(tmp_path, "json.h") == "mine"
    assert sys.modules["json"] is json


def test_a_module_imported_from_elsewhere_does_not_hide_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h", ModuleType("h"))
    write_model(tmp_path, {"h.py": FUNCTION})
    assert answer(tmp_path, "h.py") == "module function"


def test_its_module_can_be_imported_by_others_and_pickled(tmp_path: Path) -> None:
    source = """
    import pickle
    import sys

    def later(x):
        return x

    def handle(data, context):
        return data and [pickle.loads(pickle.dumps(later)) is later and sys.modules[__name__].later is later]
    """
    write_model(tmp_path, {"h.py": source})
    assert answer(tmp_path, "h.py") == "true"


def test_the_import_path_comes_after_the_model_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_model(tmp_path / "elsewhere", {"far.py": FUNCTION, "near.py": CLASS})
    write_model(tmp_path / "model", {"near.py": FUNCTION})
    monkeypatch.syspath_prepend(tmp_path / "elsewhere")
    assert answer(tmp_path / "model", "far.py") == "module function"
    assert answer(tmp_path / "model", "near.py") == "module function"


def test_built_in_handler_and_its_shadow(tmp_path: Path) -> None:
    write_model(tmp_path, {"image_classifier.py": FUNCTION})
    assert answer(tmp_path, "image_classifier") == "module function"


def test_a_directory_of_data_does_not_hide_a_built_in_handler(tmp_path: Path) -> None:
    write_model(tmp_path, {"base_handler/notes.txt": "", "weights.pth": ""}, serializedFile="weights.pth")
    found = find_handler("base_handler", tmp_path)
    assert isinstance(found, Class)
    assert found.cls.__module__ == "ts.torch_handler.base_handler"
