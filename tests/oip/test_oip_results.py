"""What handlers return, as outputs: nothing becomes another number without a word, and nothing fails but by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelserver.oip.datatypes import DTYPES
from modelserver.oip.failures import InvalidOutput
from modelserver.oip.response import carried
from modelserver.oip.rows import outputs_of
from modelserver.wire.frames import TensorSpec

torch = pytest.importorskip("torch")

unhurried = settings(deadline=None)  # other things run beside
INTEGERS = sorted(name for name, dtype in DTYPES.items() if dtype.kind in "iu" and name != "BF16")


def refusal(datatype: str, data: Any) -> str:
    with pytest.raises(InvalidOutput) as caught:
        carried("o", datatype, data)
    return str(caught.value)


@pytest.mark.parametrize(
    ("datatype", "data", "text"),
    [
        ("INT64", [1.5], "1.5 would become 1"),
        ("INT8", np.array([1, 300]), "300 would become 44"),
        ("INT8", [300], "300 would become 44"),
        ("UINT64", np.array([-1]), "-1 would become 18446744073709551615"),
        ("INT64", [2**63], "9223372036854775808 would become -9223372036854775808"),
        ("INT32", [float("nan")], "cannot convert float NaN to integer"),
        ("INT32", np.array([float("nan")]), "nan would become "),
        ("UINT64", [1.5, 2**64 - 1], "1.5 would become 1"),
        ("INT32", [2**70], ""),
        ("FP32", [10**400], "int too large"),
        ("FP32", [1j], "they are complex"),
        ("BOOL", np.array([1j]), "they are complex"),
        ("FP32", [None], "there is a None among them"),
        ("FP32", {}, ""),
        ("FP32", ["x"], "could not convert string"),
        ("FP32", [[1], [1, 2]], "inhomogeneous"),
        ("BF16", ["x"], "could not convert string"),
    ],
)
def test_data_of_which_nothing_can_be_made(datatype: str, data: Any, text: str) -> None:
    said = refusal(datatype, data)
    assert said.startswith(f"output 'o': data cannot be {datatype}: ") and text in said


@unhurried
@given(st.lists(st.integers(0, 2**64 - 1), max_size=4))
def test_lists_of_the_largest_integers(numbers: list[int]) -> None:
    assert np.asarray(carried("o", "UINT64", numbers)).tolist() == numbers


@unhurried
@given(st.sampled_from(INTEGERS), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4))
def test_integers_of_any_size(datatype: str, numbers: list[int]) -> None:
    limits = np.iinfo(DTYPES[datatype])
    if all(limits.min <= number <= limits.max for number in numbers):
        assert np.asarray(carried("o", datatype, np.array(numbers, np.int64))).tolist() == numbers
    else:
        assert "would become" in refusal(datatype, np.array(numbers, np.int64))


@pytest.mark.parametrize("dtype", [*"?bBhHiIlLqQefd", ">i2", ">u4", ">f4", ">f8"])
def test_arrays_of_every_dtype(dtype: str) -> None:
    """Of either byte order, and with gaps between their elements."""
    array = np.array([[0, 9, 1], [1, 9, 0]], dtype)[:, ::2]
    for datatype in (*INTEGERS, "BOOL", "FP16", "FP32", "FP64"):
        values = np.asarray(carried("o", datatype, array))
        assert values.dtype == DTYPES[datatype] and values.tolist() == [0, 1, 1, 0]


def test_arrays_of_other_classes() -> None:
    class Own(np.ndarray):
        """Shaped by its own will."""

        def reshape(self, *shape: Any, **options: Any) -> Any:
            return self

    assert np.asarray(carried("o", "FP64", np.ones((1, 2)).view(Own))).shape == (2,)
    assert np.asarray(carried("o", "FP32", torch.ones(2, 3, requires_grad=True).T)).shape == (6,)


@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_tensors_that_are_no_arrays(datatype: str) -> None:
    for tensor in (torch.eye(2).to_sparse(), torch.empty(2, device="meta")):
        assert "a tensor of torch has no form as an array" in refusal(datatype, tensor)


FP32 = (TensorSpec("y", "FP32", (-1,)),)
TEXT = (TensorSpec("y", "BYTES", (-1,)),)
TRAINED = torch.ones(1, requires_grad=True)


@pytest.mark.parametrize("declared", [(), TEXT])
def test_results_of_shapes_that_begin_alike(declared: tuple[TensorSpec, ...]) -> None:
    (output,) = outputs_of([np.ones((2, 1)), np.ones((2, 2))], declared)
    assert (output.datatype, output.shape, output.values) == ("BYTES", (2,), ["[[1.0],[1.0]]", "[[1.0,1.0],[1.0,1.0]]"])


@pytest.mark.parametrize("declared", [(), FP32, TEXT])
@pytest.mark.parametrize(
    "result", [torch.eye(2).to_sparse(), object(), {1, 2}, [TRAINED], 1j, {"a": object()}, {"a": b"\xff"}]
)
def test_strange_results(declared: tuple[TensorSpec, ...], result: Any) -> None:
    """They are refused or said as text; nothing else comes of them."""
    try:
        (output,) = outputs_of([result], declared)
    except InvalidOutput:
        return
    assert output.datatype == "BYTES" and output.values == ["[[1.0]]"]
