"""Numbers and tables as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

NOTHING = "-"  # in the place of a figure that was not measured


def pair(first: float | None, second: float | None, form: str) -> str:
    return NOTHING if first is None else form.format(number(first), number(second))


def number(value: float | None) -> str:
    """Three significant digits or all before the point: `26,512`, `1.24`, `0.0312`."""
    if value is None:
        return NOTHING
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with padded cells, so that it reads well as plain text too."""
    widths = [max(len(cell) for cell in column) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])
