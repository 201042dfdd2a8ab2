"""Tests that need a system package: skipped on a user's machine, failing where the package was promised."""

from __future__ import annotations

import os
import shutil

import pytest

REQUIRED = "MODELSERVER_TEST_REQUIRE_SYSTEM_PACKAGES"


def needs(program: str) -> pytest.MarkDecorator:
    """Skip unless a program is on the PATH; never skip where all of them are required."""
    missing = shutil.which(program) is None and not os.environ.get(REQUIRED)
    return pytest.mark.skipif(missing, reason=f"needs the program {program}, which is not installed")
