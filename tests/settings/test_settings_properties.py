"""The syntax of configuration files."""

from __future__ import annotations

from pathlib import Path

import javaproperties
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelserver.errors import ConfigurationError
from modelserver.settings.properties import Given, parse_properties, read_properties


def texts(content: bytes, **environ: str) -> dict[str, str]:
    return {key: given.text for key, given in parse_properties(content, "f", environ).items()}


@pytest.mark.check("config", 1)
@pytest.mark.parametrize("line", [b"a=b", b"a = b", b"a : b", b"a b", b"a:b", b" \t\fa=b", b"a\t=\tb", b"a=\\\n   b"])
def test_separators_are_equal(line: bytes) -> None:
    assert texts(line) == {"a": "b"}


@pytest.mark.check("config", 1)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"# a=1\n! b=2\n\n  # c=3\n", {}),
        (b"a=x#y", {"a": "x#y"}),
        (b"a=1\ra=2\r\na=3", {"a": "3"}),
        (b"load_models=noop=noop.mar", {"load_models": "noop=noop.mar"}),
        (b"a=\\u0041\\t\\z\\:", {"a": "A\tz:"}),
        (b"a\\ b\\=c=d", {"a b=c": "d"}),
        (b"a=100   ", {"a": "100   "}),
        (b"a\nb=", {"a": "", "b": ""}),
        (b"# no continuation \\\na=1", {"a": "1"}),
        (b"a=x\\\n\t y\\\n z", {"a": "xyz"}),
        ("a=é€".encode(), {"a": "é€"}),
        (b"a=\xe9", {"a": "é"}),
        (b"\xef\xbb\xbfa=1", {"a": "1"}),
        (b"a=\\ud800", {"a": "\ufffd"}),
        (b"A=1\na=2", {"A": "1", "a": "2"}),
    ],
)
def test_syntax(content: bytes, expected: dict[str, str]) -> None:
    assert texts(content) == expected


def test_sources_name_the_first_line_of_an_entry() -> None:
    content = b"# one\r\na=1\\\r\n  2\r\n\r\nb=3\ra=4\n"
    assert parse_properties(content, "c.properties", {}) == {
        "a": Given("4", "c.properties:6"),
        "b": Given("3", "c.properties:5"),
    }


def test_variables_are_replaced_literally() -> None:
    assert texts(b"a=$$X$$-$$Y$$ $$ $X", X=r"a\b$1", Y="") == {"a": r"a\b$1- $$ $X"}
    assert texts(b"a=$$X$$", X="$$X$$") == {"a": "$$X$$"}


def test_unset_variable() -> None:
    with pytest.raises(ConfigurationError, match=r"Invalid Environment Variable X \(a, f:2\)"):
        texts(b"\na=$$X$$")


def test_bad_escape() -> None:
    with pytest.raises(ConfigurationError, match=r"^Malformed \\uxxxx encoding\. .*f:2"):
        texts(b"# x\na=\\u12g4")


@given(st.text(alphabet="ab =:#!\\\n\r\t\fu0041"))
def test_the_syntax_is_that_of_the_library(text: str) -> None:
    try:
        expected = javaproperties.loads(text)
    except javaproperties.InvalidUEscapeError:
        with pytest.raises(ConfigurationError, match="Malformed"):
            texts(text.encode())
        return
    assert texts(text.encode()) == expected


def test_continued_lines_of_any_number() -> None:
    """Where the time grew with the square of their number this would not end."""
    assert texts(b"a=" + b"x\\\n" * 100_000) == {"a": "x" * 100_000}


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^cannot read it: Is a directory$"):
        read_properties(tmp_path, "it", {})
    with pytest.raises(ConfigurationError, match=r"^cannot read it: No such file or directory$"):
        read_properties(tmp_path / "gone", "it", {})
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ConfigurationError, match=r"^it is no configuration: it has more than 16 MiB$"):
        read_properties(tmp_path / "huge", "it", {})
    (tmp_path / "empty").touch()
    assert read_properties(tmp_path / "empty", "it", {}) == {}


@given(st.binary() | st.text(alphabet="a=:\\u0$ \n\r#!\u00e9\ud800").map(lambda text: text.encode("utf-8", "replace")))
def test_no_bytes_crash(content: bytes) -> None:
    try:
        parsed = texts(content, a="b")
    except ConfigurationError as error:
        str(error).encode()
        return
    for key, text in parsed.items():
        f"{key}={text}".encode()
