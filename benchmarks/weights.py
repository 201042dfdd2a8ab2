"""What workers with large weights cost: time to load them, memory of one and of four."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from benchmarks.client import NotInTime, Unreachable
from benchmarks.contenders import Contender
from benchmarks.figures import FORMATS, Samples, memory_figure, register_figure
from benchmarks.lifecycle import seconds, wait_for_workers
from benchmarks.plan import HANDLERS, WORKERS_AFTER_SCALING, Deployment, Handler, Plan
from benchmarks.servers import CallFailed, RestServer, predict
from benchmarks.targets import MODELSERVER

_INPUTS: Final = 4
_CALLS: Final = 16  # for each worker, at once: so all of them touch their weights

Say = Callable[[str], None]


def make_eager(work: Path) -> Mapping[str, str]:
    import torch

    from benchmarks.handlers.deep_model import DeepModel

    torch.save(DeepModel().state_dict(), work / "deep_eager.pt")
    return {"model_file": str(HANDLERS / "deep_model.py"), "serialized_file": str(work / "deep_eager.pt")}


def make_torchscript(work: Path) -> Mapping[str, str]:
    import torch

    from benchmarks.handlers.deep_model import DeepModel

    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.trace(DeepModel().eval(), torch.zeros(1, _INPUTS)).save(str(work / "deep.pt"))  # type: ignore[no-untyped-call]
    return {"serialized_file": str(work / "deep.pt")}


def make_package(work: Path) -> Mapping[str, str]:
    import torch

    from benchmarks.handlers.deep_model import DeepModel

    torch.export.save(torch.export.export(DeepModel().eval(), (torch.zeros(1, _INPUTS),)), work / "deep.pt2")
    config = work / "model-config.yaml"
    config.write_text("pt2: {export: {}}\n")
    return {"serialized_file": str(work / "deep.pt2"), "config_file": str(config)}


def _deep(name: str, title: str, make: Callable[[Path], Mapping[str, str]]) -> Handler:
    body = json.dumps([n / _INPUTS for n in range(_INPUTS)])
    return Handler(name, title, "application/json", body, "", file="deep", make=make)


PACKAGE: Final = _deep("deep_package", FORMATS[2], make_package)
DEEP: Final = (
    _deep("deep_eager", FORMATS[0], make_eager),
    _deep("deep_torchscript", FORMATS[1], make_torchscript),
    PACKAGE,
)


class WeightBench:
    """Every format on a fresh server of each contender, one after the other."""

    def __init__(
        self, contenders: Sequence[Contender], plan: Plan, directory: Path, samples: Samples, say: Say
    ) -> None:
        self._contenders = [contender for contender in contenders if contender.launch_rest is not None]
        self._plan = plan
        self._directory = directory
        self._samples = samples
        self._say = say

    def run(self) -> None:
        for turn in range(self._plan.rounds):
            for handler in DEEP:
                for contender in self._contenders:
                    # TorchServe knows no packages of torch.export.
                    if handler is not PACKAGE or contender.name == MODELSERVER:
                        self._measure(contender, handler, turn + 1)

    def _measure(self, contender: Contender, handler: Handler, turn: int) -> None:
        when = f"{handler.name}, round {turn}"
        self._say(f"{when}: {contender.title}")
        assert contender.launch_rest is not None
        server = contender.launch_rest(self._directory / f"{contender.name}-{handler.name}-{turn}")
        try:
            measure_weights(contender.name, server, Deployment(handler, 1), self._samples)
        except (CallFailed, NotInTime, Unreachable) as error:
            self._samples.discard(contender.title, when, str(error))


def measure_weights(name: str, server: RestServer, deployment: Deployment, samples: Samples) -> None:
    """Register with one worker, ask it, grow to four, ask them all."""
    title = deployment.handler.title
    try:
        server.start()
        server.pack(deployment)
        server.tree.settle()
        samples.add(name, register_figure(title), seconds(lambda: server.register(deployment)))
        for workers in (1, WORKERS_AFTER_SCALING):
            if workers > 1:
                server.scale(deployment, workers)
            wait_for_workers(server, deployment, workers)
            ask_all(server, deployment, workers)
            samples.add(name, memory_figure(title, workers), server.tree.pss() / 2**20)
    finally:
        server.stop()


def ask_all(server: RestServer, deployment: Deployment, workers: int) -> None:
    """So many calls at once that no worker is left out. Raises CallFailed for a bad answer."""
    with ThreadPoolExecutor(4 * workers) as clients:
        calls: list[Any] = [clients.submit(predict, server, deployment) for _ in range(_CALLS * workers)]
    if not all(call.result() for call in calls):
        raise CallFailed(f"a bad answer of {deployment.model}")
