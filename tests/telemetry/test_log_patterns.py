"""Patterns: what log4j2 2.17 was seen to make of them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.telemetry.clock import Stamp
from modelserver.telemetry.layouts import LogEvent
from modelserver.telemetry.patterns import Pattern

STAMP = Stamp("2026-11-20T15:28:56,474", "1795188536", "1795188536474")
BOUND = "API bound to http://host:8080"
SERVER = "org.pytorch.serve.ModelServer"


def render(pattern: str, message: str = BOUND, level: str = "INFO") -> str:
    return Pattern(pattern).render(LogEvent(STAMP, level, SERVER, "main", message))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("%d", "2026-11-20 15:28:56,474"),
        ("%d{DEFAULT}", "2026-11-20 15:28:56,474"),
        ("%d{ISO8601}", "2026-11-20T15:28:56,474"),
        ("%d{ISO8601}{UTC}", "2026-11-20T15:28:56,474"),
        ("%d{ISO8601_BASIC}", "20261120T152856,474"),
        ("%d{ISO8601_OFFSET_DATE_TIME_HHMM}", "2026-11-20T15:28:56,474+0000"),
        ("%d{ABSOLUTE}", "15:28:56,474"),
        ("%d{COMPACT}", "20261120152856474"),
        ("%d{DATE}", "20 Nov 2026 15:28:56,474"),
        ("%d{UNIX}", "1795188536"),
        ("%d{UNIX_MILLIS}", "1795188536474"),
        ("%date{ISO8601_PERIOD}{America/New_York}", "2026-11-20T10:28:56.474"),
        ("%d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX}{Asia/Kolkata}", "2026-11-20T20:58:56.474+05:30"),
        ("%d{yyyy-MM-dd HH:mm:ss.SSSX}", "2026-11-20 15:28:56.474Z"),
        ("%d{yyyy-MM-dd HH:mm:ss.SSSSSS}", "2026-11-20 15:28:56.000474"),
        ("%d{HH:mm:ss,SSS}{GMT+5}", "20:28:56,474"),
        ("%d{EEE, d MMM yy h:mm:ss a Z}", "Fri, 20 Nov 26 3:28:56 PM +0000"),
        ("%d{EEEE MMMM dd k:K w D u F 'o''clock' z}{UTC}", "Friday November 20 15:3 47 324 5 3 o'clock UTC"),
    ],
)
def test_dates(pattern: str, text: str) -> None:
    assert render(pattern) == text


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("%-5p|%5p|%.3p|%.-3p|%-8level|", "INFO | INFO|NFO|INF|INFO    |"),
        ("%-7.2p|", "FO|"),
        ("%05p|%-05p|", "0INFO|INFO |"),
        ("%p{lowerCase=true}|%p{length=1}|%p{WARN=W, INFO=I}|%level{x=y}", "info|I|I|INFO"),
        ("%c|%c{1}|%c{2}|%logger{1}", f"{SERVER}|ModelServer|serve.ModelServer|ModelServer"),
        ("%c{-1}|%c{-2}|%c{9}|%c{0}", f"pytorch.serve.ModelServer|serve.ModelServer|{SERVER}|ModelServer"),
        ("%c{1.}|%c{1.1.~.~}|%c{.}", "o.p.s.ModelServer|o.p.~.ModelServer|...ModelServer"),
        ("%20.30c|%-20c{1}|%.10c", f"{SERVER}|ModelServer         |odelServer"),
        ("%t|%thread|%-10t|%tn|", "main|main|main      |main|"),
        ("%m|%msg|%message|%m{nolookups}", "|".join([BOUND] * 4)),
        ("%5m|%.5m|%-40m|", f"{BOUND}|:8080|{BOUND:<40}|"),
        ("%maxLen{%m}{25}|%maxLength{%m}{5}|%maxLen{%p}{25}", "API bound to http://host:...|API b|INFO"),
        ("%md %mcx", f"{BOUND}d {BOUND}cx"),
        ("%replace{%m}{API}{Api}|%replace{%c}{\\.}{/}", "Api bound to http://host:8080|org/pytorch/serve/ModelServer"),
        ("%replace{%m}{(\\w+) (\\w+)}{$2 $1}", "bound API http to://host:8080"),
        ("%notEmpty{[%X{a}]}|%notEmpty{[%p]}", "|[INFO]"),
        ("%equals{%p}{INFO}{same}|%equalsIgnoreCase{%p}{warn}{same}", "same|INFO"),
        ("%X{a}|%X|%x|%mdc{a}|%K{a}|%ex|%throwable{none}|%marker", "|{}|[]|||||"),
        ("100%%", "100%"),
        ("a%nb%n", "a\nb\n"),
        ("%highlight{%-5p}{INFO=red}|%style{%m}{bold}", f"INFO |{BOUND}"),
    ],
)
def test_conversions(pattern: str, text: str) -> None:
    assert render(pattern) == text


@pytest.mark.parametrize("pattern", ["%q{a}", "%", "% m", "%-", "{%", "%5"])
def test_what_is_no_conversion_stands_for_itself(pattern: str) -> None:
    assert render(pattern) == pattern


@pytest.mark.parametrize("pattern", ["%replace{%m}{(}{x}", "%replace{%m}{a}{$9}", "%replace{%m}"])
def test_replacement_that_is_none_changes_nothing(pattern: str) -> None:
    assert render(pattern) == BOUND


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("{JSON}", 'a\\n\\"b\\" <&>\\\\/'),
        ("{CRLF}", 'a\\n"b" <&>\\/'),
        ("{XML}", "a\n&quot;b&quot; &lt;&amp;&gt;\\/"),
        ("", "a\\n&quot;b&quot; &lt;&amp;&gt;\\&#x2F;"),
    ],
)
def test_encodings(encoding: str, text: str) -> None:
    assert render(f"%enc{{%m}}{encoding}", 'a\n"b" <&>\\/') == text


@given(st.text())
def test_json_encoding_fits_into_any_json(message: str) -> None:
    assert json.loads(render('{"m":"%enc{%m}{JSON}"}', message)) == {"m": message}


def test_location_is_a_question_mark() -> None:
    assert render("%C %M %L %F") == "? ? ? ?"


def test_numbers_and_process() -> None:
    pattern = Pattern("%sn %pid %r %uuid")
    lines = [pattern.render(LogEvent(STAMP, "INFO", SERVER, "main", "")).split(" ") for _ in range(2)]
    assert [line[0] for line in lines] == ["1", "2"]
    assert lines[0][1:2] == lines[1][1:2]
    assert lines[0][3] != lines[1][3]


@pytest.mark.parametrize(
    ("pattern", "plain"),
    [
        ("%d{ISO8601} [%-5p] %t %c - %m%n", True),
        ("%m %d{ISO8601} %m", True),
        ("%highlight{%d{ISO8601} %m}", True),
        ("%p %c{1.}%n", True),
        ("%d %m%n", False),
        ("%d{ISO8601}{UTC} %m%n", False),
        ("%-30d{ISO8601}", False),
        ("%.9m", False),
        ("%enc{%m}{JSON}", False),
        ("%replace{%p}{a}{b}", False),
        ("%highlight{%.9m}", False),
        ("%sn", False),
    ],
)
def test_plain_patterns_leave_date_and_message_alone(pattern: str, plain: bool) -> None:
    assert Pattern(pattern).plain is plain


@pytest.mark.parametrize(("before", "after"), [("%highlight{", "}"), ("%style{", "}{red}"), ("%maxLen{", "}{5000}")])
def test_patterns_in_patterns_end_somewhere(before: str, after: str) -> None:
    """Every level is compiled once; what is too deep is text."""
    assert render(before * 20 + "%m" + after * 20) == BOUND
    assert before in render(before * 1000 + "%m" + after * 1000)


@pytest.mark.parametrize("width", ["999999999", "9" * 5000])
def test_texts_are_not_padded_without_end(width: str) -> None:
    assert render(f"%{width}p").strip() == "INFO"
    assert len(render(f"%-{width}p")) == 10_000
    assert render(f"%.{width}p") == "INFO"


@pytest.mark.parametrize("zone", ["+24:00", "-99:99", "GMT+24", "Nowhere/None", "../zone", ""])
def test_zones_that_are_none_are_utc(zone: str) -> None:
    assert render(f"%d{{HH:mm}}{{{zone}}}") == render("%d{HH:mm}{UTC}")
