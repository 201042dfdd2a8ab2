"""The performance page: its tables, its verdicts, and what is kept around it."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from benchmarks.figures import (
    CLIENT_CPU,
    KILLS_KEPT,
    MEMORY,
    P50,
    P99,
    RATE,
    REGISTER,
    SERVER_CPU,
    Samples,
    load_figure,
)
from benchmarks.plan import NOOP, Deployment, Plan, Point
from benchmarks.plot import draw
from benchmarks.report import MARKS, Marks, Report, replace_figures, write_page
from benchmarks.tables import number, table

POINT = Point(Deployment(NOOP, 1), 32)
PLAN = Plan((POINT,), rounds=3, duration=4, warm_up=1)
TITLES = {"modelserver": "modelserver", "torchserve": "TorchServe", "torchserve-access": "access", "prototype": "proto"}


def report() -> Report:
    samples = Samples()
    for server, rate, memory in (("modelserver", 15000.0, 300.0), ("torchserve", 2500.0, 800.0)):
        samples.add(server, load_figure(POINT, RATE), rate)
        samples.add(server, load_figure(POINT, P50), 1.25)
        samples.add(server, load_figure(POINT, P99), 9.5)
        samples.add(server, load_figure(POINT, SERVER_CPU), 60.0)
        samples.add(server, load_figure(POINT, CLIENT_CPU), 0.4)
        samples.add(server, REGISTER, 0.5)
        samples.add(server, MEMORY, memory)
    samples.add("modelserver", KILLS_KEPT, 0.9)
    samples.discard("TorchServe", "noop b1 c32, round 1", "7 bad statuses")
    versions = {"modelserver": "1.0", "torchserve": "0.12.0"}
    missing = {"prototype": "it is asleep"}
    return Report(date(2026, 1, 2), "python -m benchmarks", "a machine", TITLES, versions, missing, PLAN, samples)


def row(markdown: str, *begin: str) -> list[str]:
    """Cells of the first table row that begins so, what came before the row's key left out."""
    for line in markdown.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and tuple(cells[: len(begin)]) == begin:
            return cells[len(begin) :]
    raise AssertionError(f"no row {begin}")


def test_markdown_holds_figures_verdicts_and_facts() -> None:
    markdown = report().as_markdown("performance.png")
    name = "no-op, batch 1, 32 clients: rate"
    assert row(markdown, name, "TorchServe") == ["15,000", "2,500", "6.00", ">= 5", "PASS"]
    assert row(markdown, name, "proto") == ["15,000", "-", "-", ">= 0.5", "not measured"]
    assert row(markdown, "memory with 4 workers (PSS)", "TorchServe") == ["300", "800", "0.38", "<= 0.35", "MISS"]
    assert row(markdown, "no-op", "1", "32") == ["15,000", "2,500"]
    assert "1.25 / 9.5" in markdown
    assert "60 (40 %)" in markdown
    assert "proto was left out: it is asleep." in markdown
    assert "- TorchServe, noop b1 c32, round 1: 7 bad statuses" in markdown
    assert "](performance.png)" in markdown


def test_a_server_with_neither_register_nor_scale_has_no_place_in_the_life_of_a_worker() -> None:
    life = report().as_markdown("x.png").partition("## Life of a worker")[2]
    assert row(life, "") == ["modelserver", "TorchServe"]
    assert row(life, "scale from 1 to 4 workers (s)") == ["-", "-"]


def test_a_figure_with_a_limit_of_its_own_needs_no_other_server() -> None:
    markdown = report().as_markdown("x.png")
    kept = ["0.9", "-", "-", "value >= 0.8", "PASS"]
    assert row(markdown, "a kill every second: share of the rate kept", "TorchServe") == kept
    kills = markdown.partition("## One of 2 workers killed every second")[2]
    assert row(kills, "") == ["modelserver"]
    assert row(kills, "share of the rate kept under kills (1)") == ["0.9"]


def test_json_holds_samples_medians_and_verdicts() -> None:
    content = json.loads(report().as_json())
    assert content["samples"]["torchserve"]["memory"] == [800.0]
    assert content["summary"]["modelserver"]["noop b1 c32 rate"] == 15000.0
    outcomes = {(each["figure"], each["reference"]): each["outcome"] for each in content["targets"]}
    assert outcomes["noop b1 c32 rate", "torchserve"] == "PASS"
    assert outcomes["memory", "torchserve"] == "MISS"
    assert content["date"] == "2026-01-02"


def test_only_the_figures_of_a_page_are_replaced() -> None:
    page = f"# Speed\n\nwords\n\n{MARKS.begin}\nold\n{MARKS.end}\nmore words\n"
    replaced = replace_figures(page, "new\n")
    assert replaced == f"# Speed\n\nwords\n\n{MARKS.begin}\n\nnew\n\n{MARKS.end}\nmore words\n"
    assert replace_figures(replaced, "new\n") == replaced


def test_every_kind_of_figures_has_its_own_place() -> None:
    others = Marks("<!-- begin -->", "<!-- end -->")
    page = replace_figures(replace_figures("# Speed\n", "first\n"), "second\n", others)
    assert replace_figures(page, "third\n", others) == page.replace("second", "third")
    assert replace_figures(page, "fourth\n") == page.replace("first", "fourth")


@pytest.mark.parametrize("page", ["", "# Performance\n"])
def test_a_page_without_figures_gets_them_at_its_end(page: str, tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    if page:
        path.write_text(page)
    write_page(path, "new\n")
    assert path.read_text() == f"# Performance\n\n{MARKS.begin}\n\nnew\n\n{MARKS.end}\n"


@pytest.mark.parametrize(
    ("value", "text"), [(None, "-"), (0.0312, "0.0312"), (1.2345, "1.23"), (99.9, "99.9"), (26512.4, "26,512")]
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_table_is_aligned() -> None:
    assert table(["a", "b"], [["long cell", "1"]]) == "| a         | b |\n| --------- | - |\n| long cell | 1 |"


def test_a_row_of_the_wrong_width_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        table(["a", "b"], [["1"]])


def test_plot_draws_what_there_is(tmp_path: Path) -> None:
    made = report()
    path = tmp_path / "plot.png"
    draw(made.samples.summary(), PLAN.points, {server: TITLES[server] for server in made.versions}, path)
    assert path.read_bytes().startswith(b"\x89PNG")


def test_plot_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"
    draw({}, (), {}, path)
    assert path.exists()
