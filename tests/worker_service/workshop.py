"""Handlers from source text, loaded as a worker does, and a channel that keeps what is sent."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ts
from modelserver.wire.frames import DESCRIBE, PREDICT, Batch, Chunk, Load, Metrics, Part, Request
from modelserver.worker.service import Service
from ts.channel import Channel

METRICS = str(Path(ts.__file__).with_name("configs") / "metrics.yaml")
LIMIT = 6_553_500


class KeepingChannel(Channel):
    """Keeps the frames; `gone` holds the ids of requests whose clients have left."""

    def __init__(self) -> None:
        self.sent: list[Chunk | Metrics] = []
        self.gone: set[str] = set()

    def send(self, frame: Chunk | Metrics) -> None:
        self.sent.append(frame)

    def cancelled(self, request_id: str) -> bool:
        return request_id in self.gone

    @property
    def chunks(self) -> list[Chunk]:
        return [frame for frame in self.sent if isinstance(frame, Chunk)]


_folders: set[str] = set()  # of the models that this process has seen


def forget_models() -> None:
    """A process serves one model, but the tests many: drop the modules of earlier ones."""
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        places = [spec.origin or "", *(spec.submodule_search_locations or ())] if spec else []
        if any(str(place).startswith(tuple(_folders)) for place in places):
            del sys.modules[name]


def write_model(folder: Path, files: dict[str, str], **model: str) -> Path:
    """A model directory with these files; keyword arguments become members of the manifest's `model`."""
    forget_models()
    _folders.add(f"{folder}/")
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    if model:
        (folder / "MAR-INF").mkdir(parents=True, exist_ok=True)
        (folder / "MAR-INF" / "MANIFEST.json").write_text(json.dumps({"model": {"modelName": "m", **model}}))
    return folder


def load_frame(folder: Path, handler: str = "h.py", **changes: Any) -> Load:
    values: dict[str, Any] = {
        "model_name": "m",
        "model_dir": str(folder),
        "handler": handler,
        "batch_size": 4,
        "gpu": None,
        "envelope": "",
        "limit_max_image_pixels": True,
        "max_response_size": LIMIT,
        "metrics_config": METRICS,
    }
    return Load(**{**values, **changes})


def load(folder: Path, source: str, channel: Channel | None = None, **changes: Any) -> Service:
    """The service of a handler `h.py` with this source."""
    write_model(folder, {"h.py": source})
    return Service.load(load_frame(folder, **changes), channel or KeepingChannel())


def request(
    body: bytes = b"",
    mime: str = "",
    *,
    id: str = "r0",
    headers: Sequence[tuple[bytes, bytes]] = (),
    extra: dict[str, str] | None = None,
) -> Request:
    return Request(id, [Part("body", mime, body)], list(headers), extra or {})


def batch(*requests: Request, id: int = 7, kind: int = PREDICT) -> Batch:
    return Batch(id, kind, list(requests) or [request()])


def describe() -> Batch:
    return batch(Request("r0", [], [], {"describe": "True"}), kind=DESCRIBE)
