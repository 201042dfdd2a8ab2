"""Labels, classes, configuration, exceptions, versions."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import ts
import ts.service
import ts.version
from ts.handler_utils.utils import import_class
from ts.utils.util import (
    CLEANUP_REGEX,
    PredictionException,
    PT2Backend,
    check_valid_pt2_backend,
    deprecated,
    get_yaml_config,
    list_classes_from_module,
    load_label_mapping,
    map_class_to_label,
)


def test_version() -> None:
    assert ts.__version__ == ts.version.__version__ == Path(ts.version.version_path).read_text().strip()


def test_service_re_exports() -> None:
    assert ts.service.PREDICTION_METRIC == "PredictionTime"
    assert ts.service.PredictionException is PredictionException
    assert ts.service.get_yaml_config is get_yaml_config
    assert {"Context", "RequestProcessor", "emit_metrics"} <= set(dir(ts.service))


def test_prediction_exception() -> None:
    error = PredictionException("no", 513)
    assert (error.message, error.error_code, str(error)) == ("no", 513, "no : 513")
    assert PredictionException("no").error_code == 500


def mapping(tmp_path: Path, content: object) -> dict[str, str] | None:
    path = tmp_path / "index_to_name.json"
    path.write_text(json.dumps(content))
    return load_label_mapping(path)


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ({"0": "cat"}, {"0": "cat"}),
        ({"0": ["n01", "cat"]}, {"0": "cat"}),
        ({"object_type_names": ["a", "b"]}, {"0": "a", "1": "b"}),
    ],
)
def test_label_files(tmp_path: Path, content: object, labels: dict[str, str]) -> None:
    assert mapping(tmp_path, content) == labels


@pytest.mark.parametrize("content", [{"0": 1}, {"0": [1]}, {"0": []}, {"object_type_names": [1]}])
def test_labels_that_are_no_text(tmp_path: Path, content: object) -> None:
    with pytest.raises(Exception, match=r"labels in index->name mapping must be either str or List\[str\]"):
        mapping(tmp_path, content)


def test_a_label_file_must_hold_an_object(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r'index->name JSON mapping should be in "class": "label" format\.'):
        mapping(tmp_path, ["a"])


def test_a_label_file_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "index_to_name.json"
    path.write_text("{bad")
    with pytest.raises(json.JSONDecodeError, match=r"^index_to_name\.json: Expecting property name"):
        load_label_mapping(path)


def test_missing_label_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "none.json"
    assert load_label_mapping(path) is None
    assert caplog.messages == [f"'{path}' is missing. Inference output will not include class name."]


def test_classes_to_labels() -> None:
    probs = [[0.7, 0.3], [0.6, 0.4]]
    assert map_class_to_label(list(probs)) == [{"0": 0.7, "1": 0.3}, {"0": 0.6, "1": 0.4}]
    named = map_class_to_label(list(probs), {"0": "a", "1": "b"}, [[1, 0], [0, 1]])
    assert [list(row.items()) for row in named] == [[("b", 0.7), ("a", 0.3)], [("a", 0.6), ("b", 0.4)]]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (([[1.0]], {"5": "a"}), KeyError, "0"),
        ((((1.0,),),), Exception, "Convert classes to list before doing mapping"),
        (([[1.0]], ["a"]), Exception, "Mapping must be a dict"),
    ],
)
def test_classes_without_labels(arguments: tuple[Any, ...], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        map_class_to_label(*arguments)


def test_classes_of_a_module() -> None:
    module = ModuleType("made_up")
    exec("class B: pass\nclass A(B): pass\nfrom collections import OrderedDict\nx = 1", module.__dict__)
    assert [cls.__name__ for cls in list_classes_from_module(module)] == ["A", "B"]
    assert [cls.__name__ for cls in list_classes_from_module(module, module.A)] == ["A"]


def test_backends(caplog: pytest.LogCaptureFixture) -> None:
    expected = (
        "eager aot_eager inductor nvfuser aot_nvfuser aot_cudagraphs ofi fx2trt onnxrt ipex torchxla_trace_once "
        "openvino tensorrt hpu_backend"
    )
    assert [backend.value for backend in PT2Backend] == expected.split()
    assert check_valid_pt2_backend("inductor")
    assert not caplog.messages
    assert not check_valid_pt2_backend("warp")
    assert caplog.messages == ["warp is not a supported backend"]


def test_yaml(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: {b: [1]}")
    assert get_yaml_config(path) == {"a": {"b": [1]}}
    path.write_text("")
    assert get_yaml_config(path) is None


def test_cleanup_regex() -> None:
    assert CLEANUP_REGEX.pattern == "<.*?>|&([a-z0-9]+|#[0-9]{1,6}|#x[0-9a-f]{1,6});"
    assert CLEANUP_REGEX.sub("", "<b>a</b>&amp;&#39;b") == "ab"


def test_deprecated() -> None:
    @deprecated("2.0", "new_name", DeprecationWarning)
    def old_name(x: int) -> int:
        return x + 1

    with pytest.warns(DeprecationWarning, match="old_name is deprecated in 2.0 and moved to new_name"):
        assert old_name(1) == 2
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        deprecated("2.0")(len)("")
    assert [(w.category, str(w.message)) for w in caught] == [(PendingDeprecationWarning, "len is deprecated in 2.0")]


def test_import_class() -> None:
    from collections import OrderedDict

    assert import_class("collections.OrderedDict") is OrderedDict
    assert import_class("OrderedDict", "collections") is OrderedDict


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("", "class name is not defined"),
        ("OrderedDict", "module name is not defined."),
        ("collections.NoSuch", "class:NoSuch not found in module:collections."),
    ],
)
def test_import_class_that_does_not_exist(name: str, text: str) -> None:
    with pytest.raises(ImportError, match=text):
        import_class(name)
