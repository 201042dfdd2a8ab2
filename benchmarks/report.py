"""Writes the figures down: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import NamedTuple

from benchmarks.crowd import PATIENCE
from benchmarks.figures import (
    BODIES,
    CALM_RATE,
    CLIENT_CPU,
    FORMATS,
    IDLE,
    IDLE_FRONTEND,
    KILLS,
    KILLS_KEPT,
    KILLS_LOST,
    KILLS_RATE,
    KILLS_SLOWEST,
    KILLS_UNANSWERED,
    KILLS_UNEXPLAINED,
    KSERVE,
    LOGGED,
    MEMORY,
    P50,
    P99,
    RATE,
    RECOVERY,
    REFUSED,
    REGISTER,
    SCALE,
    SCALE_FURTHER,
    SCRAPE,
    SCRAPE_SIZE,
    SCRAPE_STALL,
    SERVED,
    SERVER_CPU,
    TENSOR_OVER_RAW,
    Samples,
    Summary,
    codec_figure,
    cost_of,
    grpc_figure,
    kserve_figure,
    load_figure,
    log_figure,
    memory_figure,
    register_figure,
)
from benchmarks.plan import (
    BATCHED,
    GRPC_POINTS,
    KILL_CLIENTS,
    KILL_WORKERS,
    MAX_BATCH_DELAY,
    SCRAPED_MODELS,
    WORKERS_AFTER_SCALING,
    Plan,
    Point,
)
from benchmarks.tables import NOTHING, number, pair, table
from benchmarks.targets import Verdict, judge


class Marks(NamedTuple):
    """The lines of a page between which figures are replaced."""

    begin: str
    end: str


MARKS = Marks("<!-- figures: written by `make bench` -->", "<!-- end of figures -->")

LIFECYCLE_TITLES = {
    REGISTER: ("register with 1 worker", "s"),
    SCALE: ("scale from 1 to 4 workers", "s"),
    RECOVERY: ("first good answer after `kill -9`", "s"),
    SCALE_FURTHER: ("scale from 1 to 8 workers", "s"),
    MEMORY: ("memory with 4 workers, PSS", "MiB"),
    IDLE: ("idle with 4 workers, all processes", "millicores"),
    IDLE_FRONTEND: ("idle with 4 workers, without them", "millicores"),
}

GRPC_TITLES = {
    RATE: "calls a second",
    P50: "median latency (ms)",
    P99: "99th percentile (ms)",
    SERVER_CPU: "processor time a call (µs)",
    CLIENT_CPU: "share of a core that the load generator used",
}

KILL_TITLES = {
    CALM_RATE: ("left in peace", "good answers a second"),
    KILLS_RATE: ("with a kill every second", "good answers a second"),
    KILLS_KEPT: ("share of the rate kept under kills", "1"),
    KILLS: ("kills", "in a run"),
    KILLS_LOST: ("requests lost", "per kill"),
    KILLS_UNEXPLAINED: ("errors without a cause", "in a run"),
    KILLS_UNANSWERED: ("requests without an answer", "in a run"),
    KILLS_SLOWEST: ("slowest answer under kills", "s"),
}

REFUSAL_TITLES = {
    **{cost_of(name): (name, "µs of processor time") for name in (SERVED, *REFUSED)},
    **{name: (f"{name}, over served", "1") for name in REFUSED},
}

SCRAPE_TITLES = {
    SCRAPE: (f"scrape of {SCRAPED_MODELS} models with histograms", "ms"),
    SCRAPE_SIZE: ("its size", "MB"),
    SCRAPE_STALL: ("slowest ping in a thousand meanwhile", "ms"),
}

LOG_TITLES = {
    log_figure(kind, figure): (f"{kind}: {title}", unit)
    for kind in LOGGED
    for figure, (title, unit) in {
        RATE: ("rate", "requests a second"),
        P99: ("99th percentile", "ms"),
        SERVER_CPU: ("processor time a request", "µs"),
    }.items()
}

KSERVE_TITLES = {
    **{
        kserve_figure(name, kind): (f"{name}: {title}", unit)
        for name in KSERVE
        for kind, (title, unit) in {
            RATE: ("rate", "requests a second"),
            P50: ("median latency", "ms"),
            SERVER_CPU: ("processor time a request", "µs"),
        }.items()
    },
    TENSOR_OVER_RAW: ("picture as a tensor, rate over that of plain bytes", "1"),
}

CODEC_TITLES = {codec_figure(bodies): (bodies, "requests a second") for bodies in BODIES}

WEIGHT_TITLES = {
    **{register_figure(form): (f"{form}: register with 1 worker", "s") for form in FORMATS},
    **{
        memory_figure(form, workers): (f"{form}: memory with {workers}, PSS", "MiB")
        for form in FORMATS
        for workers in (1, WORKERS_AFTER_SCALING)
    },
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
        summary = self.samples.summary()
        content = {
            "date": self.made.isoformat(),
            "command": self.command,
            "machine": self.machine,
            "versions": dict(self.versions),
            "missing": dict(self.missing),
            "rounds": self.plan.rounds,
            "duration": self.plan.duration,
            "idle": self.plan.idle,
            "kills": self.plan.kills,
            "summary": summary,
            "targets": [verdict_as_json(verdict) for verdict in judge(summary)],
            "samples": self.samples.values,
            "void": self.samples.void,
        }
        return json.dumps(content, indent=2)

    def as_markdown(self, picture: str) -> str:
        """The part of the performance page that a run replaces; `picture` is the plot's path from there."""
        summary = self.samples.summary()
        sections = [
            "\n".join(self._facts()),
            "## Targets",
            target_table(judge(summary), self.titles),
            f"![Requests a second over clients, and the life of a worker]({picture})",
            "## Requests a second",
            self._load_table(summary, rate_cell),
            "## Latency: median / 99th percentile, ms",
            self._load_table(summary, latency_cell),
            "## Processor time a request, µs: server (share of a core that the load generator used)",
            self._load_table(summary, cpu_cell),
            "## Predictions over gRPC",
            self._grpc_table(summary),
            "## Open Inference over REST",
            self._figure_table(summary, KSERVE_TITLES),
            "## Life of a worker",
            self._figure_table(summary, LIFECYCLE_TITLES),
            f"## One of {KILL_WORKERS} workers killed every second",
            self._figure_table(summary, KILL_TITLES),
            "## Requests that are refused",
            self._figure_table(summary, REFUSAL_TITLES),
            "## Scrapes",
            self._figure_table(summary, SCRAPE_TITLES),
            "## Logging",
            self._figure_table(summary, LOG_TITLES),
            "## A worker by itself: from requests to rows to replies",
            self._figure_table(summary, CODEC_TITLES),
            "## 400 MB of weights",
            self._figure_table(summary, WEIGHT_TITLES),
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
            "- gRPC: `h2load -t1`, a connection per client, a call at a time on each; bare grpcio is an asyncio server "
            "that answers everything with the same few bytes (`benchmarks/grpc_echo.py`), in one process on uvloop.",
            "- Open Inference: servers one after the other, one worker each; small JSON is a row of four numbers, the "
            "picture is 1x3x224x224 FP32, batch 1. Triton runs the same no-op in its Python backend, with the same "
            "batches and delay, without an access log.",
            f"- Idle: over {self.plan.idle} s, by the kernel's clock of each process.",
            f"- Kills: no-op, batch 1, {KILL_CLIENTS} clients that read every answer (`benchmarks/crowd.py`; "
            f"slower than wrk, for all servers alike), {self.plan.kills} s in peace, then {self.plan.kills} s in which "
            "every second a READY worker, if there is one, gets SIGKILL, the two in turns. Lost is what has no good "
            f"answer. Clients wait {PATIENCE:g} s. Of what is lost or slow the worst run is told.",
            f"- A worker by itself: an echo, batches of {BATCHED}, over its own socket, without a frontend. "
            "For large bodies modelserver's frontend shares memory with its workers; the benchmark does what it does.",
            "- Weights: in archives of their own, which are unpacked first; every worker has answered before its "
            "memory is read. TorchServe loads no packages of torch.export.",
            "- Logging: no-op, batch 1, 32 clients. With everything, both servers read one `log4j2.xml`, which has the "
            "console and all files and asks for DEBUG; then both write lines at DEBUG about every request.",
            "- Refused: no-op, batch 1, keys asked for, every request on a connection of its own, served ones too.",
        ]

    def _load_table(self, summary: Summary, cell: Callable[[Mapping[str, float], Point], str]) -> str:
        header = ["handler", "batch", "clients", *(self.titles[server] for server in self.versions)]
        rows = [
            [
                point.deployment.handler.title,
                str(point.deployment.batch),
                str(point.clients),
                *(cell(summary.get(server, {}), point) for server in self.versions),
            ]
            for point in self.plan.points
        ]
        return table(header, rows)

    def _grpc_table(self, summary: Summary) -> str:
        """A row per point and kind of figure."""
        servers = [server for server in self.versions if has_grpc(summary.get(server, {}))]
        rows = [
            [f"no-op, batch {point.deployment.batch}, {point.clients} clients: {title}"]
            + [number(summary[server].get(grpc_figure(point, kind))) for server in servers]
            for point in GRPC_POINTS
            for kind, title in GRPC_TITLES.items()
        ]
        return table(["", *(self.titles[server] for server in servers)], rows)

    def _figure_table(self, summary: Summary, titles: Mapping[str, tuple[str, str]]) -> str:
        """One row per figure, one column per server that has any of them."""
        servers = [server for server in self.versions if titles.keys() & summary.get(server, {}).keys()]
        rows = [
            [f"{title} ({unit})", *(number(summary[server].get(figure)) for server in servers)]
            for figure, (title, unit) in titles.items()
        ]
        return table(["", *(self.titles[server] for server in servers)], rows)


def has_grpc(figures: Mapping[str, float]) -> bool:
    return any(grpc_figure(point, RATE) in figures for point in GRPC_POINTS)


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
            titles.get(verdict.target.reference, NOTHING),
            number(verdict.value),
            number(verdict.reference_value),
            NOTHING if verdict.ratio is None else f"{verdict.ratio:.2f}",
            verdict.target.text,
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
        "target": verdict.target.text,
        "value": verdict.value,
        "ratio": verdict.ratio,
        "outcome": str(verdict.outcome),
    }


def replace_figures(page: str, figures: str, marks: Marks = MARKS) -> str:
    """The page with the figures between the marks replaced, or with them at its end where there are none yet."""
    block = f"{marks.begin}\n\n{figures}\n{marks.end}"
    before, begin, rest = page.partition(marks.begin)
    _, end, after = rest.partition(marks.end)
    if not begin or not end:
        return f"{page.rstrip() or '# Performance'}\n\n{block}\n"
    return before + block + after


def write_page(page: Path, figures: str, marks: Marks = MARKS) -> None:
    page.write_text(replace_figures(page.read_text() if page.exists() else "", figures, marks))
