"""Requirements of archives against what is installed."""

from __future__ import annotations

from importlib.metadata import version

import pytest

from modelserver.checkup.requirements import unsatisfied


@pytest.mark.parametrize(
    "line",
    [
        "",
        "# comment",
        "pyyaml",
        "PyYAML >= 1  # enough",
        "pyyaml>=1 --hash=sha256:00",
        "-r other.txt",
        "-i https://example.org",
        "./local.whl",
        "git+https://example.org/x.git",
        "nobody-has-this; python_version < '3'",
        "=broken=",
    ],
)
def test_nothing_to_say(line: str) -> None:
    assert list(unsatisfied([line])) == []


def test_what_is_missing_or_too_old() -> None:
    lines = ["nobody-has-this>=2", "pyyaml>=9999 # more than there is"]
    assert list(unsatisfied(lines)) == [
        "nobody-has-this>=2 is not installed",
        f"pyyaml>=9999 is asked for, and {version('pyyaml')} is installed",
    ]
