"""The map `openInference` of a model's YAML."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from harness.scene import Scene
from modelserver.oip.datatypes import KNOWN
from modelserver.settings.model_yaml import read_yaml
from modelserver.settings.open_inference import DATATYPES, Declaration, DeclaredTensor, read_declaration

WHOLE = """
mapping: rows
inputs:
  - {name: image, datatype: FP32, shape: [-1, 3, 224, 224]}
  - {name: threshold, datatype: FP64, shape: [-1], optional: true}
outputs:
  - {name: label, datatype: BYTES, shape: [-1]}
"""


def test_a_whole_map() -> None:
    image = DeclaredTensor(name="image", datatype="FP32", shape=(-1, 3, 224, 224))
    threshold = DeclaredTensor(name="threshold", datatype="FP64", shape=(-1,), optional=True)
    label = DeclaredTensor(name="label", datatype="BYTES", shape=(-1,))
    expected = Declaration(mapping="rows", inputs=(image, threshold), outputs=(label,))
    assert read_declaration(yaml.safe_load(WHOLE)) == (expected, [])


def test_nothing_is_declared() -> None:
    assert read_declaration({}) == (Declaration(mapping="request", inputs=(), outputs=()), [])


def test_the_datatypes_are_those_that_workers_know() -> None:
    assert set(DATATYPES) == KNOWN


@pytest.mark.parametrize(
    ("entry", "warning"),
    [
        (5, "Invalid openInference.inputs[0]: 5, should be mapping with name, datatype and shape"),
        ({}, "Invalid openInference.inputs[0].name: null, should be string"),
        ({"name": "a", "datatype": "FP31"}, "Invalid openInference.inputs[0].datatype: FP31, should be one of BOOL, "),
        ({"name": "a", "datatype": "FP32"}, "Invalid openInference.inputs[0].shape: null, should be list of integers"),
        ({"name": "a", "datatype": "FP32", "shape": [-2]}, "Invalid openInference.inputs[0].shape: [-2], should be"),
        ({"name": "a", "datatype": "FP32", "shape": [True]}, "Invalid openInference.inputs[0].shape: [true], should"),
        (
            {"name": "a", "datatype": "FP32", "shape": [], "optional": 1},
            "Invalid openInference.inputs[0].optional: 1, should be true or false",
        ),
    ],
)
def test_a_list_with_something_wrong_is_ignored_whole(entry: Any, warning: str) -> None:
    good = {"name": "b", "datatype": "INT8", "shape": [1]}
    found, warnings = read_declaration({"inputs": [entry, good], "outputs": [good]})
    assert (found.inputs, len(found.outputs)) == ((), 1)
    (said,) = warnings
    assert said.startswith(warning)
    assert said.endswith(", ignore openInference.inputs")


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({"mapping": "row"}, "Invalid openInference.mapping: row, should be request or rows"),
        ({"mapping": ["rows"]}, "Invalid openInference.mapping: [rows], should be request or rows"),
        ({"inputs": {}}, "Invalid openInference.inputs: {}, should be list of tensors"),
        ({"input": []}, "Unknown key openInference.input: did you mean inputs?"),
        ({3: 4}, "Unknown key openInference.3"),
        (
            {"outputs": [{"name": "a", "datatype": "INT8", "shape": [1]}] * 2},
            "Invalid openInference.outputs: name a comes twice, ignore openInference.outputs",
        ),
    ],
)
def test_what_cannot_be_used_is_ignored_and_told(given: dict[Any, Any], warning: str) -> None:
    assert read_declaration(given) == (Declaration(), [warning])


def test_an_unknown_key_of_a_tensor_is_told() -> None:
    tensor = {"name": "a", "datatype": "INT8", "shape": [1], "dtype": "x"}
    found, warnings = read_declaration({"inputs": [tensor]})
    assert len(found.inputs) == 1
    assert warnings == ["Unknown key openInference.inputs[0].dtype: did you mean datatype?"]


def test_in_the_yaml_of_a_model() -> None:
    stated, notices = read_yaml({"openInference": yaml.safe_load(WHOLE)}, 0)
    assert (stated.open_inference.mapping, notices) == ("rows", [])
    stated, notices = read_yaml({"openInference": [1]}, 0)
    assert stated.open_inference == Declaration()
    (notice,) = notices
    text = "Invalid openInference: [1], should be mapping with mapping, inputs and outputs"
    assert (notice.level, notice.message) == ("WARN", text)


def test_it_becomes_an_option_of_the_model() -> None:
    import asyncio

    async def scene() -> str:
        return Scene(yaml={"openInference": {"mapping": "rows"}}).options.open_inference.mapping

    assert asyncio.run(scene()) == "rows"
