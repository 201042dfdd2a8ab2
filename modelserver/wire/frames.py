"""Frames between the frontend and a worker, over one Unix stream socket.

A frame is a 4-byte little-endian length followed by one msgpack array whose first element is the tag. Fields are only
ever added at the end of a struct, with a default, so that frontend and worker may differ by a minor version.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import msgspec

from modelserver.wire.places import Place

# Kinds of jobs; a batch holds one kind only. Those of KServe's version 1 differ from the first two in that answers that
# are JSON are labelled so; those of the Open Inference Protocol are decoded and encoded in the worker.
PREDICT, EXPLAIN, DESCRIBE = 0, 1, 2
KSERVE_PREDICT, KSERVE_EXPLAIN, INFER, INFER_EXPLAIN = 3, 4, 5, 6

# Media types of the one part `body` of an INFER job that holds a serialized `ModelInferRequest`: it is answered by a
# serialized `ModelInferResponse`. The second one came by TorchServe's own service, whose answers differ in details.
PROTOBUF: Final = "application/x-protobuf"
TORCHSERVE_PROTOBUF: Final = "application/x-protobuf; service=torchserve"

Dimensions = list[tuple[str, str]]

# Both sides read them as bytes. They arrive as the kind that handlers get and may change, so that rows need no copy.
if TYPE_CHECKING:
    Octets = bytes
else:
    Octets = bytearray


class Part(msgspec.Struct, array_like=True, gc=False):
    """One parameter of a request: a body, a form field, a multipart part, a gRPC input."""

    name: str
    mime: str  # media type without parameters, spelled as sent; "" if absent
    value: Octets


class Request(msgspec.Struct, array_like=True, gc=False):
    """One job of a batch, as the worker sees it."""

    id: str
    parts: list[Part]
    headers: list[tuple[bytes, bytes]]  # as sent: spelling kept, duplicates kept, latin-1
    extra: dict[
        str, str
    ]  # added by the server (`explain`, `url_path`, `describe`): found by exact spelling, beats `headers`


class TensorSpec(msgspec.Struct, array_like=True, frozen=True):
    """A tensor that a model declares; -1 in its shape is any number."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False


class OpenInference(msgspec.Struct, array_like=True, frozen=True):
    """What a model declares about its requests; with `rows` the handler gets inputs as rows, and returns outputs."""

    rows: bool = False
    inputs: tuple[TensorSpec, ...] = ()  # empty: any
    outputs: tuple[TensorSpec, ...] = ()


class Load(msgspec.Struct, array_like=True, tag=1):
    """First frame to every worker: load this model. Answered by one `Loaded`."""

    model_name: str
    model_dir: str
    handler: str  # "" if neither registration, manifest nor settings name one
    batch_size: int
    gpu: int | None
    envelope: str  # "" for none
    limit_max_image_pixels: bool
    max_response_size: int  # bytes of one encoded reply body
    metrics_config: str  # path of the metric definitions
    model_version: str = ""
    max_request_size: int = 1 << 31  # bytes of one inflated request body
    open_inference: OpenInference = OpenInference()
    continuous: bool = False  # each batch is one step of requests that may need more of them


class Batch(msgspec.Struct, array_like=True, tag=2, gc=False):
    """Jobs of one kind for one call of the handler. Answered by any number of `Chunk` and one `Replies`."""

    id: int  # unique per connection
    kind: int
    requests: list[Request]
    continued: int = 0  # so many at the head go on since the last step: the worker has kept all of them but the id


class Cancel(msgspec.Struct, array_like=True, tag=3):
    """The clients of these requests of a batch are gone; no answer of its own."""

    batch: int
    requests: list[str]


class Stop(msgspec.Struct, array_like=True, tag=4):
    """Leave the loop after the frames before this one, and exit with status 0."""


class Share(msgspec.Struct, array_like=True, tag=5):
    """Memory for large bodies: two areas, requests first. Answered by `Shared`."""

    process: int  # whose descriptor it is: the frontend's pid
    descriptor: int
    device: int  # what tells the file from others that a process of this number might have
    inode: int
    area: int  # bytes of each


class Room(msgspec.Struct, array_like=True, tag=6):
    """How much of the replies' area there is memory for from now on; none at first. No answer of its own."""

    size: int  # bytes


class SharedBatch(msgspec.Struct, array_like=True, tag=7, gc=False):
    """A `Batch` with large bodies, which lie in the requests' area until it is answered: they are empty in here."""

    batch: Batch
    places: list[Place]


class Hello(msgspec.Struct, array_like=True, tag=16):
    """First frame from every worker. `token` proves that the nursery started it."""

    slot: int
    generation: int
    rank: int
    pid: int
    token: str
    python: str  # version, `3.11.7`
    concurrent: bool = False  # may hold several unanswered batches (asynchronous handlers)
    shares: bool = False  # takes a `Share`


class Failure(msgspec.Struct, array_like=True):
    """An exception in the worker; `cause` is the value of an `errors.Cause`, or "" where the handler itself failed."""

    cause: str
    detail: str  # `ValueError: text`
    traceback: str = ""


class Loaded(msgspec.Struct, array_like=True, tag=17):
    """Answer to `Load`: 200, or the status of the failure, after which the worker exits."""

    code: int
    message: str
    failure: Failure | None = None


class Metric(msgspec.Struct, array_like=True, gc=False):
    """One update of a worker metric, in the units and dimension order of the handler-side API."""

    name: str
    unit: str
    value: float
    dimensions: Dimensions
    type: str  # COUNTER, GAUGE, HISTOGRAM
    request_ids: str  # joined by ",", "" for none


class Reply(msgspec.Struct, array_like=True, gc=False):
    """The handler's element for one request, encoded."""

    index: int  # position of the request in its batch
    body: bytes
    status: int = 200
    phrase: str = ""
    headers: list[tuple[str, str]] = []  # handler's headers, content type included
    streamed: bool = False  # the last piece of an answer that began as chunks


class Replies(msgspec.Struct, array_like=True, tag=18, gc=False):
    """Answer to `Batch`. With a code other than 200 the batch failed, and `replies` has only what failed alone."""

    batch: int
    code: int
    message: str
    replies: list[Reply]
    metrics: list[Metric] = []
    handler_ns: int = 0  # time inside the handler
    failure: Failure | None = None
    failed: list[int] = []  # positions of requests that failed alone: `replies` has status and message (the body)
    going_on: list[int] = []  # positions of requests whose reply is a piece: the next step is to continue them


class Chunk(msgspec.Struct, array_like=True, tag=19, gc=False):
    """Intermediate pieces for some requests of a running batch; status and headers count on the first piece only."""

    batch: int
    replies: list[Reply]


class Metrics(msgspec.Struct, array_like=True, tag=20):
    """Metric updates outside a batch (during load, from threads of the handler)."""

    metrics: list[Metric]


class Fatal(msgspec.Struct, array_like=True, tag=21):
    """What ends the worker while it serves or loads; its process ends behind this."""

    failure: Failure


class Shared(msgspec.Struct, array_like=True, tag=22):
    """Answer to `Share`; `error` says why the worker cannot reach that memory, "" if it can."""

    error: str = ""


class Ask(msgspec.Struct, array_like=True, tag=23):
    """The worker has large replies, and would like to share memory for them. Answered by a `Share`, or not."""


class SharedReplies(msgspec.Struct, array_like=True, tag=24, gc=False):
    """`Replies` with large bodies, which lie in the replies' area until the next batch: they are empty in here."""

    replies: Replies
    places: list[Place]


ToWorker = Load | Batch | Cancel | Stop | Share | Room | SharedBatch
FromWorker = Hello | Loaded | Replies | Chunk | Metrics | Fatal | Shared | Ask | SharedReplies

_encode_payload = msgspec.msgpack.Encoder().encode
_decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
_decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode

_read_length = struct.Struct("<I").unpack_from

_T = TypeVar("_T")


def encode(frame: Any) -> bytes:
    """Length prefix and payload of one frame."""
    payload = _payload(frame)
    return len(payload).to_bytes(4, "little") + payload


def encode_apart(frame: Any) -> tuple[bytes, bytes]:
    """Length prefix and payload of one frame, for whoever can send them without putting them together."""
    payload = _payload(frame)
    return len(payload).to_bytes(4, "little"), payload


def _payload(frame: Any) -> bytes:
    """Texts with lone surrogates (in exceptions about file names, in labels made of JSON) are sent with escapes."""
    try:
        return _encode_payload(frame)
    except UnicodeEncodeError:
        return _encode_payload(_escaped(msgspec.to_builtins(frame, builtin_types=(bytes, bytearray))))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, list | tuple):
        return [_escaped(each) for each in value]
    if isinstance(value, dict):
        return {_escaped(key): _escaped(each) for key, each in value.items()}
    return value


class FrameTooLarge(ValueError):
    """A length prefix above the limit: the peer is broken or hostile."""


class _Reader(Generic[_T]):
    """Cuts a byte stream into frames; feed it whatever arrived, iterate what is complete."""

    _decode: Callable[[memoryview], _T]

    def __init__(self, limit: int) -> None:
        self.limit = limit  # bytes of one payload
        self._buffer = bytearray()  # the beginning of an incomplete frame

    def feed(self, data: bytes | memoryview) -> Iterator[_T]:
        """Yields every frame completed by `data`. Raises `FrameTooLarge` or `msgspec.MsgspecError` on garbage."""
        buffer = self._buffer
        source: bytes | bytearray | memoryview = data  # mostly whole frames: they are decoded where they lie
        if buffer:
            buffer += data
            source = buffer
        start, size = 0, len(source)
        try:
            while size - start >= 4:
                (length,) = _read_length(source, start)
                if length > self.limit:
                    raise FrameTooLarge(f"frame of {length} bytes exceeds the limit of {self.limit}")
                end = start + 4 + length
                if size < end:
                    break
                # No name holds the view: it is gone before the buffer is resized. (Two `with` cost 0.2 us a frame.)
                frame = self._decode(memoryview(source)[start + 4 : end])
                start = end
                yield frame
        finally:
            if source is buffer:
                del buffer[:start]
            elif start < size:
                buffer += memoryview(data)[start:]

    @property
    def partial(self) -> bool:
        """True while the beginning of an incomplete frame is held."""
        return bool(self._buffer)


class FromWorkerReader(_Reader[FromWorker]):
    """The frontend's side of a link."""

    _decode = staticmethod(_decode_from_worker)


class ToWorkerReader(_Reader[ToWorker]):
    """The worker's side of a link."""

    _decode = staticmethod(_decode_to_worker)
