"""Envelope `kservev2`: the JSON form of the Open Inference Protocol."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelserver.oip.datatypes import datatype_of
from ts.torch_handler.request_envelope.base import BaseEnvelope, describes, list_of, object_of
from ts.utils.util import PredictionException


class KServev2Envelope(BaseEnvelope):
    """The handler gets a request's `inputs` as rows and returns one result for each; one request at a time."""

    def handle(self, data: Any, context: Any) -> Any:
        """Answer a batch; raises `PredictionException` (400) for a request that does not follow the protocol."""
        self.context = context
        return self._handle_fn(data, context) if describes(context) else self._answer_each(data)

    def parse_input(self, data: Any) -> list[dict[str, Any]]:
        """The inputs of the first request, each with `data` nested as its `shape` says.

        Leaves `input_names` and `input_request_id` on the context.
        """
        request = object_of(data[0])
        inputs = [_nested(tensor) for tensor in list_of(request, "inputs")]
        self.context.input_names = [tensor.get("name") for tensor in inputs]
        self.context.input_request_id = request.get("id") if str(request.get("id") or "").strip() else None
        return inputs

    def format_output(self, data: Any) -> list[dict[str, Any]]:
        """One response, whose outputs are the results under the names of the inputs. Raises `ValueError`."""
        names = self.context.input_names
        if len(data) > len(names):
            raise ValueError(f"handler returned {len(data)} results for {len(names)} inputs")
        model = (self.context.manifest or {}).get("model", {})
        return [
            {
                "id": self.context.input_request_id or self.context.get_request_id(0),
                "model_name": model.get("modelName"),
                "model_version": model.get("modelVersion"),
                "outputs": [_output(name, result) for name, result in zip(names, data, strict=False)],
            }
        ]


def _nested(tensor: Any) -> dict[str, Any]:
    """An input with its data in the form that its shape gives them."""
    if not isinstance(tensor, dict) or "data" not in tensor:
        raise PredictionException("an input is not an object with the member 'data'", 400)
    if tensor.get("datatype") == "BYTES":
        return {**tensor, "data": _first_of_one(tensor["data"])}
    try:
        data = np.array(tensor["data"]).reshape(tensor["shape"]).tolist()
    except (KeyError, TypeError, ValueError) as error:
        raise PredictionException(f"data of input {tensor.get('name')!r} do not fit its shape: {error}", 400) from error
    return {**tensor, "data": data}


def _first_of_one(data: Any) -> Any:
    """The element of a tensor that has only one, the whole list of others."""
    return data[0] if isinstance(data, list) and len(data) == 1 else data


def _output(name: Any, result: Any) -> dict[str, Any]:
    array = np.asarray(result)
    flat = array.flatten().tolist()
    return {"name": name, "datatype": datatype_of(array), "data": flat, "shape": [len(flat)]}
