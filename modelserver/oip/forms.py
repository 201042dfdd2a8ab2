"""The forms in which a client sends a request and gets the response."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from modelserver.oip.document import document_of_json, document_of_message
from modelserver.oip.json_response import write_json
from modelserver.oip.protobuf_response import write_message
from modelserver.oip.request import InferRequest
from modelserver.oip.response import InferResponse

JSON_TYPE = [("content-type", "application/json")]
_BINARY_TYPE = ("content-type", "application/octet-stream")


class Body(NamedTuple):
    """A response with the headers that tell what it is."""

    data: bytes
    headers: list[tuple[str, str]]


class Form(Protocol):
    """The form of one request and its response."""

    infer: InferRequest
    strict: bool  # the response must follow the protocol: anything else could not be sent

    def document(self) -> dict[str, Any]:
        """The request as the object that handlers of TorchServe know."""

    def write(self, response: InferResponse, others: Mapping[str, Any]) -> Body:
        """The response; `others` are members of the handler's object beside those of the protocol.

        Raises `InvalidOutput`.
        """


class JsonForm:
    """JSON, with or without binary tensors."""

    strict = False

    def __init__(self, infer: InferRequest) -> None:
        self.infer = infer

    def document(self) -> dict[str, Any]:
        """The client's own object, with the binary tensors filled in."""
        return document_of_json(self.infer)

    def write(self, response: InferResponse, others: Mapping[str, Any]) -> Body:
        """As text, with tensors behind it where the client wants that."""
        members = {**response.members, **others}
        data, length = write_json(members, response.outputs, self.infer.outputs, binary=self.infer.binary_outputs)
        if length is None:
            return Body(data, JSON_TYPE)
        return Body(data, [_BINARY_TYPE, ("inference-header-content-length", str(length))])


class MessageForm:
    """Protobuf."""

    strict = True

    def __init__(self, infer: InferRequest, *, quoted: bool) -> None:
        """`quoted`: TorchServe's way."""
        self.infer = infer
        self._quoted = quoted

    def document(self) -> dict[str, Any]:
        """What TorchServe makes of the message."""
        return document_of_message(self.infer)

    def write(self, response: InferResponse, others: Mapping[str, Any]) -> Body:
        """A serialized `ModelInferResponse`, which has no room for others."""
        return Body(write_message(response, raw=self.infer.raw, quoted=self._quoted), [])
