"""Forms: lines that are rendered once with holes say what they would say if every event was rendered by itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.logconfig.plan import (
    ROOT,
    Appender,
    FileTarget,
    JsonLayout,
    Layout,
    LoggerRule,
    PatternLayout,
    Plan,
    Reference,
)
from modelserver.telemetry.clock import Stamp
from modelserver.telemetry.forms import Form, field
from modelserver.telemetry.layouts import LogEvent
from modelserver.telemetry.page import Page
from modelserver.telemetry.routes import Routes

THREAD = "W-9000-probe_1.0"
LAYOUTS: dict[str, Layout] = {
    "long": PatternLayout("%d{ISO8601} [%-5p] %t %c - %m%n"),
    "twice": PatternLayout("%m|%d{ISO8601}|%m%n"),
    "message alone": PatternLayout("%m"),
    "nothing of the event": PatternLayout("x%n"),
    "own date": PatternLayout("%d{HH:mm} %c{1} %m%n"),
    "encoded": PatternLayout("%enc{%m}{JSON}%n"),
    "json": JsonLayout(),
}
texts = st.text(st.characters(exclude_categories=["Cs"]))


def page(layout: Layout) -> Page:
    appender = Appender("a", FileTarget(Path("/a")), layout)
    return Page(Routes(Plan((appender,), {ROOT: LoggerRule("ALL", (Reference("a"),))})))


def stamp(millisecond: int) -> Stamp:
    return Stamp(f"2026-11-20T12:00:00,{millisecond:03d}", "1795176000", f"1795176000{millisecond:03d}")


@pytest.mark.parametrize("name", LAYOUTS)
@given(messages=st.lists(st.tuples(st.integers(0, 999), texts, texts), min_size=1, max_size=4), repeat=st.booleans())
def test_holes_change_nothing(name: str, messages: list[tuple[int, str, str]], repeat: bool) -> None:
    filled = page(LAYOUTS[name])
    form = Form(filled, THREAD)
    form.line("done", "INFO", "logger.name", f"{field('one')} and {field('two')}")
    form.finish(["done", "one", "two", "done_at", "record"])
    write = form.repeat if repeat else form.write
    direct = ""
    for millisecond, one, two in messages:
        moment = stamp(millisecond)
        write((moment.date, one, two, moment, None))
        event = LogEvent(moment, "INFO", "logger.name", THREAD, f"{one} and {two}")
        direct += filled.routes.sinks[0].layout.render(event)
    assert filled.take(0) == direct.encode()
    assert filled.take(0) == b""


@given(thread=texts)
def test_names_of_threads_are_never_taken_for_holes(thread: str) -> None:
    filled = page(LAYOUTS["long"])
    form = Form(filled, f"\0one\0{thread}")
    form.line("done", "INFO", "logger", field("one"))
    form.finish(["done", "one"]).write(("now", "text"))
    assert filled.take(0).decode().endswith(" logger - text\n")


def test_form_of_what_nobody_wants_is_silent() -> None:
    silent = Form(Page(Routes(Plan((), {ROOT: LoggerRule("ALL")}))), THREAD)
    silent.line("done", "INFO", "logger", "message")
    assert silent.finish([]).silent
    wanted = Form(page(LAYOUTS["long"]), THREAD)
    wanted.line("done", "INFO", "logger", "message")
    assert not wanted.finish(["done"]).silent
