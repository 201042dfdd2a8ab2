"""docs/archives.md: its commands are run in order, and print what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.server import MODELSERVER

PAGE = Path(__file__).parents[2] / "docs" / "archives.md"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def steps() -> Iterator[tuple[str, int, str]]:
    """(commands, their exit status, what they print)."""
    blocks = BLOCK.findall(PAGE.read_text())
    for index, (kind, text) in enumerate(blocks):
        if kind == "sh":
            status = re.search(r"# exit status (\d)$", text, re.MULTILINE)
            after = blocks[index + 1] if index + 1 < len(blocks) else ("", "")
            yield text, int(status[1]) if status else 0, after[1] if after[0] == "text" else ""


def without_figures(text: str) -> set[str]:
    """Lines whose sizes, dates and times may differ."""
    return {re.sub(r"\d+", "0", line).replace(" ", "") for line in text.splitlines() if line != "..."}


def test_every_command_does_what_the_page_says(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{MODELSERVER.parent}{os.pathsep}{os.environ['PATH']}",
        "TMPDIR": str(tmp_path),
        "TZ": "UTC",
    }
    work = tmp_path / "work"
    work.mkdir()
    for commands, status, expected in steps():
        done = subprocess.run(
            ["sh", "-ec", commands], cwd=work, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == status, f"{commands}\n{done.stdout}\n{done.stderr}"
        missing = without_figures(expected) - without_figures(done.stdout + done.stderr)
        assert not missing, f"{commands}\n{done.stdout}\n{done.stderr}"


def test_there_are_commands_of_every_program() -> None:
    text = "".join(commands for commands, _, _ in steps())
    for program in (
        "torch-model-archiver inspect",
        "torch-model-archiver verify",
        "run-handler",
        "torch-workflow-archiver",
    ):
        assert program in text


@pytest.mark.parametrize("target", re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE.read_text()))
def test_links_of_the_page_lead_somewhere(target: str) -> None:
    assert "://" in target or (PAGE.parent / target).exists()
