"""Writes a soak down: Markdown for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from datetime import date

from benchmarks.contenders import TITLES
from benchmarks.crowd import Load, Tally
from benchmarks.figures import SOAK_GROWTH, SOAK_LOST, SOAK_UNANSWERED, SOAK_UNEXPLAINED
from benchmarks.footprint import Footprint, growth
from benchmarks.report import Marks, target_table, verdict_as_json
from benchmarks.tables import number, table
from benchmarks.targets import MODELSERVER, SOAK_TARGETS, Verdict, judge

MARKS = Marks("<!-- soak: written by `python -m benchmarks.soak` -->", "<!-- end of soak -->")

FACTS: dict[str, Callable[[Footprint], float]] = {
    "frontend memory, RSS (MiB)": lambda each: each.rss / 2**20,
    "frontend memory, PSS (MiB)": lambda each: each.pss / 2**20,
    "frontend's descriptors": lambda each: each.descriptors,
    "frontend's threads": lambda each: each.threads,
    "processes of the whole server": lambda each: each.processes,
}


@dataclass(frozen=True)
class SoakReport:
    """One soak, for people and for programs."""

    made: date
    command: str
    machine: str
    version: str
    load: Load
    tally: Tally
    kills: int
    changes: int  # of the number of workers
    footprints: Sequence[Footprint]

    def verdicts(self) -> list[Verdict]:
        figures = {
            SOAK_GROWTH: growth(self.footprints, lambda each: each.rss).ratio,
            SOAK_LOST: self.tally.lost / max(self.kills, 1),
            SOAK_UNEXPLAINED: self.tally.unexplained,
            SOAK_UNANSWERED: self.tally.unanswered,
        }
        return judge({MODELSERVER: figures}, SOAK_TARGETS)

    def as_json(self) -> str:
        """Footprints are rows under one header."""
        content = {
            "date": self.made.isoformat(),
            "command": self.command,
            "machine": self.machine,
            "version": self.version,
            "load": asdict(self.load),
            "tally": asdict(self.tally),
            "kills": self.kills,
            "changes": self.changes,
            "targets": [verdict_as_json(verdict) for verdict in self.verdicts()],
            "footprints": [[field.name for field in fields(Footprint)], *map(astuple, self.footprints)],
        }
        return json.dumps(content)

    def as_markdown(self, picture: str) -> str:
        """The part of the performance page that a soak replaces; `picture` is the plot's path from there."""
        rows = []
        for title, fact in FACTS.items():
            went = growth(self.footprints, fact)
            rows.append([title, number(went.first), number(went.last), number(went.most), f"{went.ratio:.2f}"])
        sections = [
            "## Soak",
            "\n".join(self._facts()),
            target_table(self.verdicts(), TITLES),
            table(["median of", "first quarter", "last quarter", "highest", "ratio"], rows),
            f"![Memory of the frontend over time]({picture})",
        ]
        return "\n\n".join(sections) + "\n"

    def _facts(self) -> list[str]:
        load, tally = self.load, self.tally
        failures = ", ".join(f"{count} times {status}" for status, count in sorted(tally.failures.items()))
        return [
            f"- Made on {self.made.isoformat()} by `{self.command}` on: {self.machine}. {self.version}.",
            f"- {load.clients} clients post {load.copies:,} bytes each for {load.seconds / 60:g} minutes, with a pause "
            f"of {load.pause * 1e3:g} ms after an answer; {load.vanishing} more leaves in the middle of its body or "
            f"with its request complete but unanswered, in turns ({tally.vanished:,} times).",
            f"- Meanwhile {self.kills} workers got SIGKILL, and {self.changes} times a worker was added or removed.",
            f"- {tally.good:,} good answers, {tally.failed} errors ({failures or 'none'}); the slowest answer took "
            f"{number(tally.slowest)} s.",
            "- The first tenth is left out as warm-up.",
        ]
