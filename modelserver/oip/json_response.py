"""Responses in JSON, alone or in front of binary tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from modelserver.oip.datatypes import BF16, BYTES, FP32, widen
from modelserver.oip.decimals import shortest
from modelserver.oip.failures import InvalidOutput
from modelserver.oip.raw import Buffer, raw_of
from modelserver.oip.request import Wanted
from modelserver.oip.response import array_of, chosen, compact, text_of
from modelserver.oip.tensor import Tensor


def write_json(
    members: Mapping[str, Any], outputs: list[Tensor], wanted: Iterable[Wanted], *, binary: bool
) -> tuple[bytes, int | None]:
    """The body, and the length of the JSON in it if tensors follow. Raises `InvalidOutput`.

    `members` are all but the outputs; `binary` is for outputs of which `wanted` says nothing else.
    """
    said = {output.name: output.binary for output in wanted}
    tails: list[Buffer] = []
    written = []
    for output in chosen(outputs, said):
        choice = said.get(output.name)
        if binary if choice is None else choice:
            written.append(_binary_output(output, tails))
        else:
            written.append(_json_output(output))
    text = compact({**members, "outputs": written})
    return (b"".join((text, *tails)), len(text)) if tails else (text, None)


def listed(output: Tensor) -> list[Any]:
    """The elements as JSON has them, in one list. Raises `InvalidOutput` for bytes that are no text."""
    if output.datatype == BYTES:
        return [
            element.decode() if isinstance(element, bytes | bytearray) else element for element in output.values or ()
        ]
    array = array_of(output)
    if output.datatype == BF16:
        array = widen(array)
    elements: list[Any] = (shortest(array) if output.datatype == FP32 else array).tolist()
    return elements


def _binary_output(output: Tensor, tails: list[Buffer]) -> dict[str, Any]:
    values = list(map(text_of, output.values or ())) if output.datatype == BYTES else array_of(output)
    tails.append(raw_of(output.datatype, values))
    return _output(output, {**output.parameters, "binary_data_size": len(tails[-1])})


def _json_output(output: Tensor) -> dict[str, Any]:
    try:
        return {**_output(output, output.parameters), "data": listed(output)}
    except UnicodeDecodeError:
        text = f"output {output.name!r} has bytes that are no text: ask for it as binary_data"
        raise InvalidOutput(text) from None


def _output(output: Tensor, parameters: dict[str, Any]) -> dict[str, Any]:
    members = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
    return {**members, "parameters": parameters} if parameters else members
