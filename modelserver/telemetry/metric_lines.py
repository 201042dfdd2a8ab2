"""Metric lines that handlers print.

`[METRICS]<name>.<unit>:<value>|#<dimension>:<value>,...|#type:<type>|#hostname:<host>,<epoch seconds>[,<request ids>]`
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

PREFIXES: Final = ("[METRICS]", "INFO > [METRICS]")
_START: Final = re.compile(r"(?:INFO > )?\[METRICS\]\s*")

# The time is the printer's own, the log has the server's.
_LINE: Final = re.compile(
    r"(?P<name>[\w\s-]+)\.(?P<unit>[\w\s/%.-]+):(?P<value>[\w.+-]+)"
    r"\|#(?P<dimensions>[^|]*)(?:\|#type:(?P<type>[^|,]+))?"
    r"\|#hostname:(?P<hostname>[^,]+),[^,]+(?:,(?P<request_ids>.*))?"
)


class PrintedMetric(NamedTuple):
    """One update as a line told it."""

    name: str
    value: float
    dimensions: list[tuple[str, str]]
    hostname: str
    request_ids: str = ""
    unit: str = ""
    type: str = ""  # only metrics that no definition names need one


def message(line: str) -> str:
    """The line without its `[METRICS]` prefix."""
    return _START.sub("", line, count=1)


def parse(line: str) -> PrintedMetric | None:
    """The update in a line with one of the `PREFIXES`; None if there is none."""
    match = _LINE.fullmatch(message(line))
    if match is None:
        return None
    try:
        value = float(match["value"].replace("_", "?"))  # Python's digit groups are no numbers here
    except ValueError:
        return None
    return PrintedMetric(
        match["name"],
        value,
        _dimensions(match["dimensions"]),
        match["hostname"],
        match["request_ids"] or "",
        match["unit"],
        match["type"] or "",
    )


def _dimensions(text: str) -> list[tuple[str, str]]:
    """Pairs of name and value; a piece that is not exactly one pair is dropped."""
    pairs = (piece.split(":") for piece in text.split(","))
    return [(pair[0], pair[1]) for pair in pairs if len(pair) == 2 and pair[1]]
