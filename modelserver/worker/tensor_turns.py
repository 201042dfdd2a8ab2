"""Turns of requests with tensors: the handler gets a JSON object, or rows if the model declares so."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from modelserver.oip.declaration import check_inputs
from modelserver.oip.failures import InvalidOutput, InvalidRequest
from modelserver.oip.forms import Form, JsonForm, MessageForm
from modelserver.oip.json_request import read_object, read_request, split_body, wanted_outputs
from modelserver.oip.protobuf_request import read_message
from modelserver.oip.request import InferRequest
from modelserver.oip.response import PROTOCOL_MEMBERS, InferResponse, read_document, read_response
from modelserver.oip.rows import outputs_of, rows_of
from modelserver.wire.frames import TORCHSERVE_PROTOBUF, OpenInference, Part, Request
from modelserver.worker.rows import Row
from modelserver.worker.turns import Turn, Written


class Model(NamedTuple):
    """What turns need to know of the model."""

    name: str
    version: str
    declared: OpenInference
    decode: bool  # handlers get objects, not the JSON text of them
    wrapped: bool  # an envelope makes JSON of every result


class TensorTurn(Turn):
    """A turn in the client's form."""

    def __init__(self, index: int, request: Request, rows: list[Row], form: Form, model: Model) -> None:
        super().__init__(index, request, rows, wrapped=model.wrapped)
        self._form = form
        self._model = model

    def write_piece(self, piece: Any) -> Any:
        """JSON has no form for streams: pieces are what the handler says. Raises `InvalidOutput`."""
        return self.write([piece]).element if self._form.strict else piece

    def write_last(self, results: list[Any]) -> Written:
        """The same; most often there is nothing left to say. Raises `InvalidOutput`."""
        if not results or (isinstance(results[0], str | bytes) and not results[0]):
            return Written("", [])
        return self.write(results) if self._form.strict else super().write_last(results)


class DocumentTurn(TensorTurn):
    """An object in, an object out."""

    def write(self, results: list[Any]) -> Written:
        """Raises `InvalidOutput` where the form needs what the handler does not return."""
        (element,) = results
        try:
            document = read_document(element)
            id = self._form.infer.id or self.request.id
            response = read_response(document, id, self._model.name, self._model.version)
            others = {name: value for name, value in document.items() if name not in PROTOCOL_MEMBERS}
            return Written(*self._form.write(response, others))
        except InvalidOutput:
            if self._form.strict:
                raise
            return super().write(results)


class RowsTurn(TensorTurn):
    """Rows in, results of rows out."""

    def write(self, results: list[Any]) -> Written:
        """Raises `InvalidOutput`."""
        outputs = outputs_of(results, self._model.declared.outputs)
        id = self._form.infer.id or self.request.id
        response = InferResponse(id, self._model.name, self._model.version, outputs)
        return Written(*self._form.write(response, {}))

    def write_step(self, results: list[Any]) -> Written:
        """Raises `InvalidOutput`."""
        return Written(self.write(results).element, [])


class TensorTurns:
    """Makes the turns of one model."""

    def __init__(self, model: Model) -> None:
        self._model = model

    def of_json(self, index: int, request: Request, body: bytes, header_length: str | None) -> Turn:
        """A request in JSON, with or without binary tensors. Raises `InvalidRequest`."""
        return self._turn(index, request, JsonForm(read_request(*split_body(body, header_length))))

    def of_message(self, index: int, request: Request, part: Part) -> Turn:
        """A `ModelInferRequest`. Raises `InvalidRequest`."""
        lenient = part.mime == TORCHSERVE_PROTOBUF
        return self._turn(index, request, MessageForm(read_message(part.value, lenient=lenient), quoted=lenient))

    def selecting(self, turn: Turn) -> Turn:
        """The turn of a request in JSON that nobody needs to read; another one, if it asks for outputs as bytes."""
        (row,) = turn.rows
        body = row["body"]
        try:
            document = read_object(body) if isinstance(body, str | bytearray) else body
            if not isinstance(document, dict):
                return turn
            wanted, binary = wanted_outputs(document)
        except InvalidRequest:  # the handler decides what to make of it
            return turn
        if not binary and not any(output.binary for output in wanted):
            return turn
        infer = InferRequest(str(document.get("id") or ""), outputs=wanted, binary_outputs=binary)
        return DocumentTurn(turn.index, turn.request, turn.rows, JsonForm(infer), self._model)

    def _turn(self, index: int, request: Request, form: Form) -> Turn:
        model = self._model
        check_inputs(model.declared.inputs, form.infer.inputs)
        shown = Request(request.id, [Part("body", "application/json", b"")], request.headers, request.extra)
        if model.declared.rows:
            return RowsTurn(index, shown, rows_of(form.infer.inputs, model.declared), form, model)
        document = form.document()
        body = document if model.decode else bytearray(json.dumps(document).encode())
        return DocumentTurn(index, shown, [{"body": body}], form, model)
