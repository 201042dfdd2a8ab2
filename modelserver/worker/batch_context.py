"""The `Context` of a worker: filled anew for every batch, at as little cost as the handler's curiosity allows."""

from __future__ import annotations

import copy
from typing import Any

from modelserver.wire.frames import Batch, Request
from modelserver.worker.headers import WireRequestProcessor
from ts.channel import Channel
from ts.context import Context, RequestProcessor
from ts.metrics.metric_cache_abstract import MetricCacheAbstract
from ts.protocol.stream import Stream


class BatchContext(Context):
    """Makes the request processors when they are first asked for, and asks the channel about cancelled requests."""

    def __init__(self, channel: Channel, max_response_size: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._channel = channel
        self._max_response_size = max_response_size  # bytes
        self._batch: Batch | None = None

    def enter(self, batch: Batch) -> Stream:
        """`batch` is what the handler works on from now on. Returns the way for pieces of its answers."""
        self._batch = batch
        self._request_processor = None
        self.request_ids = {index: request.id for index, request in enumerate(batch.requests)}
        self.cl_socket = stream = Stream(batch, self._channel, self._max_response_size)
        return stream

    def for_batch(self, channel: Channel, metrics: MetricCacheAbstract) -> BatchContext:
        """A copy for one of several batches that run at once: it shares what the handler has put here, but may be left
        to itself.
        """
        own = copy.copy(self)
        own._channel = channel
        own._metrics = metrics  # type: ignore[assignment]
        return own

    @property
    def channel(self) -> Channel:
        """The way to the frontend."""
        return self._channel

    def narrow(self, requests: list[Request], stream: Stream) -> None:
        """The handler sees only these of the batch, or others in their place, and sends pieces this way."""
        assert self._batch is not None
        self.cl_socket = stream
        if requests == self._batch.requests:  # as it mostly is, and seen at a glance: they are the same objects
            return
        self._batch = Batch(self._batch.id, self._batch.kind, requests)
        self._request_processor = None
        self.request_ids = {index: request.id for index, request in enumerate(requests)}

    def leave(self) -> None:
        """The batch is answered: let go of its bodies."""
        self._batch = None
        self.__dict__.pop("cl_socket", None)

    @property
    def touched(self) -> bool:
        """Whether the handler may have set a status or header."""
        return self._request_processor is not None

    @property
    def request_processor(self) -> list[RequestProcessor] | None:
        """One entry per request of the batch; None while the model loads."""
        if self._request_processor is None and self._batch is not None:
            self._request_processor = [WireRequestProcessor(request) for request in self._batch.requests]
        return self._request_processor

    @request_processor.setter
    def request_processor(self, request_processor: list[RequestProcessor] | None) -> None:
        self._request_processor = request_processor

    @property
    def cancelled(self) -> list[bool]:
        """For each request of the batch, whether its client is known to be gone; every access asks anew."""
        return [self._channel.cancelled(request_id) for request_id in (self.request_ids or {}).values()]
