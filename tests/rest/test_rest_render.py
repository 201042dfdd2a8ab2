"""What the server itself writes."""

from __future__ import annotations

import uuid

from modelserver.dialect.request_ids import RequestIds
from modelserver.errors import Cause, Certificate, ModelNotFound, WorkerError
from modelserver.rest.render import error_text, json_text


def test_json_is_pretty_raw_and_without_nulls() -> None:
    value: dict[str, object] = {
        "a": "\u00e9<>&",
        "b": None,
        "c": [],
        "d": {},
        "e": [{"f": None, "g": 1.5}, None],
        "h": True,
    }
    assert json_text(value).decode() == (
        '{\n  "a": "\u00e9<>&",\n  "c": [],\n  "d": {},\n  "e": [\n    {\n      "g": 1.5\n    },\n    null\n  ],\n'
        '  "h": true\n}\n'
    )


def test_text_that_is_no_unicode_does_not_break_json() -> None:
    assert json_text({"a": "\ud800"}) == b'{\n  "a": "?"\n}\n'


def test_an_error_body() -> None:
    assert error_text(ModelNotFound("Model not found: nope")).decode() == (
        '{\n  "code": 404,\n  "type": "ModelNotFoundException",\n  "message": "Model not found: nope"\n}\n'
    )


def test_the_error_of_a_worker_names_its_cause_last() -> None:
    certificate = Certificate(Cause.SIGNAL, "killed by SIGKILL", signal="SIGKILL")
    assert error_text(WorkerError(507, "Worker died.", certificate=certificate)).decode() == (
        '{\n  "code": 507,\n  "type": "InternalServerException",\n  "message": "Worker died.",\n'
        '  "cause": {\n    "reason": "killed by a signal",\n    "detail": "killed by SIGKILL",\n'
        '    "signal": "SIGKILL"\n  }\n}\n'
    )


def test_an_error_body_is_the_json_of_every_other_body() -> None:
    """Though it is written another way."""
    for text in ('a "quoted" \u00e9 </x> & \\ \x7f \x01\b\f\n\u2028', "\udcff", ""):
        certificate = Certificate(Cause.EXIT, text, last_output=(text, "b"), exit_code=-9, next_retry=1.5)
        wanted = {"code": 500, "type": "InternalServerException", "message": text, "cause": certificate.as_json()}
        assert error_text(WorkerError(500, text, certificate=certificate)) == json_text(wanted)


def test_request_ids_are_random_uuids() -> None:
    ids = RequestIds()
    made = [ids.next() for _ in range(2000)]
    assert len(set(made)) == 2000
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)
