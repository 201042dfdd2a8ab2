"""`Context`: what a handler learns about its model and requests, and where it sets the head of its responses."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from ts.metrics.metric_cache_yaml_impl import MetricsCacheYamlImpl


class RequestProcessor:
    """The headers of one request, and the status and headers of its response."""

    def __init__(self, request_header: dict[str, Any]) -> None:
        self._status_code = 200
        self._reason_phrase: str | None = None
        self._response_header: dict[str, str] = {}
        self._request_header = request_header

    def get_request_property(self, key: str) -> Any:
        """The header `key`, None if absent; for a parameter's name a dict with its `content-type`."""
        return self.get_request_properties().get(key)

    def get_request_properties(self) -> dict[str, Any]:
        """All headers of the request, and an entry for each of its parameters."""
        return self._request_header

    def report_status(self, code: int, reason_phrase: str | None = None) -> None:
        """Set the status of the response."""
        self._status_code = code
        self._reason_phrase = reason_phrase

    def get_response_status_code(self) -> int:
        """200 unless set."""
        return self._status_code

    def get_response_status_phrase(self) -> str | None:
        """None unless set."""
        return self._reason_phrase

    def add_response_property(self, key: str, value: str) -> None:
        """Set a header of the response."""
        self._response_header[key] = value

    def get_response_headers(self) -> dict[str, str]:
        """The headers set so far."""
        return self._response_header

    def get_response_header(self, key: str) -> str | None:
        """The header set under exactly this name, else None."""
        return self._response_header.get(key)


class Context:
    """One object per worker, reused for every batch; handlers may put attributes of their own on it.

    `request_ids` and `request_processor` are None while the model loads; `cl_socket` exists only while a batch runs.
    """

    cl_socket: Any  # a `Stream`, or whatever else with `sendall` a `Service` was given

    def __init__(
        self,
        model_name: str,
        model_dir: str,
        manifest: dict[str, Any] | None,
        batch_size: int | None,
        gpu: int | None,
        mms_version: str,
        limit_max_image_pixels: bool = True,
        metrics: MetricsCacheYamlImpl | None = None,
        model_yaml_config: dict[str, Any] | None = None,
    ) -> None:
        self.model_name = model_name
        self.manifest = manifest
        self._system_properties = {
            "model_dir": model_dir,
            "gpu_id": gpu,
            "batch_size": batch_size,
            "server_name": "MMS",
            "server_version": mms_version,
            "limit_max_image_pixels": limit_max_image_pixels,
        }
        self.request_ids: dict[int, str] | None = None
        self._request_processor: list[RequestProcessor] | None = None
        self._metrics = metrics
        self._limit_max_image_pixels = limit_max_image_pixels
        self.model_yaml_config = model_yaml_config
        self.stopping_criteria: list[Callable[[Any], bool | None]] | None = None
        self.header_key_sequence_id = os.environ.get("TS_REQUEST_SEQUENCE_ID", "ts_request_sequence_id")
        self.header_key_sequence_start = os.environ.get("TS_REQUEST_SEQUENCE_START", "ts_request_sequence_start")
        self.header_key_sequence_end = os.environ.get("TS_REQUEST_SEQUENCE_END", "ts_request_sequence_end")

    @property
    def system_properties(self) -> dict[str, Any]:
        """Keys `model_dir`, `gpu_id`, `batch_size`, `server_name`, `server_version`, `limit_max_image_pixels`;
        `gpu_id` is None on CPU.
        """
        return self._system_properties

    @property
    def request_processor(self) -> list[RequestProcessor] | None:
        """One entry per request of the batch; None while the model loads."""
        return self._request_processor

    @request_processor.setter
    def request_processor(self, request_processor: list[RequestProcessor] | None) -> None:
        self._request_processor = request_processor

    @property
    def metrics(self) -> Any:
        """The metrics of this worker, a `MetricsCacheYamlImpl`; handlers and their tests may set another kind."""
        return self._metrics

    @metrics.setter
    def metrics(self, metrics: Any) -> None:
        self._metrics = metrics

    @property
    def cancelled(self) -> list[bool]:
        """For each request of the batch, whether its client is known to be gone.

        Every access asks anew, so a long-running handler reads it between steps and stops working for those clients.
        """
        return [False] * len(self.request_ids or ())

    def get_request_id(self, idx: int = 0) -> str | None:
        """The id of a request, equal to the response header `x-request-id`; None while the model loads."""
        return (self.request_ids or {}).get(idx)

    def get_request_header(self, idx: int, key: str) -> Any:
        """A header of a request, None if absent: found by exact spelling first, then without regard to case."""
        return self._processor(idx).get_request_property(key)

    def get_all_request_header(self, idx: int) -> dict[str, Any]:
        """All headers of a request, in the client's spelling."""
        return self._processor(idx).get_request_properties()

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Set the header `content-type` of a response."""
        self.set_response_header(idx, "content-type", value)

    def get_response_content_type(self, idx: int) -> str | None:
        """The content type set for a response, None if there is none."""
        return self._processor(idx).get_response_header("content-type")

    def set_response_header(self, idx: int, key: str, value: str) -> None:
        """Set a header of a response."""
        self._processor(idx).add_response_property(key, value)

    def get_response_headers(self, idx: int) -> dict[str, str]:
        """The headers set for a response."""
        return self._processor(idx).get_response_headers()

    def set_response_status(self, code: int = 200, phrase: str = "", idx: int = 0) -> None:
        """Set the status of one response; does nothing while there is no request."""
        processors = self.request_processor
        if processors:
            processors[idx].report_status(code, reason_phrase=phrase)

    def set_all_response_status(self, code: int = 200, phrase: str = "") -> None:
        """Set the status of all responses of the batch."""
        for processor in self.request_processor or ():
            processor.report_status(code, reason_phrase=phrase)

    def get_response_status(self, idx: int) -> tuple[int, str | None]:
        """Status and phrase of a response, `(200, None)` unless set."""
        processor = self._processor(idx)
        return processor.get_response_status_code(), processor.get_response_status_phrase()

    def get_sequence_id(self, idx: int) -> Any:
        """The id of the sequence that a request belongs to, None if it belongs to none."""
        return self.get_request_header(idx, self.header_key_sequence_id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Context) and self.__dict__ == other.__dict__

    __hash__ = None  # type: ignore[assignment]

    def _processor(self, idx: int) -> RequestProcessor:
        processors = self.request_processor
        if processors is None:
            raise TypeError("there is no request while the model loads")
        return processors[idx]
