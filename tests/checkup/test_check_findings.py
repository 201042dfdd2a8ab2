"""Findings read the same everywhere: one line each, one verdict, one exit status."""

from __future__ import annotations

import json

import pytest

from modelserver.checkup.finding import Finding, Severity, as_json, error, exit_status, remark, summary, warning


def test_a_line_says_how_bad_where_what_and_what_to_do() -> None:
    assert str(error("config.properties:3", "job_queue_size: no number", "Correct it.")) == (
        "ERROR config.properties:3: job_queue_size: no number. Correct it."
    )
    assert str(warning("m.mar", "did you mean batchSize?")) == "WARN m.mar: did you mean batchSize?"
    assert str(remark("a", "first\nsecond")) == "INFO a: first\\nsecond."


def test_only_errors_fail_the_check() -> None:
    assert exit_status([]) == 0
    assert exit_status([warning("a", "b"), remark("a", "b")]) == 0
    assert exit_status([warning("a", "b"), error("a", "b")]) == 1


def test_the_summary_counts() -> None:
    assert summary([]) == "This deployment is ready: 0 errors, 0 warnings, 0 remarks."
    assert summary([error("a", "b"), warning("a", "b"), warning("a", "b")]) == (
        "This deployment is not ready: 1 error, 2 warnings, 0 remarks."
    )


def test_json_has_every_member() -> None:
    assert json.loads(as_json([error("a", "b", "c")])) == {
        "ready": False,
        "findings": [{"severity": "ERROR", "where": "a", "what": "b", "remedy": "c"}],
    }
    assert json.loads(as_json([warning("a", "b")]))["ready"] is True


@pytest.mark.parametrize("severity", Severity)
def test_what_nobody_loads_is_no_worse_than_a_warning(severity: Severity) -> None:
    softened = Finding(severity, "a", "b").at_most(Severity.WARN)
    assert softened.severity is (Severity.WARN if severity is Severity.ERROR else severity)
