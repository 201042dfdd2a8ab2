"""What a run prints: answers on standard output, everything about them on standard error."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from modelserver.tryout.inputs import Trial
from modelserver.wire.frames import Chunk, Failure, Metrics, Replies, Reply
from ts.service import PREDICTION_METRIC

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.*)$', re.MULTILINE)
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_UNNAMED = re.compile(r"[^\w.-]+")


class Report:
    """The channel of the handler, and where its answers go; counts those that failed."""

    def __init__(self, model_dir: Path, output: Path | None) -> None:
        self.failed = 0
        self._model_dir = model_dir
        self._output = output
        self._batch: list[Trial] = []
        self._run = 1
        self._begun: set[Path] = set()  # files that have a first piece
        self._going_on: set[int] = set()  # numbers of requests that are in the midst of their steps

    def begin(self, batch: list[Trial], run: int) -> None:
        """What is answered from now on."""
        self._batch = batch
        self._run = run

    def send(self, frame: Chunk | Metrics) -> None:
        """Pieces of streamed answers, and metrics recorded outside of a batch."""
        if isinstance(frame, Metrics):
            return
        for piece in frame.replies:
            self._answer(self._batch[piece.index], piece, "piece")

    def cancelled(self, request_id: str) -> bool:
        """Nobody leaves."""
        return False

    def end(self, replies: Replies) -> None:
        """Print the answers of the batch."""
        if replies.code == 200:
            for reply in replies.replies:
                self._answer(self._batch[reply.index], reply, self._piece(reply, replies))
        else:
            self._refusal(replies)
        for metric in replies.metrics:
            if metric.name != PREDICTION_METRIC:  # which the next line tells
                _tell(f"metric {metric.name}: {metric.value:g} {metric.unit}")
        _tell(f"run {self._run}: a batch of {len(self._batch)} in {replies.handler_ns / 1e6:.3f} ms")

    def _piece(self, reply: Reply, replies: Replies) -> str:
        """What the reply is of its answer, if that is not whole."""
        number = self._batch[reply.index].number
        begun = reply.streamed or number in self._going_on
        if reply.index in replies.going_on:
            self._going_on.add(number)
            return "piece"
        self._going_on.discard(number)
        return "last piece" if begun else ""

    def unloaded(self, code: int, failure: Failure) -> None:
        """Print why the model was not loaded."""
        self.failed += 1
        _tell(f"The model cannot be loaded ({code}): {failure.cause}: {failure.detail}{self._place(failure)}")
        _tell(failure.traceback.rstrip())

    def _refusal(self, replies: Replies) -> None:
        failure = replies.failure or Failure("", replies.message)
        self.failed += len(self._batch)
        for trial in self._batch:
            print(f"--- {trial.name}: {replies.code} {replies.message}", flush=True)
        cause = f"{failure.cause}: " if failure.cause else ""
        _tell(f"The handler failed: {cause}{failure.detail}{self._place(failure)}")

    def _answer(self, trial: Trial, reply: Reply, piece: str) -> None:
        self.failed += reply.status >= 400
        status = f"{reply.status} {reply.phrase}".rstrip()
        print(f"--- {trial.name}: {status}{f' ({piece})' if piece else ''}")
        for name, value in reply.headers:
            print(f"{name}: {value}")
        if self._output is None:
            print(_shown(reply.body), flush=True)
        else:
            print(f"{len(reply.body)} bytes in {self._keep(trial, reply)}", flush=True)

    def _keep(self, trial: Trial, reply: Reply) -> Path:
        assert self._output is not None
        path = self._output / f"{self._run}-{trial.number}-{_UNNAMED.sub('_', trial.name)}.body"
        with path.open("ab" if path in self._begun else "wb") as file:
            file.write(reply.body)
        self._begun.add(path)
        return path

    def _place(self, failure: Failure) -> str:
        """The last line of the model's own code in a traceback, and of any code if it has none."""
        frames = [match.groupdict() for match in _FRAME.finditer(failure.traceback)]
        own = [frame for frame in frames if frame["file"].startswith(f"{self._model_dir}/")]
        if not frames:
            return ""
        last = (own or frames)[-1]
        name = last["file"].removeprefix(f"{self._model_dir}/")
        return f" ({name}, line {last['line']}, in {last['function']})"


def _shown(body: bytes) -> str:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = "\0"
    return f"<{len(body)} bytes, no text; --output DIR keeps them>" if _UNPRINTABLE.search(text) else text.rstrip("\n")


def _tell(line: str) -> None:
    sys.stdout.flush()  # so that lines of both streams come in order
    print(line, file=sys.stderr, flush=True)
