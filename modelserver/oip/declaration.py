"""Requests compared with the inputs that a model declares."""

from __future__ import annotations

from collections.abc import Sequence

from modelserver.oip.failures import InvalidRequest, shown
from modelserver.oip.tensor import Tensor
from modelserver.wire.frames import TensorSpec


def check_inputs(declared: Sequence[TensorSpec], inputs: Sequence[Tensor]) -> None:
    """Raises `InvalidRequest`; without a declaration everything is right."""
    if not declared:
        return
    specs = {spec.name: spec for spec in declared}
    seen: set[str] = set()
    for tensor in inputs:
        spec = specs.get(tensor.name)
        if spec is None:
            raise InvalidRequest(f"unknown input {tensor.name!r}: the model has {_names(declared)}")
        if tensor.name in seen:
            raise InvalidRequest(f"input {tensor.name!r} comes twice")
        seen.add(tensor.name)
        _check_input(spec, tensor)
    missing = [spec for spec in declared if not spec.optional and spec.name not in seen]
    if missing:
        raise InvalidRequest(f"input {missing[0].name!r} is missing: the model has {_names(declared)}")


def fits(declared: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a shape is of those that a declared one stands for."""
    return len(declared) == len(shape) and all(wanted in (-1, got) for wanted, got in zip(declared, shape, strict=True))


def _check_input(spec: TensorSpec, tensor: Tensor) -> None:
    if tensor.datatype != spec.datatype:
        text = f"the model takes datatype {spec.datatype}, got {shown(tensor.datatype)}"
        raise InvalidRequest(f"input {tensor.name!r}: {text}")
    if not fits(spec.shape, tensor.shape):
        raise InvalidRequest(
            f"input {tensor.name!r}: the model takes shape {list(spec.shape)}, got {list(tensor.shape)}"
        )


def _names(declared: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name!r}" + (" (optional)" if spec.optional else "") for spec in declared)
