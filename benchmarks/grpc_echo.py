"""A gRPC server that answers everything with a no-op's answer: what grpcio costs without anything behind it.

`python -m benchmarks.grpc_echo PORT`
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import uvloop
from grpc import aio

from benchmarks.h2load import response_message
from benchmarks.plan import NOOP

_ANSWER = response_message(NOOP.answer.encode())


class Echo(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Every method."""

    def service(self, handler_call_details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(_answer)


async def _answer(message: bytes, context: Any) -> bytes:
    return _ANSWER


async def serve(port: int) -> None:
    server = aio.server()
    server.add_generic_rpc_handlers((Echo(),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
