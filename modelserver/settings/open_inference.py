"""The `openInference` map of a model's YAML: what the model takes and gives in the Open Inference Protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from modelserver.settings.misspelt import nearest
from modelserver.settings.notices import printable
from modelserver.settings.yaml_values import is_integer, shown

DATATYPES: Final = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "BF16", "BYTES"),
)
MAPPINGS: Final = ("request", "rows")
KEYS: Final = ("mapping", "inputs", "outputs")
_TENSOR_KEYS: Final = ("name", "datatype", "shape", "optional")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredTensor:
    """One input or output; -1 in the shape is any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What handlers get for a request: the request (an object), or rows; and the tensors, where they are declared."""

    mapping: str = "request"
    inputs: tuple[DeclaredTensor, ...] = ()
    outputs: tuple[DeclaredTensor, ...] = ()


def read_declaration(given: Mapping[object, object]) -> tuple[Declaration, list[str]]:
    """The map and the warnings about what was wrong in it: a list of tensors counts whole or not at all."""
    warnings = [_unknown("openInference", shown(key), KEYS) for key in given if key not in KEYS]
    mapping = given.get("mapping", "request")
    if mapping not in MAPPINGS:
        warnings.append(f"Invalid openInference.mapping: {shown(mapping)}, should be request or rows")
        mapping = "request"
    tensors = {side: _tensors(f"openInference.{side}", given.get(side), warnings) for side in ("inputs", "outputs")}
    return Declaration(mapping=str(mapping), **tensors), warnings


def _tensors(place: str, given: object, warnings: list[str]) -> tuple[DeclaredTensor, ...]:
    if given is None:
        return ()
    if not isinstance(given, list):
        warnings.append(f"Invalid {place}: {shown(given)}, should be list of tensors")
        return ()
    try:
        tensors = tuple(_tensor(f"{place}[{index}]", entry, warnings) for index, entry in enumerate(given))
        _check_names(place, tensors)
    except ValueError as error:
        warnings.append(f"{error}, ignore {place}")
        return ()
    return tensors


def _tensor(place: str, given: object, warnings: list[str]) -> DeclaredTensor:
    """Raises ValueError."""
    if not isinstance(given, Mapping):
        raise ValueError(f"Invalid {place}: {shown(given)}, should be mapping with name, datatype and shape")
    warnings += [_unknown(place, shown(key), _TENSOR_KEYS) for key in given if key not in _TENSOR_KEYS]
    name, datatype, shape = given.get("name"), given.get("datatype"), given.get("shape")
    optional = given.get("optional", False)
    if not isinstance(name, str) or not name:
        raise ValueError(f"Invalid {place}.name: {shown(name)}, should be string")
    if datatype not in DATATYPES:
        raise ValueError(f"Invalid {place}.datatype: {shown(datatype)}, should be one of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or not all(is_integer(size) and size >= -1 for size in shape):
        raise ValueError(f"Invalid {place}.shape: {shown(shape)}, should be list of integers from -1 (any number)")
    if not isinstance(optional, bool):
        raise ValueError(f"Invalid {place}.optional: {shown(optional)}, should be true or false")
    return DeclaredTensor(name=name, datatype=str(datatype), shape=tuple(shape), optional=optional)


def _check_names(place: str, tensors: tuple[DeclaredTensor, ...]) -> None:
    names = [tensor.name for tensor in tensors]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"Invalid {place}: name {twice} comes twice")


def _unknown(place: str, key: str, known: tuple[str, ...]) -> str:
    near = nearest(key, known)
    return f"Unknown key {place}.{printable(key)}" + (f": did you mean {near}?" if near else "")
