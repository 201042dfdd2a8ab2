"""The tables of docs/compatibility.md, from the rows of differences. `python -m contract.page` writes them."""

from __future__ import annotations

from pathlib import Path

from contract.differences import TOPICS, Difference

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
START = "<!-- tables: written by `make compatibility-page` from tests/contract/differences.py -->\n"


def tables() -> str:
    """One per topic."""
    return "\n".join(table(topic, list(rows.values())) for topic, rows in TOPICS.items())


def table(topic: str, rows: list[Difference]) -> str:
    """A heading, and a row per difference."""
    lines = ["| TorchServe 0.12 | modelserver | what to do |", "|---|---|---|"]
    lines += [f"| {cell(row.torchserve)} | {cell(row.modelserver)} | {cell(row.advice)} |" for row in rows]
    return "\n".join([f"## {topic}", "", *lines, ""])


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def introduction(page: str) -> str:
    """The part of the page that is written by hand."""
    before, mark, _ = page.partition(START)
    if not mark:
        raise ValueError(f"{PAGE} has no line that says where its tables begin")
    return before


def render(page: str) -> str:
    """The page with tables of today."""
    return f"{introduction(page)}{START}\n{tables()}"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
