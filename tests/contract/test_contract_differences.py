"""Decided differences: each is in the table, proved by a test, and told to users."""

from __future__ import annotations

import ast
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.compat import end_servers, main, read_outcomes, summarize, summarize_differences
from contract.conversation import CONVERSATION
from contract.differences import DIFFERENCES
from contract.page import PAGE, render
from contract.talk import Exchange
from contract.test_rest_conversation import recorded

HERE = Path(__file__).parent
DIFFERING = [exchange for exchange in CONVERSATION if exchange.fixed]
REPORT = """<testsuites><testsuite>
<testcase classname="c" name="same"><properties><property name="difference" value="no delay"/></properties></testcase>
<testcase classname="c" name="luck"><properties><property name="difference" value="signal 9"/></properties></testcase>
<testcase classname="c" name="other"><properties><property name="difference" value="pipelining"/></properties><failure/>
</testcase>
<testcase classname="c" name="broken"><error/></testcase>
<testcase classname="c" name="left"><skipped/></testcase>
</testsuite></testsuites>"""


def marked() -> Iterator[str]:
    """What the `fixed` marks of tests and of their parameters name; the test, where a mark names nothing."""
    for path in sorted(HERE.glob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and is_fixed(node.func):
                yield str(ast.literal_eval(node.args[0]))
            if isinstance(node, ast.FunctionDef) and any(map(is_fixed, node.decorator_list)):
                yield f"{path.name}: {node.name}"


def is_fixed(mark: ast.expr) -> bool:
    return ast.unparse(mark) in ("fixed", "pytest.mark.fixed")


def test_every_difference_is_proved_and_every_proof_is_of_one() -> None:
    """By a test or an exchange of the conversation."""
    assert {*marked(), *(exchange.fixed for exchange in DIFFERING)} == set(DIFFERENCES)


@pytest.mark.parametrize("exchange", CONVERSATION, ids=lambda exchange: exchange.name)
def test_an_exchange_differs_if_it_says_so(exchange: Exchange) -> None:
    """In what TorchServe said when it was recorded."""
    theirs = recorded(exchange)
    assert (exchange.expected(theirs) != theirs) == bool(exchange.fixed)


def test_exchanges_have_names_of_their_own() -> None:
    """Answers are recorded by them."""
    assert len({exchange.name for exchange in CONVERSATION}) == len(CONVERSATION)


def test_the_page_tells_all_differences() -> None:
    """As the table words them: `make compatibility-page` writes it."""
    assert render(PAGE.read_text()) == PAGE.read_text()


def test_without_java_there_is_nothing_to_compare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """That is said, and is no failure."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert main([]) == 0
    assert "TorchServe needs Java" in capsys.readouterr().out


def test_servers_of_failed_tests_are_ended(tmp_path: Path) -> None:
    """Known by the directory of the run; others go on."""
    sleep = "import time; time.sleep(600)"
    left, other = (
        subprocess.Popen([sys.executable, "-c", sleep, word]) for word in (f"{tmp_path}/store", "/elsewhere")
    )
    try:
        end_servers(str(tmp_path))
        assert left.wait(60) == -signal.SIGKILL
        assert other.poll() is None
    finally:
        for process in (left, other):
            process.kill()
            process.wait()


def test_what_torchserve_fails_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Or, where it should fail, what it passes."""
    (tmp_path / "report.xml").write_text(REPORT)
    outcomes = list(read_outcomes(tmp_path / "report.xml"))
    assert [outcome.result for outcome in outcomes] == ["passed", "passed", "failed", "failed", "skipped"]
    assert summarize(outcomes, 1) == 1
    assert "otherwise: c::broken\n  otherwise: c::other\n" in capsys.readouterr().out
    assert summarize_differences(outcomes) == 1
    assert "passes by luck: c::luck\n  passes, so the mark is wrong: c::same\n" in capsys.readouterr().out
    assert summarize_differences(outcomes[1:]) == 0
