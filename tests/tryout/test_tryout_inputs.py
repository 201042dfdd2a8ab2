"""Command line and files of `run-handler` as requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelserver.tryout.command_line import Options, parse
from modelserver.tryout.inputs import BadInput, batches, kind_of, read_trials
from modelserver.wire.frames import (
    DESCRIBE,
    EXPLAIN,
    INFER,
    INFER_EXPLAIN,
    KSERVE_EXPLAIN,
    KSERVE_PREDICT,
    PREDICT,
    Part,
    Request,
)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "a.json").write_text('{"a": 1}')
    (tmp_path / "b.txt").write_text("text")
    (tmp_path / "c.unknown").write_bytes(b"\0\1")
    (tmp_path / "form").write_text("x=1&y=a+b")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(*flags: str) -> Options:
    return parse(["model", *flags])


def requests(*flags: str) -> list[Request]:
    return [trial.request for trial in read_trials(options(*flags))]


def test_every_input_is_a_request_of_the_type_that_its_name_says() -> None:
    made = requests("--input", "a.json", "b.txt", "--input", "c.unknown")
    assert [request.parts for request in made] == [
        [Part("body", "application/json", b'{"a": 1}')],
        [Part("body", "text/plain", b"text")],
        [Part("body", "", b"\0\1")],
    ]
    assert made[0].headers == [(b"Content-Type", b"application/json"), (b"Content-Length", b"8")]
    assert made[2].headers == [(b"Content-Length", b"2")]
    assert len({request.id for request in made}) == 3
    assert made[0].extra == {"explain": "False", "url_path": ""}


def test_a_stated_type_counts_for_all() -> None:
    assert [request.parts[0].mime for request in requests("--input", "a.json", "b.txt", "--content-type", "")] == [
        "",
        "",
    ]
    (form,) = requests("--input", "form", "--content-type", "application/x-www-form-urlencoded")
    assert form.parts == [Part("x", "", b"1"), Part("y", "", b"a b")]


def test_fields_are_one_request() -> None:
    one, other = requests("--input", "b.txt", "--field", "x=a.json", "--field", "y=@hello", "--field", "z=c.unknown")
    assert one.parts == [Part("body", "text/plain", b"text")]
    assert other.parts == [
        Part("x", "application/json", b'{"a": 1}'),
        Part("y", "", b"hello"),
        Part("z", "application/octet-stream", b"\0\1"),
    ]
    assert other.headers == [(b"Content-Type", b"multipart/form-data")]


def test_headers_are_sent_with_every_request() -> None:
    made = requests(
        "--input", "a.json", "--field", "y=@hello", "--header", "X-Id: 7: 8", "--header", "Accept:text/plain"
    )
    for request in made:
        assert {(b"X-Id", b"7: 8"), (b"Accept", b"text/plain")} <= set(request.headers)


def test_kinds() -> None:
    assert kind_of(options("--input", "a.json")) == PREDICT
    assert kind_of(options("--input", "a.json", "--explain")) == EXPLAIN
    assert requests("--input", "a.json", "--explain")[0].extra["explain"] == "True"
    assert kind_of(options("--describe")) == DESCRIBE
    assert [request.extra for request in requests("--describe")] == [{"describe": "True"}]


@pytest.mark.parametrize(
    ("protocol", "kinds"), [("v1", (KSERVE_PREDICT, KSERVE_EXPLAIN)), ("v2", (INFER, INFER_EXPLAIN))]
)
def test_protocols(protocol: str, kinds: tuple[int, int]) -> None:
    flags = ("--input", "a.json", "--protocol", protocol)
    assert (kind_of(options(*flags)), kind_of(options(*flags, "--explain"))) == kinds
    assert requests(*flags)[0].extra == {"explain": "False"}


def test_batches() -> None:
    trials = read_trials(options("--input", "a.json", "b.txt", "form"))
    assert [len(batch) for batch in batches(trials, None)] == [3]
    assert [len(batch) for batch in batches(trials, 2)] == [2, 1]


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (["--input", "absent"], "^absent: No such file or directory$"),
        (["--field", "x=absent"], "^absent: No such file or directory$"),
        (["--field", "x"], "^--field x: give NAME=FILE, or NAME=@TEXT$"),
        (["--field", "=a.json"], "^--field =a.json: give NAME=FILE"),
        (["--header", "nothing", "--describe"], "^--header nothing: give 'NAME: VALUE'$"),
        (["--input", "form", "--content-type", "multipart/form-data; boundary=x="], "Invalid multipart body"),
    ],
)
def test_inputs_that_cannot_be_sent(flags: list[str], problem: str) -> None:
    Path("form").write_text("--x=\r\n\r\nbody without an end")
    with pytest.raises(BadInput, match=problem):
        requests(*flags)


@pytest.mark.parametrize("flags", [[], ["--repeat", "2"], ["--describe", "--explain"], ["--describe", "--repeat", "0"]])
def test_misuse(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options(*flags)
    assert ended.value.code == 2
    assert "usage: modelserver run-handler" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "-1", "x", "1.5"])
def test_a_count_that_is_none(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options("--describe", f"--repeat={count}")
    assert f"argument --repeat: '{count}' is no number of at least 1" in capsys.readouterr().err
