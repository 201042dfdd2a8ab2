"""What a handler answers, as tensors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from modelserver.oip.datatypes import BF16, BYTES, DTYPES, KNOWN, Array, narrow
from modelserver.oip.failures import InvalidOutput, shown
from modelserver.oip.tensor import Tensor, Values

PROTOCOL_MEMBERS: Final = frozenset({"id", "model_name", "model_version", "parameters", "outputs"})
# What the making of an array may raise; errors of torch are of the last kind.
NO_ARRAY: Final = (ValueError, TypeError, OverflowError, RuntimeError)


@dataclass(slots=True)
class InferResponse:
    """Outputs carry arrays of their datatype's own dtype (of BF16 the bits), of BYTES a list of whatever JSON has."""

    id: str
    model_name: str
    model_version: str
    outputs: list[Tensor]
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def members(self) -> dict[str, Any]:
        """All but the outputs."""
        members: dict[str, Any] = {"id": self.id, "model_name": self.model_name, "model_version": self.model_version}
        return {**members, "parameters": self.parameters} if self.parameters else members


def read_document(element: Any) -> dict[str, Any]:
    """The object that a handler returned, or the JSON text of one. Raises `InvalidOutput`."""
    if isinstance(element, str | bytes | bytearray):
        try:
            element = json.loads(element)
        except (ValueError, RecursionError):
            raise InvalidOutput(f"handler returned no Open Inference response, but {shown(element)}") from None
    if not isinstance(element, dict):
        raise InvalidOutput(f"handler returned no Open Inference response, but {shown(element)}")
    return element


def read_response(document: dict[str, Any], id: str, model_name: str, model_version: str) -> InferResponse:
    """The response that a document is; what it does not say is taken from the arguments. Raises `InvalidOutput`."""
    outputs = document.get("outputs")
    if not isinstance(outputs, list):
        raise InvalidOutput("handler returned a response without a list 'outputs'")
    parameters = document.get("parameters")
    return InferResponse(
        _text(document.get("id"), id),
        _text(document.get("model_name"), model_name),
        _text(document.get("model_version"), model_version),
        [_read_output(index, entry) for index, entry in enumerate(outputs)],
        parameters if isinstance(parameters, dict) else {},
    )


def carried(name: str, datatype: str, data: Any) -> Values:
    """Elements as an output of that datatype carries them, whatever the handler has them in. Raises `InvalidOutput`."""
    try:
        if datatype == BYTES:
            elements: list[Any] = objects(plain(data)).reshape(-1).tolist()
            return elements
        if isinstance(data, np.ndarray) and data.dtype == DTYPES[datatype] and datatype != BF16:
            return np.asarray(data).reshape(-1)
        with np.errstate(all="ignore"):
            if datatype == BF16:
                return narrow(_converted(plain(data), np.dtype(np.float32)).reshape(-1))
            return _converted(plain(data), DTYPES[datatype]).reshape(-1)
    except NO_ARRAY as error:
        raise InvalidOutput(f"output {name!r}: data cannot be {datatype}: {error}") from None


def plain(data: Any) -> Any:
    """A tensor of torch as an array of numpy, all else as it is. Raises `InvalidOutput`."""
    torch = sys.modules.get("torch")  # not imported: then there are no tensors
    if torch is None or not isinstance(data, torch.Tensor):
        return data
    try:
        tensor = data.detach().cpu()
        return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).resolve_conj().resolve_neg().numpy()
    except (TypeError, RuntimeError) as error:  # of a sparse or quantized one, or of one without data
        raise InvalidOutput(f"a tensor of torch has no form as an array: {error}") from None


def objects(results: Any) -> Array:
    """An array of objects: nested lists of one shape are taken apart, others are left whole."""
    try:
        return np.array(results, object)
    except NO_ARRAY:  # of arrays whose shapes agree at their beginning only, or of tensors that are to be trained
        whole = np.empty(len(results), object)
        for index, result in enumerate(results):
            whole[index] = result
        return whole


def _converted(data: Any, dtype: np.dtype[Any]) -> Array:
    """Raises ValueError, TypeError or OverflowError, also where numbers would become others without a word."""
    array = np.asarray(data)
    if array.dtype.kind == "c":
        raise TypeError("they are complex")
    if array.dtype.kind not in "biuf":
        if array.dtype.kind == "O" and any(element is None for element in array.flat):  # numpy makes NaN of it
            raise TypeError("there is a None among them")
        return np.asarray(data, dtype)
    if array.dtype.kind == "f" and dtype.kind in "iu" and array is not data:
        array = np.array(data, object)  # for numpy, small integers beside those above 2**63 are floats
        converted = np.asarray(data, dtype)
    else:
        converted = array.astype(dtype, copy=False)
    if dtype.kind in "iu" and converted is not array and not np.array_equal(converted, array):
        odd = np.flatnonzero(converted != array)[0]
        raise ValueError(f"{array.flat[odd]} would become {converted.flat[odd]}")
    return converted


def chosen(outputs: list[Tensor], names: Iterable[str]) -> list[Tensor]:
    """The outputs of these names in this order, if there are names and an output for each; else all."""
    by_name = {output.name: output for output in outputs}
    found = [by_name.get(name) for name in names]
    wanted = [output for output in found if output is not None]
    return wanted if wanted and len(wanted) == len(found) else outputs


def text_of(element: Any) -> bytes:
    """An element of BYTES: text as UTF-8, anything else as compact JSON."""
    if isinstance(element, str):
        return element.encode("utf-8", "replace")
    return bytes(element) if isinstance(element, bytes | bytearray) else compact(element)


def compact(value: Any) -> bytes:
    """JSON without blanks; arrays and numbers of numpy are lists and numbers. Raises `InvalidOutput`."""
    try:
        return _compact(value).encode("utf-8", "replace")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidOutput(f"handler returned what has no form as JSON: {error}") from None


def _listed(value: Any) -> Any:
    value = plain(value)
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, bytes | bytearray):
        return value.decode()
    raise TypeError(f"{type(value).__name__} is not serializable")


_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=_listed).encode


def _read_output(index: int, entry: Any) -> Tensor:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise InvalidOutput(f"output {index} has no name")
    name, datatype, data = entry["name"], entry.get("datatype"), entry.get("data")
    if not isinstance(datatype, str) or datatype not in KNOWN:
        raise InvalidOutput(f"output {name!r}: unknown datatype {shown(datatype)}")
    values = carried(name, datatype, [] if data is None else data)
    shape = _shape(name, entry.get("shape", [len(values)]), len(values))
    parameters = entry.get("parameters")
    return Tensor(name, datatype, shape, values, parameters if isinstance(parameters, dict) else {})


def _shape(name: str, shape: Any, count: int) -> tuple[int, ...]:
    """Of integers, and of as many elements as there are."""
    try:
        wanted = tuple(int(dimension) for dimension in shape)
        return np.empty(count, np.uint8).reshape(wanted).shape
    except (TypeError, ValueError, OverflowError):
        raise InvalidOutput(f"output {name!r}: shape {shown(shape)} does not fit its {count} elements") from None


def _text(value: Any, otherwise: str) -> str:
    """Numbers are turned into text."""
    return otherwise if value is None or value == "" else str(value)


def array_of(output: Tensor) -> Array:
    """The elements of an output of any datatype but BYTES."""
    return np.asarray(output.values)
