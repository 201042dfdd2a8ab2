"""What `StreamPredictions2` says: every request belongs to a sequence, errors are a member of responses."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any, Final

from modelserver.engine.job import Job
from modelserver.errors import BadRequest, ServerError
from modelserver.rpc.conversation import Question
from modelserver.rpc.encoding import prediction_request, prediction_response
from modelserver.rpc.inference import parts_of
from modelserver.rpc.jobs import Jobs
from modelserver.rpc.messages import ErrorInfo, PredictionResponse
from modelserver.rpc.render import Refusal, refusal_of_prediction
from modelserver.settings.table import Settings

_ERROR_TYPE: Final = "type.googleapis.com/google.rpc.ErrorInfo"


@dataclass(frozen=True, slots=True)
class SequenceKeys:
    """The names of headers, and of inputs, that say to which sequence a request belongs."""

    id: str
    start: str
    end: str

    @classmethod
    def of(cls, settings: Settings) -> SequenceKeys:
        """As configured."""
        return cls(
            settings.ts_header_key_sequence_id,
            settings.ts_header_key_sequence_start,
            settings.ts_header_key_sequence_end,
        )


class Sequences:
    """The tongue; the answers of a sequence keep the order of its requests."""

    def __init__(self, jobs: Jobs, keys: SequenceKeys) -> None:
        self._jobs = jobs
        self._keys = keys

    def question(self, message: bytes, patience: float) -> Question:
        """Raises MalformedMessage."""
        request = prediction_request(message)
        sequence_id, extra = self._sequence_of(request)
        job: Job | Refusal
        try:
            if not sequence_id:
                raise BadRequest("Parameter sequenceId is required.")
            job = self._jobs.new(request.model_name, request.model_version, parts_of(request), patience, extra)
        except BadRequest as error:
            job = self.refuse(error)
        return Question(job, request.model_version, sequence_id, sequence_id)

    def _sequence_of(self, request: Any) -> tuple[str, dict[str, str]]:
        """The id ("" if there is none and none is to be made), and the headers that the handler gets."""
        said = {entry.key for entry in request.input if len(entry.value) == 4 and entry.value.lower() == b"true"}
        sequence_id: str = request.sequence_id
        extra = {}
        if not sequence_id and self._keys.start in said:
            sequence_id = f"ts-seq-{uuid.uuid4()}"
            extra[self._keys.start] = "true"
        if self._keys.end in said:
            extra[self._keys.end] = "true"
        return sequence_id, {self._keys.id: sequence_id, **extra}

    def answer(self, body: bytes, question: Question) -> bytes:
        """A `PredictionResponse`."""
        return prediction_response(body, question.id)

    def refuse(self, error: ServerError) -> Refusal:
        """As any prediction."""
        return refusal_of_prediction(error)

    def refusal(self, refusal: Refusal, question: Question) -> bytes:
        """A `PredictionResponse` with a status."""
        response = PredictionResponse()
        if question.id:
            response.sequence_id = question.id
        response.status.code = refusal.code.value[0]
        response.status.message = refusal.message.encode("utf-8", "replace").decode()
        reason = ErrorInfo(reason=refusal.tag).SerializeToString()
        response.status.details.add(type_url=_ERROR_TYPE, value=reason)
        data: bytes = response.SerializeToString()
        return data
