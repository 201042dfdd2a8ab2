"""The soak: what grows, what is written down, and a short one against a stand-in for TorchServe."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest

from benchmarks.crowd import Load, Tally
from benchmarks.footprint import Footprint, growth
from benchmarks.plan import LENGTH
from benchmarks.plot import draw_footprints
from benchmarks.servers import RestServer
from benchmarks.soak import DEPLOYMENT, Soak, command_line, make_load, parse, write
from benchmarks.soak_report import MARKS, SoakReport

LOAD = Load("http://127.0.0.1:1/x", 8, 1800.0, LENGTH.mime, "x", "1000000", copies=1_000_000, pause=0.05, vanishing=1)
TALLY = Tally(good=120_000, failures={500: 3, 503: 1}, unexplained=1, given_up=2, vanished=99, slowest=0.25)


def footprints(sizes: Sequence[int]) -> list[Footprint]:
    """With so many MiB."""
    return [Footprint(5.0 * index, size << 20, size << 19, 20, 3, 4) for index, size in enumerate(sizes)]


def report(sizes: Sequence[int]) -> SoakReport:
    return SoakReport(
        date(2026, 1, 2), "python -m benchmarks.soak", "a machine", "1.0", LOAD, TALLY, 59, 29, footprints(sizes)
    )


# Warm-up (4 of 40), then quarters of 9.
STEADY = [10] * 4 + [100] * 9 + [120] * 18 + [110] * 9


def test_growth_is_between_the_first_and_the_last_quarter_after_the_warm_up() -> None:
    went = growth(footprints(STEADY), lambda each: each.rss / 2**20)
    assert (went.first, went.last, went.most) == (100, 110, 120)
    assert went.ratio == pytest.approx(1.1)


def test_single_peaks_are_no_growth() -> None:
    sizes = [100] * 40
    sizes[-1] = sizes[-5] = 900
    assert growth(footprints(sizes), lambda each: each.rss).ratio == 1


@pytest.mark.parametrize("count", [0, 3])
def test_too_few_footprints_say_nothing(count: int) -> None:
    with pytest.raises(ValueError, match=f"{count} footprints are too few"):
        growth(footprints([1] * count), lambda each: each.rss)


def test_verdicts() -> None:
    assert [str(verdict.outcome) for verdict in report(STEADY).verdicts()] == ["PASS", "PASS", "MISS", "MISS"]
    assert str(report([100] * 20 + [112] * 20).verdicts()[0].outcome) == "MISS"


def test_markdown_holds_growth_and_load() -> None:
    markdown = report(STEADY).as_markdown("soak.png")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines()]
    assert ["frontend memory, RSS (MiB)", "100", "110", "120", "1.10"] in rows
    assert ["frontend memory, last quarter over first", "-", "1.1", "-", "-", "value <= 1.1", "PASS"] in rows
    assert "8 clients post 1,000,000 bytes each for 30 minutes" in markdown
    assert "59 workers got SIGKILL, and 29 times a worker was added or removed" in markdown
    assert "120,000 good answers, 4 errors (3 times 500, 1 times 503); the slowest answer took 0.25 s." in markdown
    assert "](soak.png)" in markdown


def test_json_holds_every_footprint() -> None:
    content = json.loads(report(STEADY).as_json())
    header, *rows = content["footprints"]
    assert header == ["seconds", "rss", "pss", "descriptors", "threads", "processes"]
    assert rows[1] == [5.0, 10 << 20, 5 << 20, 20, 3, 4]
    assert len(rows) == len(STEADY)
    assert content["tally"]["failures"] == {"500": 3, "503": 1}
    assert (content["kills"], content["changes"]) == (59, 29)


def test_a_whole_soak_goes_onto_the_page_beside_the_figures(tmp_path: Path) -> None:
    directory, page = tmp_path / "results", tmp_path / "docs" / "performance.md"
    for path in (directory, page.parent):
        path.mkdir()
    page.write_text("# Performance\n\nfigures\n")
    write(report(STEADY), directory, page)
    text = page.read_text()
    assert text.startswith(f"# Performance\n\nfigures\n\n{MARKS.begin}\n\n## Soak\n")
    assert {path.name for path in page.parent.iterdir()} == {"performance.md", "soak.json", "soak.png"}
    assert {path.name for path in directory.iterdir()} == {"soak.json", "soak.md", "soak.png"}


def test_plot_of_memory(tmp_path: Path) -> None:
    draw_footprints(footprints(STEADY), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_options_make_the_load() -> None:
    options = parse(["--minutes", "0.5", "--clients", "3", "--body-size", "1234"])
    load = make_load(options, "http://127.0.0.1:1/x")
    assert (load.clients, load.seconds, load.answer) == (3, 30.0, "1234")
    assert load.request.endswith(b"\r\n\r\n" + b"x" * 1234)
    assert command_line(options) == "python -m benchmarks.soak --minutes 0.5 --clients 3 --body-size 1234"
    assert parse(command_line(options).split()[3:]) == options
    assert command_line(parse([])) == "python -m benchmarks.soak --minutes 30 --clients 8 --body-size 1000000"


def test_a_short_soak(standin: RestServer) -> None:
    standin.start()
    standin.deploy(DEPLOYMENT)
    seconds = 3.5
    soak = Soak(standin, seconds)
    tally = soak.run(Load(standin.url(DEPLOYMENT), 2, seconds, LENGTH.mime, "x", "ok", pause=0.02))
    assert len(soak.footprints) == 13
    assert all(each.rss > 2**20 and each.descriptors and each.threads for each in soak.footprints)
    assert {each.processes for each in soak.footprints} >= {3}
    assert (soak.killer.kills, soak.changes) == (2, 1)
    assert tally.good > 0
    assert (tally.failures, tally.unanswered) == ({503: 2}, 0)
