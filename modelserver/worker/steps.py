"""Requests that take several calls of the handler: what says whether they go on, and what is kept of them meanwhile."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable
from typing import Any

from modelserver.wire.frames import Batch, Failure, Load, Reply, Request
from modelserver.worker.batch_context import BatchContext
from modelserver.worker.failures import HANDLER_CONTRACT, ResultRejected, text_of
from modelserver.worker.loop import ProtocolError
from modelserver.worker.replies import check_result
from modelserver.worker.rows import Row
from modelserver.worker.translation import Translation, Translator
from modelserver.worker.turns import Turn, Written
from ts.context import Context
from ts.entry_point import Handle

_RULE = "context.stopping_criteria is None, or a list with one callable for each row"


class Steps:
    """The requests of one worker that go on from step to step."""

    def __init__(self) -> None:
        self._requests: dict[str, Request] = {}  # of the last step, by id; without parts
        self._turns: dict[str, Turn] = {}  # of those that are translated, by id
        self._verdicts: list[bool] = []  # by row of the step, whether its request goes on

    def begin(self, batch: Batch) -> Batch:
        """The batch with all that is known of its requests. Raises ProtocolError for one that is not."""
        self._verdicts = []
        try:
            continued = [self._requests[request.id] for request in batch.requests[: batch.continued]]
        except KeyError as error:
            raise ProtocolError(f"request {error} goes on, but has not begun here") from None
        requests = [*continued, *batch.requests[batch.continued :]]
        # All of them, whatever becomes of them here: of several ranks, another one says who goes on.
        self._requests = {request.id: _bare(request) for request in requests}
        return Batch(batch.id, batch.kind, requests, batch.continued)

    def keep(self, turn: Turn) -> None:
        """What is needed to answer the next steps of a request."""
        self._turns[turn.request.id] = turn.continued(turn.index)

    def kept(self, request: Request, index: int) -> Turn | None:
        """The turn of a request that goes on, as the one at that position; None for others."""
        turn = self._turns.get(request.id)
        return None if turn is None else turn.continued(index)

    def end(self, batch: Batch, going_on: Iterable[int]) -> None:
        """Let go of what all but these, by their positions, have asked for."""
        ids = [batch.requests[index].id for index in going_on]
        self._turns = {id: self._turns[id] for id in ids if id in self._turns}

    def judged(self, handle: Handle) -> Handle:
        """The entry point of a handler, whose results are judged by its own criteria at once."""

        @functools.wraps(handle)
        def step(rows: list[Row], context: Context) -> Any:
            result = handle(rows, context)
            check_result(result, len(rows), context.model_name)
            self._verdicts = verdicts(context.stopping_criteria, result)
            return result

        return step

    def going_on(self) -> list[int]:
        """The positions of the rows whose requests go on."""
        return [index for index, goes_on in enumerate(self._verdicts) if goes_on]

    def goes_on(self, start: int, rows: int) -> bool:
        """Whether a request with so many rows from `start` on goes on: as long as any of its rows does."""
        return any(self._verdicts[start : start + rows])


def _bare(request: Request) -> Request:
    return Request(request.id, [], request.headers, request.extra) if request.parts else request


def verdicts(criteria: Any, result: list[Any]) -> list[bool]:
    """For each element of a handler's result, whether its request goes on: its criterion says that it is not over.

    A criterion that returns None has no opinion. Raises ResultRejected for criteria that break the rule.
    """
    if criteria is None:
        return [False] * len(result)
    if not isinstance(criteria, list | tuple):
        raise _broken(f"{_RULE}: got a {type(criteria).__name__}")
    if len(criteria) < len(result):
        raise _broken(f"{_RULE}: expected {len(result)}, got {len(criteria)}")
    return [_verdict(index, criterion, result[index]) for index, criterion in enumerate(criteria[: len(result)])]


def _verdict(index: int, criterion: Any, element: Any) -> bool:
    if not callable(criterion):
        raise _broken(f"{_RULE}: number {index} is a {type(criterion).__name__}")
    try:
        over = criterion(element)
        return over is not None and not over
    except Exception as error:
        text = f"{type(error).__name__}: {text_of(error)}"
        raise _broken(f"a stopping criterion returns True, False or None: number {index} raised {text}") from error


def _broken(rule: str) -> ResultRejected:
    log = f"Invalid stopping criteria: {rule}"
    return ResultRejected(503, "Invalid stopping criteria", log, Failure(HANDLER_CONTRACT, rule))


class StepTranslator(Translator):
    """Keeps turns from step to step."""

    def __init__(self, frame: Load, handle: Handle, bare: Handle, steps: Steps, *, decode: bool) -> None:
        super().__init__(frame, handle, bare, decode=decode)
        self._steps = steps
        self.last: StepTranslation | None = None

    def read(self, batch: Batch) -> Translation:
        """As in the base class."""
        self.last = None
        self._continued = batch.continued
        return super().read(batch)

    def new_turn(self, index: int, request: Request, kind: int) -> Turn:
        """As in the base class, unless the request goes on."""
        turn = self._steps.kept(request, index)
        if turn is None:
            turn = super().new_turn(index, request, kind)
            self._steps.keep(turn)
        return turn

    def translation(self, turns: list[Turn], failed: list[Reply], limit: int) -> Translation:
        """As in the base class."""
        self.last = StepTranslation(turns, failed, limit, self._steps, self._continued)
        return self.last


class StepTranslation(Translation):
    """Writes pieces for requests that go on, and the last one for those that went on before."""

    def __init__(self, turns: list[Turn], failed: list[Reply], limit: int, steps: Steps, continued: int) -> None:
        super().__init__(turns, failed, limit)
        self._steps = steps
        self._continued = continued
        self._going_on: list[int] = []

    @property
    def going_on(self) -> list[int]:
        """The positions of requests that go on."""
        failed = {reply.index for reply in self.failed}
        return [index for index in self._going_on if index not in failed]

    def replies(self, result: Any, context: BatchContext, begun: Collection[int]) -> list[Reply]:
        """As in the base class; answers of several steps are never whole."""
        start = 0
        for turn in self._turns:
            if self._steps.goes_on(start, len(turn.rows)):
                self._going_on.append(turn.index)
            start += len(turn.rows)
        return super().replies(result, context, {*begun, *range(self._continued), *self._going_on})

    def _way(self, turn: Turn, begun: Collection[int]) -> Callable[[list[Any]], Written]:
        if turn.index in self._going_on:
            return turn.write_step
        return turn.write_end if turn.index < self._continued else super()._way(turn, begun)
