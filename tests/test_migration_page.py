"""docs/migration.md: its commands are known, its links lead somewhere, and it names what the check looks for."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from modelserver.checkup.finding import Severity
from modelserver.checkup.leftovers import RIVALS
from modelserver.settings.command_line import parse

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "migration.md").read_text()
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


def of(*programs: str) -> list[list[str]]:
    """The arguments of the commands of these names, wherever they are installed."""
    return [words[1:] for words in COMMANDS if Path(words[0]).name in programs]


@pytest.mark.parametrize("words", of("modelserver", "torchserve"), ids=" ".join)
def test_flags_are_known(words: list[str]) -> None:
    parse(words)


def test_the_check_is_that_of_the_start() -> None:
    """The flags of one are those of the other."""
    (check,) = [words for words in of("modelserver") if "--check" in words]
    starts = [words for words in of("torchserve") if "--start" in words]
    assert starts and all(set(words) - {"--start"} == set(check) - {"--check"} for words in starts)


def test_what_is_installed_and_uninstalled() -> None:
    """Every package of TorchServe's that the check calls an error; extras that exist."""
    pip = of("pip")
    rivals = {name for name in RIVALS if not name.endswith("-nightly")}
    assert {name for words in pip if "uninstall" in words for name in words[2:]} == {*rivals, "modelserver"}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = re.findall(r"\[(\w+)\]", " ".join(word for words in pip if "install" in words for word in words))
    assert wanted and set(wanted) <= extras.keys()


def test_the_words_of_the_check_are_explained() -> None:
    assert all(f"| `{severity}` |" in PAGE for severity in Severity)


def test_links_of_the_page_lead_somewhere() -> None:
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", PAGE)
    assert targets and all((ROOT / "docs" / target).exists() for target in targets)
