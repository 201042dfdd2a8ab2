"""System packages that tests need (skipped on a user's machine, failing where the package was promised), and make."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "MODELSERVER_TEST_REQUIRE_SYSTEM_PACKAGES"


def needs(program: str) -> pytest.MarkDecorator:
    """Skip unless a program is on the PATH; never skip where all of them are required."""
    missing = shutil.which(program) is None and not os.environ.get(REQUIRED)
    return pytest.mark.skipif(missing, reason=f"needs the program {program}, which is not installed")


def outside_make() -> dict[str, str]:
    """The environment without what a surrounding make hands down: its flags and variables would win against ours."""
    return {name: text for name, text in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
