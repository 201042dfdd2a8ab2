"""The methods of one port: who may call them, how they end, and the end of those that run when the server stops."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from grpc import aio

from modelserver.dialect.ports import Telemetry
from modelserver.errors import InternalError, ServerError
from modelserver.rpc.call import Call
from modelserver.rpc.ports import Authorization, Kind
from modelserver.rpc.render import Refusal, refusal_of_model_call

_STOPPING: Final = Refusal(grpc.StatusCode.UNAVAILABLE, "The server is stopping.", "")

Work = Callable[[Call], Awaitable[bytes | None]]


@dataclass(frozen=True, slots=True)
class Method:
    """What a method does. One that `streams` writes its messages itself; others return theirs.

    All are calls with a stream of requests to grpcio, which would leave a call without an answer whose client sends no
    request at all, and would read large requests of clients that are not allowed to send any.
    """

    work: Work
    streams: bool = False
    open: bool = False  # without a key
    endless: bool = False  # it has no end but the client's or the server's, so the latter does not wait for it
    refuse: Callable[[ServerError], Refusal] = field(default=refusal_of_model_call)
    owner: str = "InferenceImpl"  # in log lines


class Switchboard:
    """grpcio asks it for the handler of every call."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        telemetry: Telemetry,
        authorization: Authorization | None,
        kind: Kind,
        limit: int,
        calls: type[Call] = Call,
    ) -> None:
        """Methods by `package.Service/Method`, whose messages have at most `limit` bytes; without authorization no key
        is asked for.
        """
        self._limit = limit
        self._calls = calls
        self._telemetry = telemetry
        self._authorization = authorization
        self._kind = kind
        self._handlers = {f"/{target}": self._handler(target, method) for target, method in methods.items()}
        self._running: dict[Call, asyncio.Task[Any] | None] = {}
        self._loop = asyncio.get_running_loop()
        self._endless = {target for target, method in methods.items() if method.endless}
        self._parting = False
        self._cut = False

    @property
    def owed(self) -> int:
        """Calls that run."""
        return len(self._running)

    def service(self, details: Any) -> Any:
        """Called by grpcio."""
        return self._handlers.get(details.method) or _unknown(details.method)

    def part(self) -> None:
        """End the calls that would not end by themselves."""
        self._parting = True
        self._cancel([call for call in self._running if self._is_over(call)])

    def cut(self) -> None:
        """End all calls."""
        self._cut = True
        self._cancel([*self._running])

    def _cancel(self, calls: Sequence[Call]) -> None:
        for call in calls:
            task = self._running[call]
            assert task is not None
            task.cancel()

    def _is_over(self, call: Call) -> bool:
        """Whether the server, and not the client, has ended a call."""
        return self._cut or (self._parting and call.target in self._endless)

    def _handler(self, target: str, method: Method) -> Any:
        def serve(context: Any) -> Coroutine[Any, Any, bytes | None]:
            return self._serve(self._calls(target, context, self._telemetry, self._limit), method)

        async def stream(_: object, context: Any) -> None:
            await serve(context)

        if method.streams:
            return grpc.stream_stream_rpc_method_handler(stream)
        return grpc.stream_unary_rpc_method_handler(_Unary(serve))

    async def _serve(self, call: Call, method: Method) -> bytes | None:
        # No name holds the task: an exception that ends it would refer to this frame, which would refer to the task.
        self._running[call] = asyncio.current_task(self._loop)
        try:
            outcome = await self._answer(call, method)
        finally:
            del self._running[call]
        if isinstance(outcome, Refusal):
            call.record(outcome.code)
            return refuse(call.context, outcome, streams=method.streams)
        call.record(grpc.StatusCode.OK)
        return outcome

    async def _answer(self, call: Call, method: Method) -> bytes | Refusal | None:
        """Do what the method does; raises only if the client has left."""
        try:
            self._admit(call, method)
            return await method.work(call)
        except ServerError as error:
            return method.refuse(error)
        except (asyncio.CancelledError, aio.BaseError):
            if self._is_over(call):
                return _STOPPING
            self._telemetry.log("WARN", f"grpcimpl.{method.owner}", "grpc client call already cancelled")
            call.record(grpc.StatusCode.CANCELLED)
            raise
        except Exception as error:
            self._telemetry.log("ERROR", f"grpcimpl.{method.owner}", traceback.format_exc().rstrip())
            return method.refuse(InternalError(f"{type(error).__name__} in the server, see its log."))

    def _admit(self, call: Call, method: Method) -> None:
        """Raises InvalidKey."""
        if self._authorization is not None and not method.open:
            self._authorization.require(call.shown, (self._kind,))


class _Unary:
    """A method with one response.

    grpcio asks twice in every call whether its handler is asynchronous. It looks first whether that can be awaited,
    which is found out more quickly than whether it is a coroutine function (1.3 us of a call).
    """

    def __init__(self, serve: Callable[[Any], Coroutine[Any, Any, bytes | None]]) -> None:
        self._serve = serve

    def __call__(self, _: object, context: Any) -> Coroutine[Any, Any, bytes | None]:
        """Called by grpcio."""
        return self._serve(context)

    def __await__(self) -> Generator[Any, Any, None]:
        """Never called."""
        raise TypeError("a method is called, and then awaited")


def refuse(context: Any, refusal: Refusal, *, streams: bool) -> bytes | None:
    """End a call; returns what its handler has to return.

    `context.abort` would do it by an exception that the context keeps, and which refers to the frames of the call: it
    and the body of its request would stay until the collector looks.
    """
    context.set_code(refusal.code)
    context.set_details(refusal.details)
    return None if streams else b""


def _unknown(path: str) -> Any:
    """A handler for what is not there; it reads nothing."""

    async def handle(_: object, context: Any) -> None:
        text = f"Method not found: {path.removeprefix('/')}"
        refuse(context, Refusal(grpc.StatusCode.UNIMPLEMENTED, text, ""), streams=True)

    return grpc.stream_stream_rpc_method_handler(handle)
