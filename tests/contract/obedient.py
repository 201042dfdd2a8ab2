"""The handler of all models here: does what requests (JSON objects) order, and records every call.

It is packed into archives as it stands. What it does at `initialize` is written in a file that tests may change.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from ts.utils.util import PredictionException

RECORD = Path(os.environ["CONTRACT_RECORD"])
Order = dict[str, Any]


def wait_for(gate: str) -> None:
    """Return when a test has opened the gate."""
    while not (RECORD / f"{gate}.gate").exists():
        time.sleep(0.01)


def die() -> None:
    """End as the kernel ends what takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(30)


def fail(error: Exception) -> NoReturn:
    raise error


DEEDS: dict[str, Callable[[Order], object]] = {
    "exit": lambda order: os._exit(1),
    "kill": lambda order: die(),
    "raise": lambda order: fail(ValueError("no")),
    "memory": lambda order: fail(MemoryError()),
    "cuda": lambda order: fail(RuntimeError("CUDA error: out of memory")),
    "predict-error": lambda order: fail(PredictionException(order["text"], order["code"])),
    "wait": lambda order: wait_for(order["gate"]),
    "facts": lambda order: wait_for(order["gate"]) if "gate" in order else None,
}
AT_START: dict[str, Callable[[], object]] = {
    "raise": lambda: fail(ValueError("weights are gone")),
    "runtime-error": lambda: fail(RuntimeError("weights are gone")),
    "memory": lambda: fail(MemoryError()),
    "cuda": lambda: fail(RuntimeError("CUDA out of memory")),
    "exit": lambda: os._exit(3),
    "kill": die,
    "hang": lambda: wait_for("never"),
    "slow": lambda: time.sleep(2),
}


def facts(context: Any) -> dict[str, Any]:
    """What a handler can know of its worker."""
    system = context.system_properties
    return {
        "pid": os.getpid(),
        "cwd": str(Path.cwd()),
        "environment": dict(os.environ),
        "python": sys.executable,
        "rank": os.environ.get("LOCAL_RANK"),
        **{key: system[key] for key in ("model_dir", "gpu_id", "batch_size")},
    }


def answer(order: Order, context: Any) -> Any:
    """What the client gets: the name of its request, unless it ordered something else."""
    match order.get("do"):
        case "facts":
            return facts(context)
        case "big":
            return "x" * int(order["size"])
        case "import":
            return importlib.import_module(order["module"]).__file__
        case _:
            return str(order.get("id", "done"))


class Obedient:
    """One worker's handler."""

    def initialize(self, context: Any) -> None:
        self.name = context.manifest["model"]["modelName"]
        starting = RECORD / f"{self.name}.initialize"
        if starting.exists() and (deed := starting.read_text()):
            AT_START[deed]()

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[Any]:
        orders = [row.get("body") or {} for row in data]
        self.note("begin", orders)
        answers = [self.obey(index, order, context) for index, order in enumerate(orders)]
        self.note("end", orders)
        return answers

    def obey(self, index: int, order: Order, context: Any) -> Any:
        if deed := DEEDS.get(order.get("do", "")):
            deed(order)
        if "status" in order:
            context.set_response_status(order["status"], "", idx=index)
        return answer(order, context)

    def note(self, step: str, orders: list[Order]) -> None:
        """One line per call and step; lines of several processes do not mix."""
        call = {"step": step, "ids": [order.get("id") for order in orders], "pid": os.getpid()}
        with (RECORD / f"{self.name}.calls").open("a") as record:
            record.write(json.dumps(call) + "\n")
