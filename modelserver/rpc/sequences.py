"""What `StreamPredictions2` says: every request belongs to a sequence, errors are a member of responses."""

from __future__ import annotations

import uuid
from typing import Any, Final

from modelserver.engine.job import Job, Membership
from modelserver.errors import BadRequest, ServerError
from modelserver.rpc.conversation import Question
from modelserver.rpc.encoding import prediction_request, prediction_response
from modelserver.rpc.inference import parts_of
from modelserver.rpc.jobs import Jobs
from modelserver.rpc.messages import ErrorInfo, PredictionResponse
from modelserver.rpc.render import Refusal, refusal_of_prediction
from modelserver.settings.sequence_keys import SequenceKeys

_ERROR_TYPE: Final = "type.googleapis.com/google.rpc.ErrorInfo"


class Sequences:
    """The tongue; the answers of a sequence keep the order of its requests."""

    def __init__(self, jobs: Jobs, keys: SequenceKeys) -> None:
        self._jobs = jobs
        self._keys = keys

    def question(self, message: bytes, patience: float) -> Question:
        """Raises MalformedMessage."""
        request = prediction_request(message)
        membership = self._membership_of(request)
        job: Job | Refusal
        try:
            if not membership.id:
                raise BadRequest("Parameter sequenceId is required.")
            told = self._told(membership)
            job = self._jobs.new(request.model_name, request.model_version, parts_of(request), patience, told)
            job.sequence = membership
        except BadRequest as error:
            job = self.refuse(error)
        return Question(job, request.model_version, membership.id, membership.id)

    def _membership_of(self, request: Any) -> Membership:
        """What inputs say too; an id of "" if there is none and none is to be made."""
        said = {entry.key for entry in request.input if len(entry.value) == 4 and entry.value.lower() == b"true"}
        starts = not request.sequence_id and self._keys.start in said
        id = f"ts-seq-{uuid.uuid4()}" if starts else request.sequence_id
        return Membership(id, start=starts, end=self._keys.end in said)

    def _told(self, membership: Membership) -> dict[str, str]:
        """The headers that the handler gets, whether its model is stateful or not."""
        told = {self._keys.id: membership.id}
        if membership.start:
            told[self._keys.start] = "true"
        if membership.end:
            told[self._keys.end] = "true"
        return told

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
