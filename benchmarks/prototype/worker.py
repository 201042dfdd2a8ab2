"""Prototype worker: one Unix socket, one blocking loop, the handler of one archive.

python -m benchmarks.prototype.worker SOCKET ARCHIVE
"""

from __future__ import annotations

import importlib
import json
import socket
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.prototype.frames import PREFIX, Reply, Request, decode_requests, frame

Handle = Callable[[list[dict[str, Any]], Any], list[Any]]


def load(archive: Path) -> Handle:
    """Unpack an archive and initialize the one class of its handler file."""
    directory = tempfile.mkdtemp(prefix="prototype-")
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(directory)
        manifest = json.loads(packed.read("MAR-INF/MANIFEST.json"))
    sys.path.insert(0, directory)
    module = importlib.import_module(Path(manifest["model"]["handler"]).stem)
    (handler_class,) = (kind for kind in vars(module).values() if getattr(kind, "__module__", "") == module.__name__)
    handler = handler_class()
    handler.initialize(None)
    handle: Handle = handler.handle
    return handle


def to_row(request: Request) -> dict[str, Any]:
    return {"body": json.loads(request.body) if request.mime == "application/json" else bytearray(request.body)}


def to_bytes(element: Any) -> bytes:
    return (element if isinstance(element, str) else json.dumps(element, indent=2)).encode()


def serve(socket_path: str, handle: Handle) -> None:
    """Answer the frames of one connection until it ends."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(socket_path)
        listener.listen(1)
        connection, _ = listener.accept()
    stream = connection.makefile("rb", buffering=1 << 18)
    while prefix := stream.read(PREFIX):
        requests = decode_requests(stream.read(int.from_bytes(prefix, "little")))
        elements = handle([to_row(request) for request in requests], None)
        replies = [Reply(request.id, to_bytes(element)) for request, element in zip(requests, elements, strict=True)]
        connection.sendall(frame(replies))


if __name__ == "__main__":
    serve(sys.argv[1], load(Path(sys.argv[2])))
