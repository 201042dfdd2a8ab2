"""The version of this program."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed
from pathlib import Path


@cache
def version() -> str:
    """Of the installed distribution, or of the source tree where it is not installed."""
    try:
        return installed("modelserver")
    except PackageNotFoundError:
        return Path(__file__).parents[1].joinpath("ts", "version.txt").read_text().strip()
