"""Writes the figures down: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from benchmarks.figures import (
    CLIENT_CPU,
    MEMORY,
    P50,
    P99,
    RATE,
    RECOVERY,
    REGISTER,
    SCALE,
    SERVER_CPU,
    Medians,
    Samples,
    load_figure,
)
from benchmarks.plan import MAX_BATCH_DELAY, Plan, Point
from benchmarks.tables import NOTHING, number, pair, table
from benchmarks.targets import Verdict, judge

BEGIN = "<!-- figures: written by `make bench` -->"
END = "<!-- end of figures -->"

LIFECYCLE_TITLES = {
    REGISTER: ("register with 1 worker", "s"),
    SCALE: ("scale from 1 to 4 workers", "s"),
    RECOVERY: ("first good answer after `kill -9`", "s"),
    MEMORY: ("memory with 4 workers, PSS", "MiB"),
}


@dataclass(frozen=True)
class Report:
    """One run of the benchmark. `titles` and `versions` go by server, `missing` says why a server was left out."""

    made: date
    command: str
    machine: str
    titles: Mapping[str, str]
    versions: Mapping[str, str]
    missing: Mapping[str, str]
    plan: Plan
    samples: Samples

    def as_json(self) -> str:
        medians = self.samples.medians()
        content = {
            "date": self.made.isoformat(),
            "command": self.command,
            "machine": self.machine,
            "versions": dict(self.versions),
            "missing": dict(self.missing),
            "rounds": self.plan.rounds,
            "duration": self.plan.duration,
            "medians": medians,
            "targets": [verdict_as_json(verdict) for verdict in judge(medians)],
            "samples": self.samples.values,
            "void": self.samples.void,
        }
        return json.dumps(content, indent=2)

    def as_markdown(self, picture: str) -> str:
        """The part of the performance page that a run replaces; `picture` is the plot's path from there."""
        medians = self.samples.medians()
        sections = [
            "\n".join(self._facts()),
            "## Targets",
            target_table(judge(medians), self.titles),
            f"![Requests a second over clients, and the life of a worker]({picture})",
            "## Requests a second",
            self._load_table(medians, rate_cell),
            "## Latency: median / 99th percentile, ms",
            self._load_table(medians, latency_cell),
            "## Processor time a request, µs: server (share of a core that the load generator used)",
            self._load_table(medians, cpu_cell),
            "## Life of a worker",
            self._lifecycle_table(medians),
        ]
        if self.samples.void:
            sections += ["## Void runs", "\n".join(f"- {run}" for run in self.samples.void)]
        return "\n\n".join(sections) + "\n"

    def _facts(self) -> list[str]:
        return [
            f"- Made on {self.made.isoformat()} by `{self.command}` on: {self.machine}.",
            *(f"- {self.titles[server]}: {version}." for server, version in self.versions.items()),
            *(f"- {self.titles[server]} was left out: {reason}." for server, reason in self.missing.items()),
            f"- Medians of {self.plan.rounds} rounds of {self.plan.duration} s a point; servers take turns "
            "at every point. A run with a single bad status or socket error is void.",
            f"- One worker a model, `job_queue_size=1000`, batches wait at most {MAX_BATCH_DELAY} ms; everything else, "
            "logs included, as it comes. The prototype never waits to fill a batch.",
            "- `wrk -t1` runs on the same cores as the servers and takes its share of them: the more, the faster the "
            "server.",
        ]

    def _load_table(self, medians: Medians, cell: Callable[[Mapping[str, float], Point], str]) -> str:
        header = ["handler", "batch", "clients", *(self.titles[server] for server in self.versions)]
        rows = [
            [
                point.deployment.handler.title,
                str(point.deployment.batch),
                str(point.clients),
                *(cell(medians.get(server, {}), point) for server in self.versions),
            ]
            for point in self.plan.points
        ]
        return table(header, rows)

    def _lifecycle_table(self, medians: Medians) -> str:
        servers = [server for server in self.versions if REGISTER in medians.get(server, {})]
        rows = [
            [f"{title} ({unit})", *(number(medians[server].get(figure)) for server in servers)]
            for figure, (title, unit) in LIFECYCLE_TITLES.items()
        ]
        return table(["", *(self.titles[server] for server in servers)], rows)


def rate_cell(figures: Mapping[str, float], point: Point) -> str:
    return number(figures.get(load_figure(point, RATE)))


def latency_cell(figures: Mapping[str, float], point: Point) -> str:
    return pair(figures.get(load_figure(point, P50)), figures.get(load_figure(point, P99)), "{} / {}")


def cpu_cell(figures: Mapping[str, float], point: Point) -> str:
    share = figures.get(load_figure(point, CLIENT_CPU))
    return pair(figures.get(load_figure(point, SERVER_CPU)), None if share is None else share * 100, "{} ({} %)")


def target_table(verdicts: Sequence[Verdict], titles: Mapping[str, str]) -> str:
    rows = [
        [
            verdict.target.title,
            titles[verdict.target.reference],
            number(verdict.value),
            number(verdict.reference_value),
            NOTHING if verdict.ratio is None else f"{verdict.ratio:.2f}",
            f"{verdict.target.bound} {verdict.target.limit:g}",
            str(verdict.outcome),
        ]
        for verdict in verdicts
    ]
    return table(["figure", "compared with", "modelserver", "the other", "ratio", "target", ""], rows)


def verdict_as_json(verdict: Verdict) -> dict[str, object]:
    return {
        "title": verdict.target.title,
        "figure": verdict.target.figure,
        "reference": verdict.target.reference,
        "target": f"{verdict.target.bound} {verdict.target.limit:g}",
        "ratio": verdict.ratio,
        "outcome": str(verdict.outcome),
    }


def replace_figures(page: str, figures: str) -> str:
    """The page with its figures replaced, or a new page where there is none yet."""
    block = f"{BEGIN}\n\n{figures}\n{END}"
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return f"{page.rstrip() or '# Performance'}\n\n{block}\n"
    return before + block + after


def write_page(page: Path, figures: str) -> None:
    page.write_text(replace_figures(page.read_text() if page.exists() else "", figures))
