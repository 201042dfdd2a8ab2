"""Short names of units and what they stand for."""

from __future__ import annotations

UNITS: dict[str | None, str] = {
    "ms": "Milliseconds",
    "s": "Seconds",
    "percent": "Percent",
    "count": "Count",
    "MB": "Megabytes",
    "GB": "Gigabytes",
    "kB": "Kilobytes",
    "B": "Bytes",
    "": "unit",
    None: "unit",
}


def full_name(unit: str | None) -> str:
    """`ms` is `Milliseconds`, no unit is `unit`; names that are not in the table stay as they are."""
    return UNITS.get(unit, unit or "unit")


class Units:
    """Holds the table as attribute `units`."""

    def __init__(self) -> None:
        self.units = dict(UNITS)
