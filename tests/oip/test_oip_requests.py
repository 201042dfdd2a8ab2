"""Requests in JSON and with binary tensors: what is read, and how precisely the rest is refused."""

from __future__ import annotations

import json
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from oip_messages import message

from modelserver.oip.datatypes import narrow, widen
from modelserver.oip.decimals import shortest
from modelserver.oip.document import document_of_json, document_of_message
from modelserver.oip.failures import InvalidRequest
from modelserver.oip.json_request import read_request, split_body
from modelserver.oip.protobuf_request import read_message
from modelserver.oip.request import InferRequest, Wanted
from modelserver.oip.tensor import Tensor

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # other things run beside


def tensor(
    data: Any = None, datatype: str = "FP32", shape: Any = None, name: str = "x", **others: Any
) -> dict[str, Any]:
    """An input; without a shape that of a flat list."""
    entry = {"name": name, "datatype": datatype, "shape": [len(data or ())] if shape is None else shape, **others}
    return entry if data is None else {**entry, "data": data}


def read(*inputs: Any, tail: bytes = b"", **members: Any) -> InferRequest:
    """Of a whole body."""
    text = json.dumps({"inputs": list(inputs), **members}).encode()
    return read_request(*split_body(text + tail, str(len(text))))


def read_one(*inputs: Any, tail: bytes = b"") -> Tensor:
    (found,) = read(*inputs, tail=tail).inputs
    return found


def binary(size: int, datatype: str = "FP32", shape: Any = (1,), name: str = "x") -> dict[str, Any]:
    return tensor(None, datatype, list(shape), name, parameters={"binary_data_size": size})


def refusal(*inputs: Any, tail: bytes = b"", **members: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(*inputs, tail=tail, **members)
    return str(caught.value)


CARRIERS = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "u2", "UINT32": "u4", "UINT64": "u8", "INT8": "i1", "INT16": "i2",
    "INT32": "i4", "INT64": "i8", "FP16": "f2", "FP32": "f4", "FP64": "f8",
}  # fmt: skip


@pytest.mark.parametrize("datatype", CARRIERS)
def test_numbers_in_json_and_in_bytes_are_the_same(datatype: str) -> None:
    expected = np.array([[1, 0, 1], [0, 1, 1]], CARRIERS[datatype])
    tail = expected.tobytes()
    in_json = read_one(tensor(expected.tolist(), datatype, [2, 3])).array()
    in_bytes = read_one(binary(len(tail), datatype, (2, 3)), tail=tail).array()
    for array in (in_json, in_bytes):
        assert array.dtype == expected.dtype
        assert (array == expected).all()
        assert array.flags.writeable
        assert array.flags.aligned


@pytest.mark.parametrize(
    ("datatype", "elements"),
    [("INT64", [2**63 - 1, -(2**63)]), ("UINT64", [2**64 - 1]), ("INT8", [-128, 127]), ("FP64", [2**70, 0.1])],
)
def test_extremes(datatype: str, elements: list[Any]) -> None:
    assert read_one(tensor(elements, datatype)).array().tolist() == elements


def test_a_tensor_in_bytes_is_a_view_until_a_handler_gets_it() -> None:
    text = json.dumps({"inputs": [binary(8, "FP32", (2,))]}).encode()
    body = text + struct.pack("<2f", 1, 2)
    found = read_request(*split_body(body, str(len(text)))).inputs[0]
    assert np.shares_memory(np.asarray(found.values), np.frombuffer(body, np.uint8))
    assert not np.shares_memory(found.array(), np.frombuffer(body, np.uint8))


def test_inputs_of_both_forms_in_one_request() -> None:
    first, second = struct.pack("<i", 7), b"\x02\0\0\0ab\x03\0\0\0xyz"
    request = read(
        binary(4, "INT32", name="a"),
        tensor([0.5], name="b"),
        binary(len(second), "BYTES", (2,), name="c"),
        tail=first + second,
        id="9",
        outputs=[{"name": "o", "parameters": {"binary_data": True}}, {"name": "p"}],
        parameters={"binary_data_output": True, "mine": 3},
    )
    assert [list(np.asarray(found.values)) for found in request.inputs] == [[7], [0.5], [b"ab", b"xyz"]]
    assert (request.id, request.outputs, request.binary_outputs) == ("9", [Wanted("o", True), Wanted("p")], True)
    assert request.parameters == {"binary_data_output": True, "mine": 3}


def test_without_a_header_all_is_json() -> None:
    request = read_request(*split_body(b'{"inputs": []}', None))
    assert (request.id, request.inputs) == ("", [])


@pytest.mark.parametrize(("shape", "size"), [([0], 0), ([2, 0, 3], 0), ([], 4), ([1, 1, 1], 4)])
def test_shapes_of_nothing_and_of_one(shape: list[int], size: int) -> None:
    assert read_one(binary(size, shape=shape), tail=bytes(size)).array().shape == tuple(shape)


def test_a_dimension_may_be_left_open() -> None:
    assert read_one(tensor(["a", "b"], "BYTES", [-1])).array().tolist() == ["a", "b"]
    assert read_one(binary(8, shape=[-1, 2]), tail=bytes(8)).array().shape == (1, 2)


@pytest.mark.parametrize("text", ["[[1, 2], [3, 4]]", "[1, 2, 3, 4]", "[[[1], [2]], [[3], [4]]]"])
def test_data_are_flat_or_nested(text: str) -> None:
    assert read_one(tensor(json.loads(text), "INT32", [2, 2])).array().tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (5, "input 0 must be an object, got 5"),
        ({}, "input 0 has no name"),
        ({"name": 1}, "input 0 has no name"),
        ({"name": "x"}, "input 'x' has no datatype"),
        ({"name": "x", "datatype": "FP32"}, "input 'x': shape must be a list of integers, got None"),
        (tensor([1], shape=[1.0]), "input 'x': shape must be a list of integers, got [1.0]"),
        (tensor([1], shape=[True]), "input 'x': shape must be a list of integers, got [True]"),
        (tensor([1], shape=[1] * 33), "input 'x': shape has 33 dimensions, more than 32"),
        (tensor([1], shape=[2**64]), "input 'x': shape [18446744073709551616] has a dimension beyond 64 bits"),
        (tensor([1], shape=[-2]), "input 'x': shape [-2] has a negative dimension"),
        (tensor([], shape=[0, -9]), "input 'x': shape [0, -9] has a negative dimension"),
        (tensor([], shape=[2**62, 4, 0, -(2**63) + 1]), "has a negative dimension"),
        (tensor(None, shape=[1]), "input 'x' has neither 'data' nor the parameter 'binary_data_size'"),
        (tensor([1], parameters=[1]), "input 'x': parameters must be an object, got [1]"),
        (tensor([1, 2], shape=[3]), "input 'x': shape [3] needs 3 elements, got 2"),
        (tensor([1], shape=[2**40, 2**40]), f"input 'x': shape [{2**40}, {2**40}] needs {2**80} elements, got 1"),
        (tensor([[1, 2], [3]], shape=[3]), "input 'x': lists of one level of data differ in length"),
        (tensor([[1, 2], 3], shape=[3]), "input 'x': lists of one level of data differ in length"),
        (tensor([3, [1, 2]], shape=[2]), "input 'x': data of FP32 must be numbers, got [1, 2]"),
        (tensor(["1"]), "input 'x': data of FP32 must be numbers, got '1'"),
        (tensor([None]), "input 'x': data of FP32 must be numbers, got None"),
        (tensor([{}]), "input 'x': data of FP32 must be numbers, got {}"),
        (tensor([True]), "input 'x': data of FP32 must be numbers, got True"),
        (tensor([1.5], "INT32"), "input 'x': data of INT32 must be integers, got 1.5"),
        (tensor([300], "UINT8"), "input 'x': data of UINT8 are out of range: 300"),
        (tensor([-1], "UINT64"), "input 'x': data of UINT64 are out of range"),
        (tensor([2**64], "INT64"), "input 'x': data of INT64 are out of range"),
        (tensor([10**400], "FP64"), "input 'x': data of FP64 are out of range"),
        (tensor([2], "BOOL"), "input 'x': data of BOOL are out of range: 2"),
        (tensor([-1], "BOOL"), "input 'x': data of BOOL are out of range"),
        (tensor([1.0], "BOOL"), "input 'x': data of BOOL must be true or false, got 1.0"),
        (tensor(["a", 1], "BYTES"), "input 'x': data of BYTES must be strings, got 1"),
        (tensor("ab", "BYTES", [2]), "input 'x': shape [2] needs 2 elements, got 1"),
    ],
)
def test_inputs_that_are_refused(entry: Any, text: str) -> None:
    assert text in refusal(entry)


@pytest.mark.parametrize(
    ("entry", "tail", "text"),
    [
        (binary(3), b"123", "input 'x': expected 4 bytes for shape [1] of FP32, got 3"),
        (binary(4), b"123", "input 'x': binary_data_size is 4, but only 3 bytes are left"),
        (binary(10**30), b"123", f"input 'x': binary_data_size is {10**30}, but only 3 bytes are left"),
        (binary(4), b"12345", "1 bytes are left over behind the last binary input"),
        (tensor([1]), b"1", "1 bytes are left over behind the last binary input"),
        (binary(-1), b"", "input 'x': binary_data_size must be a number of bytes, got -1"),
        (tensor(None, shape=[1], parameters={"binary_data_size": "4"}), b"1234", "must be a number of bytes, got '4'"),
        (tensor(None, shape=[1], parameters={"binary_data_size": True}), b"1", "must be a number of bytes, got True"),
        (binary(4, "FP128"), b"1234", "input 'x': unknown datatype 'FP128'"),
        (binary(3, shape=[-1]), b"123", "input 'x': 3 bytes are no whole elements of FP32"),
        (
            binary(8, shape=[2**60]),
            b"12345678",
            f"input 'x': expected {2**62} bytes for shape [{2**60}] of FP32, got 8",
        ),
        (binary(3, "BYTES"), b"123", "shape [1] needs 1 BYTES elements, which take at least 4 bytes, got 3"),
        (binary(6, "BYTES"), b"\x09\0\0\0ab", "BYTES element 0 has a length of 9 bytes, 7 more than there are"),
        (binary(5, "BYTES"), b"\0\0\0\0a", "input 'x': 1 bytes are left over behind the last BYTES element"),
        (binary(8, "BYTES"), bytes(8), "input 'x': shape [1] needs 1 element, got 2"),
        (binary(8, "BYTES", [2**62]), bytes(8), f"needs {2**62} BYTES elements"),
    ],
)
def test_binary_inputs_that_are_refused(entry: Any, tail: bytes, text: str) -> None:
    assert text in refusal(entry, tail=tail)


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"inputs": None}, "request has no list 'inputs'"),
        ({"inputs": {}}, "request has no list 'inputs'"),
        ({"outputs": 1}, "request: outputs must be a list, got 1"),
        ({"outputs": [1]}, "output 0 has no name"),
        (
            {"outputs": [{"name": "o", "parameters": {"binary_data": 1}}]},
            "output 'o': binary_data must be true or false",
        ),
        ({"parameters": 1}, "request: parameters must be an object, got 1"),
        ({"parameters": {"binary_data_output": "yes"}}, "request: binary_data_output must be true or false, got 'yes'"),
    ],
)
def test_requests_that_are_refused(members: dict[str, Any], text: str) -> None:
    assert text in refusal(tensor([1]), **members)


@pytest.mark.parametrize(
    ("body", "length", "text"),
    [
        (b"{", None, "request is not valid JSON: "),
        (b"[1]", None, "request must be a JSON object, got [1]"),
        (b"\xff", None, "request is not valid JSON: "),
        (b"[" * 100_000, None, "request is not valid JSON: "),
        (b"{}", "3", "Inference-Header-Content-Length is 3, but the body has only 2 bytes"),
        (b"{}", "two", "Inference-Header-Content-Length must be a number of bytes, got 'two'"),
        (b"{}", "-1", "Inference-Header-Content-Length must be a number of bytes, got '-1'"),
        (b"{}", "\u0662", "Inference-Header-Content-Length must be a number of bytes"),
        (b"{}", "9" * 5000, "Inference-Header-Content-Length must be a number of bytes, got '999"),
        (b"{}", "0", "request is not valid JSON: "),
    ],
)
def test_bodies_that_are_refused(body: bytes, length: str | None, text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        split_body(body, length)
    assert text in str(caught.value)
    assert len(str(caught.value)) < 400


@unhurried
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=10))
def test_any_data(data: Any) -> None:
    """Are read or refused, and never crash anything."""
    for datatype in ("FP32", "INT8", "BOOL", "BYTES", "BF16", "?"):
        try:
            found = read_one({**tensor(None, datatype, [-1]), "data": data})
        except InvalidRequest:
            continue
        assert datatype == "?" or len(found.values) >= 0  # type: ignore[arg-type]


def test_text_among_numbers_costs_no_memory() -> None:
    """numpy alone would make every element as wide as the text."""
    data = ["x" * 100_000, *range(10_000)]
    tracemalloc.start()
    assert "must be numbers" in refusal(tensor(data))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 << 20


def test_a_shape_that_lies_costs_no_memory() -> None:
    tracemalloc.start()
    for datatype in ("FP64", "BYTES"):
        refusal(binary(4, datatype, [2**50]), tail=bytes(4))
        refusal(tensor([1], datatype, [2**50]))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


class TestDocuments:
    def test_binary_inputs_are_filled_in(self) -> None:
        text = b"\x02\0\0\0ab\x02\0\0\0\xff\xfe"
        request = read(
            binary(8, "FP32", (2, 1), name="a"),
            binary(len(text), "BYTES", (2,), name="b"),
            tensor([1], name="c", parameters={"p": 1}),
            tail=struct.pack("<2f", 0.1, 3) + text,
            id="1",
            custom={"kept": True},
        )
        document = document_of_json(request)
        assert document["custom"] == {"kept": True}
        assert document["inputs"] == [
            {"name": "a", "datatype": "FP32", "shape": [2, 1], "parameters": {}, "data": [float(np.float32(0.1)), 3.0]},
            {"name": "b", "datatype": "BYTES", "shape": [2], "parameters": {}, "data": ["ab", "//4="]},
            {"name": "c", "datatype": "FP32", "shape": [1], "parameters": {"p": 1}, "data": [1]},
        ]
        json.dumps(document)

    def test_messages(self) -> None:
        sent = message("ModelInferRequest", model_name="m", model_version="1")
        sent.inputs.add(name="f", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([0.1, float("nan")])
        sent.inputs.add(name="u", datatype="UINT32", shape=[1]).contents.uint_contents.append(2**32 - 1)
        sent.inputs.add(name="t", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"abc")
        sent.inputs[0].parameters["binary_data_size"].int64_param = 8
        sent.inputs[1].parameters["p"].bool_param = True
        document = document_of_message(read_message(sent.SerializeToString()))
        number = document["inputs"][0]["data"].pop()
        assert number != number
        assert document == {
            "model_name": "m",
            "id": "",
            "inputs": [
                {"name": "f", "shape": [1, 2], "datatype": "FP32", "data": [0.1]},
                {"name": "u", "shape": [1], "datatype": "UINT32", "parameters": {"p": True}, "data": [2**32 - 1]},
                {"name": "t", "shape": [1], "datatype": "BYTES", "data": ["YWJj"]},
            ],
        }

    def test_messages_with_raw_contents(self) -> None:
        sent = message("ModelInferRequest", id="7", parameters={"k": message("InferParameter", string_param="v")})
        sent.inputs.add(name="b", datatype="BF16", shape=[2])
        sent.inputs.add(name="t", datatype="BYTES", shape=[-1])
        sent.outputs.add(name="o")
        sent.raw_input_contents.extend([narrow(np.array([1.5, -2], np.float32)).tobytes(), b"\x03\0\0\0abc"])
        assert document_of_message(read_message(sent.SerializeToString())) == {
            "model_name": "",
            "id": "7",
            "parameters": {"k": "v"},
            "inputs": [
                {"name": "b", "shape": [2], "datatype": "BF16", "data": [1.5, -2.0]},
                {"name": "t", "shape": [-1], "datatype": "BYTES", "data": ["YWJj"]},
            ],
            "outputs": [{"name": "o"}],
        }


class TestMessages:
    def sent(self, *inputs: dict[str, Any], raw: list[bytes] | None = None) -> bytes:
        request = message("ModelInferRequest", raw_input_contents=raw or [])
        for entry in inputs:
            request.inputs.add(**entry)
        data: bytes = request.SerializeToString()
        return data

    def refusal(self, *inputs: dict[str, Any], raw: list[bytes] | None = None, lenient: bool = False) -> str:
        with pytest.raises(InvalidRequest) as caught:
            read_message(self.sent(*inputs, raw=raw), lenient=lenient)
        return str(caught.value)

    @pytest.mark.parametrize("lenient", [False, True])
    def test_raw_contents_that_are_refused(self, lenient: bool) -> None:
        one = {"name": "x", "datatype": "FP32", "shape": [1]}
        typed = {**one, "contents": message("InferTensorContents")}
        text = "raw_input_contents has 2 entries for 1 inputs: it needs one for each, in the same order"
        assert self.refusal(one, raw=[b"1234", b"1234"], lenient=lenient) == text
        text = "input 'x' has contents, and the request has raw_input_contents"
        assert self.refusal(typed, raw=[b"1234"], lenient=lenient) == text
        text = "input 'x': expected 4 bytes for shape [1] of FP32, got 5"
        assert self.refusal(one, raw=[b"12345"], lenient=lenient) == text

    def test_what_only_torchserves_own_service_lets_pass(self) -> None:
        contents = message("InferTensorContents", fp32_contents=[1])
        wrong_shape = {"name": "x", "datatype": "FP32", "shape": [7], "contents": contents}
        negative = {**wrong_shape, "shape": [-7]}
        assert self.refusal(negative) == "input 'x': shape [-7] has a negative dimension"
        assert read_message(self.sent(negative), lenient=True).inputs[0].shape == (-7,)
        unknown = {"name": "x", "datatype": "COMPLEX", "shape": [1]}
        assert self.refusal(wrong_shape) == "input 'x': shape [7] needs 7 elements, got 1"
        assert self.refusal(unknown) == "input 'x': datatype 'COMPLEX' is unknown"
        assert self.refusal(unknown, raw=[b"1"]) == "input 'x': unknown datatype 'COMPLEX'"
        lenient = [
            read_message(data, lenient=True)
            for data in (self.sent(wrong_shape), self.sent(unknown), self.sent(unknown, raw=[b"1"]))
        ]
        assert [list(read.inputs[0].values or ()) for read in lenient] == [[1.0], [], []]
        assert "data" not in document_of_message(lenient[1])["inputs"][0]

    @pytest.mark.parametrize("lenient", [False, True])
    @pytest.mark.parametrize("datatype", ["FP16", "BF16"])
    def test_datatypes_without_typed_contents(self, datatype: str, lenient: bool) -> None:
        text = f"input 'x': datatype '{datatype}' has no typed contents: send raw_input_contents"
        assert self.refusal({"name": "x", "datatype": datatype, "shape": [1]}, lenient=lenient) == text

    def test_short_integers_that_are_too_long(self) -> None:
        contents = message("InferTensorContents", int_contents=[-129])
        entry = {"name": "x", "datatype": "INT8", "shape": [1], "contents": contents}
        assert self.refusal(entry) == "input 'x': contents of INT8 are out of range: -129"
        contents = message("InferTensorContents", uint_contents=[65536])
        entry = {"name": "x", "datatype": "UINT16", "shape": [1], "contents": contents}
        assert self.refusal(entry) == "input 'x': contents of UINT16 are out of range: 65536"


@unhurried
@given(st.lists(st.floats(width=32), max_size=50))
def test_shortest_decimals(numbers: list[float]) -> None:
    """A few, and so many that arrays are the faster way."""
    for array in (np.array(numbers, np.float32), np.array(numbers * 65, np.float32)):
        for number, decimal in zip(array, shortest(array).tolist(), strict=True):
            assert decimal == float(str(number)) or number != number


@unhurried
@given(st.integers(0, 2**32 - 1))
def test_shortest_decimal_of_any_bits(bits: int) -> None:
    array = np.array([bits] * 65, np.uint32).view(np.float32)
    decimal, *_ = shortest(array).tolist()
    assert decimal == float(str(array[0])) or decimal != decimal


@unhurried
@given(st.integers(0, 2**16 - 1))
def test_bfloat16_survives_float32(bits: int) -> None:
    wide = widen(np.array([bits], np.uint16))
    assert np.isnan(wide[0]) or narrow(wide).tolist() == [bits]


@pytest.mark.parametrize(
    ("number", "bits"),
    [
        (1.0, 0x3F80),
        (1.00390625, 0x3F80),
        (1.01171875, 0x3F82),
        (3.4e38, 0x7F80),
        (float("inf"), 0x7F80),
        (-0.0, 0x8000),
    ],
)
def test_bfloat16_is_rounded_to_even(number: float, bits: int) -> None:
    assert narrow(np.array([number], np.float32)).tolist() == [bits]


def test_bfloat16_that_is_no_number_stays_none() -> None:
    strange = np.array([0x7F800001, 0xFFFFFFFF, 0x7FC00000], np.uint32).view(np.float32)
    assert np.isnan(widen(narrow(strange))).all()
