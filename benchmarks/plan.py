"""What is measured: the models, the points of load, and how long each takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

HANDLERS = Path(__file__).with_name("handlers")
MAX_BATCH_DELAY = 5  # ms
BATCHED = 16
WORKERS_AFTER_SCALING = 4
MOST_WORKERS = 8
MAX_BODY = 1000  # bytes that servers take whose refusals are measured
SCRAPED_MODELS = 200
SCRAPES = 40
KILL_WORKERS = 2
KILL_CLIENTS = 32


@dataclass(frozen=True)
class Handler:
    """One archive and the request every client sends to it; `answer` starts every good reply."""

    name: str
    title: str
    mime: str
    body: str
    answer: str
    file: str = ""  # that it lies in, if not in one of its name
    make: Callable[[Path], Mapping[str, str]] | None = None  # writes more of it, returns options

    @property
    def source(self) -> Path:
        return HANDLERS / f"{self.file or self.name}.py"


NOOP = Handler("noop", "no-op", "text/plain", "x", "ok")
MLP = Handler("mlp", "MLP, JSON", "application/json", json.dumps({"features": [n / 64 for n in range(64)]}), "{")
INFER = Handler("infer", "no-op of Open Inference", "application/json", "", "{")
LENGTH = Handler("length", "length of the body", "application/octet-stream", "x", "1")


def declare_picture(work: Path) -> Mapping[str, str]:
    """The tensors of the handler that takes pictures."""
    lines = ("  mapping: rows", "  inputs: [{name: picture, datatype: FP32, shape: [-1, 3, 224, 224]}]")
    outputs = "  outputs: [{name: first, datatype: FP32, shape: [-1]}]"
    config = work / "model-config.yaml"
    config.write_text("\n".join(("openInference:", *lines, outputs)) + "\n")
    return {"config_file": str(config)}


PICTURE = Handler("picture", "pictures as tensors", "", "", "{", make=declare_picture)


@dataclass(frozen=True)
class Deployment:
    """A handler served by one worker with one batch size, under a name of its own."""

    handler: Handler
    batch: int

    @property
    def model(self) -> str:
        return f"{self.handler.name}_b{self.batch}"


@dataclass(frozen=True)
class Point:
    """One load: so many clients, each sending its next request when it has its answer."""

    deployment: Deployment
    clients: int

    @property
    def key(self) -> str:
        """`noop b16 c32`: how figures and targets name it."""
        return f"{self.deployment.handler.name} b{self.deployment.batch} c{self.clients}"


@dataclass(frozen=True)
class Plan:
    """How much is measured. Durations in whole seconds: wrk knows no others."""

    points: tuple[Point, ...]
    rounds: int
    duration: int
    warm_up: int  # load on every model once, before the first run: a JVM compiles what it sees often
    idle: int = 30  # of a server that nobody asks anything
    kills: int = 15  # with a kill every second, and as long without


def points(clients: tuple[int, ...]) -> tuple[Point, ...]:
    return tuple(
        Point(Deployment(handler, batch), count)
        for handler in (NOOP, MLP)
        for batch in (1, BATCHED)
        for count in clients
    )


GRPC_POINTS = (Point(Deployment(NOOP, 1), 32), Point(Deployment(NOOP, BATCHED), 32), Point(Deployment(NOOP, 1), 1))

FULL = Plan(points((1, 8, 32, 128)), rounds=3, duration=4, warm_up=5)
QUICK = Plan(points((1, 32)), rounds=1, duration=1, warm_up=1, idle=2, kills=4)
