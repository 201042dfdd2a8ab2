"""The page on settings is what the tables say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from modelserver.settings.command_line import CommandLine, flags, parse
from modelserver.settings.model_yaml import KEYS, Stated
from modelserver.settings.reference import SECTIONS, page
from modelserver.settings.table import rows

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
COMMAND = [sys.executable, "-m", "modelserver.settings.reference"]


def test_the_page_is_up_to_date() -> None:
    hint = "run: python -m modelserver.settings.reference > docs/configuration.md"
    assert PAGE.read_text() == page(), hint


def test_the_command_prints_the_page() -> None:
    assert subprocess.run(COMMAND, capture_output=True, text=True, check=True).stdout == page()


def test_the_page_has_everything() -> None:
    text = page()
    for key, row in rows().items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"| `{key}` |")]
        assert all(f"`{name}`" in line for name in row.env)
        assert line.count("|") - line.count("\\|") == 6
    assert all(f"| `{key}` |" in text for key in KEYS)
    assert all(f"### {title}" in text for title in SECTIONS.values())
    assert str(Path.cwd()) not in text, "nothing of this machine"


def test_the_flags_are_those_of_the_command() -> None:
    """Each of them is understood, and none is left out."""
    spellings = [re.findall(r"--?[a-z][a-z-]*", flag) for flag, _ in flags()]
    assert sorted(max(names, key=len) for names in spellings) == sorted(
        f"--{name.replace('_', '-')}" for name in CommandLine.__dataclass_fields__
    )
    assert all(help for _, help in flags())
    values = {"--models": ["x.mar"], "--show-config": ["json"], "--check": ["json"]}
    for flag, _ in flags():
        for name in re.findall(r"--?[a-z][a-z-]*", flag):
            takes = " " in flag.replace(", ", "")
            parse([name, *values.get(name, ["x"] if takes else [])])


def test_keys_of_the_yaml_are_fields() -> None:
    assert {key.field for key in KEYS.values()} == set(Stated.__dataclass_fields__)
