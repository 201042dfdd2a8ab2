"""Our reader and writer of protobuf against the real one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oip_messages import delimited, message, parsed, varint

from modelserver.oip.failures import InvalidRequest
from modelserver.oip.protobuf_request import read_message
from modelserver.oip.protobuf_response import write_message
from modelserver.oip.response import InferResponse
from modelserver.oip.tensor import Tensor
from modelserver.oip.wire_format import Kind, fields, pack_varints, packed_varints

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # other things run beside

INT64 = st.integers(-(2**63), 2**63 - 1)
UINT64 = st.integers(0, 2**64 - 1)
TEXT = st.text(max_size=20)
FLOAT32 = st.floats(width=32, allow_nan=False)

# Datatype, field of `InferTensorContents`, elements, how they look as Python values.
TYPED: dict[str, tuple[str, st.SearchStrategy[Any]]] = {
    "BOOL": ("bool_contents", st.booleans()),
    "INT8": ("int_contents", st.integers(-128, 127)),
    "INT16": ("int_contents", st.integers(-(2**15), 2**15 - 1)),
    "INT32": ("int_contents", st.integers(-(2**31), 2**31 - 1)),
    "INT64": ("int64_contents", INT64),
    "UINT8": ("uint_contents", st.integers(0, 255)),
    "UINT16": ("uint_contents", st.integers(0, 2**16 - 1)),
    "UINT32": ("uint_contents", st.integers(0, 2**32 - 1)),
    "UINT64": ("uint64_contents", UINT64),
    "FP32": ("fp32_contents", FLOAT32),
    "FP64": ("fp64_contents", st.floats(allow_nan=False)),
    "BYTES": ("bytes_contents", st.binary(max_size=300)),
}
PARAMETERS: st.SearchStrategy[dict[str, dict[str, Any]]] = st.dictionaries(
    TEXT,
    st.one_of(
        st.builds(dict, bool_param=st.booleans()),
        st.builds(dict, int64_param=INT64),
        st.builds(dict, string_param=TEXT),
        st.builds(dict, double_param=st.floats(allow_nan=False)),
        st.builds(dict, uint64_param=UINT64),
    ),
    max_size=3,
)


@st.composite
def typed_inputs(draw: st.DrawFn) -> tuple[dict[str, Any], list[Any]]:
    datatype = draw(st.sampled_from(sorted(TYPED)))
    field, elements = TYPED[datatype]
    values = draw(st.lists(elements, max_size=40))
    entry = {
        "name": draw(TEXT),
        "datatype": datatype,
        "shape": [len(values)],
        "parameters": {key: message("InferParameter", **value) for key, value in draw(PARAMETERS).items()},
        "contents": message("InferTensorContents", **{field: values}),
    }
    return entry, values


def plain(parameters: Any) -> dict[str, Any]:
    return {key: getattr(value, value.WhichOneof("parameter_choice")) for key, value in parameters.items()}


@unhurried
@given(st.lists(typed_inputs(), max_size=3), TEXT, TEXT, PARAMETERS, st.lists(TEXT, max_size=3))
def test_any_typed_request(
    inputs: list[tuple[dict[str, Any], list[Any]]], id: str, model: str, parameters: Any, outputs: list[str]
) -> None:
    sent = message(
        "ModelInferRequest",
        model_name=model,
        model_version="7",
        id=id,
        parameters={key: message("InferParameter", **value) for key, value in parameters.items()},
        inputs=[message("ModelInferRequest").InferInputTensor(**entry) for entry, _ in inputs],
        outputs=[message("ModelInferRequest").InferRequestedOutputTensor(name=name) for name in outputs],
    )
    read = read_message(sent.SerializeToString())
    assert (read.id, read.model_name, read.parameters, read.raw) == (id, model, plain(sent.parameters), False)
    assert [output.name for output in read.outputs] == outputs
    for tensor, original, (_, values) in zip(read.inputs, sent.inputs, inputs, strict=True):
        assert (tensor.name, tensor.datatype, tensor.shape) == (
            original.name,
            original.datatype,
            tuple(original.shape),
        )
        assert tensor.parameters == {k: v for k, v in plain(original.parameters).items() if k != "binary_data_size"}
        assert tensor.values is not None
        assert list(tensor.values) == values


RAW = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip


@pytest.mark.parametrize("datatype", RAW)
def test_raw_contents(datatype: str) -> None:
    array = np.array([[0, 1, 1], [1, 0, 1]], RAW[datatype])
    sent = message("ModelInferRequest", raw_input_contents=[array.tobytes()])
    sent.inputs.add(name="a", datatype=datatype, shape=[2, 3])
    data = sent.SerializeToString()
    read = read_message(data)
    (tensor,) = read.inputs
    assert read.raw
    assert tensor.array().dtype == array.dtype
    assert (tensor.array() == array).all()
    if datatype != "BOOL":  # elsewhere it is no copy, but the bytes that were received
        assert np.shares_memory(tensor.values, np.frombuffer(data, np.uint8))


@unhurried
@given(st.lists(UINT64))
def test_packed_numbers(numbers: list[int]) -> None:
    packed = bytes(pack_varints(np.array(numbers, np.uint64)))
    assert packed == b"".join(map(varint, numbers))
    assert packed_varints(memoryview(packed)).tolist() == numbers


def test_many_packed_numbers() -> None:
    """More than are taken apart at a time."""
    numbers = np.random.default_rng(0).integers(0, 2**63, 200_000).astype(np.uint64)
    numbers >>= np.arange(200_000, dtype=np.uint64) % np.uint64(63)
    assert (packed_varints(memoryview(bytes(pack_varints(numbers)))) == numbers).all()


def test_repeated_fields_come_packed_or_not_or_both() -> None:
    """And a message in a message may come in pieces."""
    integers = varint(2 << 3) + varint(5) + delimited(2, varint(2**64 - 1) + varint(7)) + varint(2 << 3) + varint(300)
    pieces = delimited(5, integers[:2]) + delimited(5, integers[2:])
    shape = varint(3 << 3) + varint(2) + delimited(3, b"") + delimited(3, b"\x02\x01")
    floats = varint(6 << 3 | 5) + np.float32(1.5).tobytes() + delimited(6, np.array([2, 3], np.float32).tobytes())
    first = delimited(1, b"a") + delimited(2, b"INT32") + shape + pieces
    second = delimited(2, b"FP32") + varint(3 << 3) + varint(3) + delimited(5, floats)
    data = delimited(5, first) + delimited(5, second)
    expected = parsed("ModelInferRequest", data).inputs
    read = read_message(data).inputs
    assert [tensor.shape for tensor in read] == [tuple(tensor.shape) for tensor in expected] == [(2, 2, 1), (3,)]
    contents = [list(expected[0].contents.int_contents), list(expected[1].contents.fp32_contents)]
    assert [list(np.asarray(tensor.values)) for tensor in read] == contents == [[5, -1, 7, 300], [1.5, 2, 3]]


def test_unknown_fields_and_groups_are_passed_over() -> None:
    group = (
        varint(99 << 3 | 3) + delimited(1, b"inside") + varint(98 << 3 | 3) + varint(98 << 3 | 4) + varint(99 << 3 | 4)
    )
    others = varint(50 << 3) + b"\x01" + varint(51 << 3 | 1) + b"12345678" + varint(52 << 3 | 5) + b"1234"
    wrong_types = varint(1 << 3) + b"\x05" + varint(3 << 3 | 5) + b"1234"
    data = group + others + wrong_types + delimited(3, b"id") + delimited(1, b"m")
    assert parsed("ModelInferRequest", data).id == "id"
    read = read_message(data)
    assert (read.id, read.model_name, read.inputs) == ("id", "m", [])


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x80",
        b"\x80" * 12,
        b"\x00\x01",
        b"\x0f",
        varint(9 << 3 | 3),
        varint(9 << 3 | 4),
        varint(9 << 3 | 3) + varint(8 << 3 | 4),
        varint(9 << 3 | 3) * 200,
        delimited(3, b"\xff"),
        delimited(5, b"\x0a\x09"),
        delimited(5, delimited(2, b"FP32") + delimited(5, delimited(6, b"123"))),
        delimited(5, delimited(2, b"INT8") + delimited(5, delimited(2, b"\x80"))),
        delimited(5, delimited(3, b"\xff" * 11)),
        delimited(4, delimited(2, varint(4 << 3 | 1) + b"123")),
        varint(9 << 3 | 5) + b"123",
    ],
)
def test_no_message(data: bytes) -> None:
    with pytest.raises(DecodeError):
        parsed("ModelInferRequest", data)
    with pytest.raises(InvalidRequest, match="The request message is malformed: "):
        read_message(data)


@unhurried
@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """What protobuf reads, we read; what it does not, is a refusal, never a crash."""
    try:
        expected: Any = parsed("ModelInferRequest", data)
    except DecodeError:
        expected = None
    try:
        read = read_message(data, lenient=True)
    except InvalidRequest:
        return
    assert expected is not None
    assert (read.id, read.model_name) == (expected.id, expected.model_name)


@unhurried
@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.binary(max_size=20)), max_size=5))
def test_fields(sent: list[tuple[int, bytes]]) -> None:
    data = b"".join(delimited(number, value) for number, value in sent)
    found = [(number, kind, bytes(value)) for number, kind, value in fields(memoryview(data))]
    assert found == [(number, Kind.BYTES, value) for number, value in sent]


@st.composite
def outputs(draw: st.DrawFn) -> tuple[Tensor, list[Any]]:
    datatype = draw(st.sampled_from(sorted(TYPED)))
    values = draw(st.lists(TYPED[datatype][1], max_size=30))
    carried: Any = values if datatype == "BYTES" else np.array(values, RAW[datatype])
    name = draw(st.text(st.characters(codec="utf-8"), max_size=10))
    return Tensor(name, datatype, (len(values),), carried, draw(st.sampled_from([{}, {"a": True}]))), values


@unhurried
@given(st.lists(outputs(), max_size=3), st.booleans())
def test_any_response(answered: list[tuple[Tensor, list[Any]]], raw: bool) -> None:
    parameters = {"b": True, "i": -5, "f": 1.5, "s": "text", "other": [1]}
    response = InferResponse("42", "m", "1.0", [tensor for tensor, _ in answered], parameters)
    read = parsed("ModelInferResponse", write_message(response, raw=raw))
    assert (read.id, read.model_name, read.model_version) == ("42", "m", "1.0")
    assert plain(read.parameters) == {"b": True, "i": -5, "f": 1.5, "s": "text"}
    assert len(read.raw_output_contents) == (len(answered) if raw else 0)
    for index, (output, (tensor, values)) in enumerate(zip(read.outputs, answered, strict=True)):
        assert (output.name, output.datatype, tuple(output.shape)) == (tensor.name, tensor.datatype, tensor.shape)
        assert plain(output.parameters) == tensor.parameters
        assert output.HasField("contents") is not raw
        if not raw:
            assert list(getattr(output.contents, TYPED[tensor.datatype][0])) == values
        elif tensor.datatype != "BYTES":
            assert np.frombuffer(read.raw_output_contents[index], RAW[tensor.datatype]).tolist() == values


def test_what_has_no_typed_field_makes_the_response_raw() -> None:
    half = Tensor("h", "FP16", (2,), np.array([1, 2], np.float16))
    text = Tensor("t", "BYTES", (2,), ["é", {"a": 1}])
    read = parsed(
        "ModelInferResponse", write_message(InferResponse("", "m", "1", [half, text]), raw=False, quoted=True)
    )
    assert list(read.raw_output_contents) == [
        np.array([1, 2], np.float16).tobytes(),
        b'\x02\0\0\0\xc3\xa9\x07\0\0\0{"a":1}',
    ]


def test_text_of_torchserves_own_service_keeps_its_quotes() -> None:
    text = Tensor("t", "BYTES", (4,), ["abc", 3, {"a": [1, 2]}, b"raw"])
    response = InferResponse("1", "m", "1", [text], {"f": 0.5})
    ours = parsed("ModelInferResponse", write_message(response, raw=False))
    theirs = parsed("ModelInferResponse", write_message(response, raw=False, quoted=True))
    assert list(ours.outputs[0].contents.bytes_contents) == [b"abc", b"3", b'{"a":[1,2]}', b"raw"]
    assert list(theirs.outputs[0].contents.bytes_contents) == [b'"abc"', b"3", b'{"a":[1,2]}', b'"raw"']
    assert (ours.parameters["f"].double_param, theirs.parameters["f"].string_param) == (0.5, "0.5")
