"""The log of a worker whose handler has closed the standard streams."""

from __future__ import annotations

import io
import logging

import pytest

from modelserver.worker.process import Console

LINE = logging.makeLogRecord({"msg": "a line"})


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


def test_lines_go_to_the_stream() -> None:
    stream = io.StringIO()
    Console(stream).handle(LINE)
    assert stream.getvalue() == "a line\n"


def test_a_line_that_cannot_be_written_is_complained_of(capsys: pytest.CaptureFixture[str]) -> None:
    Console(closed()).handle(LINE)
    assert "Logging error" in capsys.readouterr().err


def test_nothing_is_raised_where_complaints_cannot_be_written_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", closed())
    Console(closed()).handle(LINE)
