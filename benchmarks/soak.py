"""Large bodies for half an hour, while workers die and come and go: does the server stay as it is?

`python -m benchmarks.soak --help` names the options.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import psutil

from benchmarks.__main__ import PAGE, say
from benchmarks.archives import Archives
from benchmarks.client import NotInTime, Unreachable
from benchmarks.contenders import find
from benchmarks.crowd import CrowdFailed, Load, Tally, run_crowd
from benchmarks.footprint import Footprint, take_footprint
from benchmarks.kills import Killer
from benchmarks.lifecycle import wait_for_workers
from benchmarks.machine import describe_machine
from benchmarks.plan import LENGTH, Deployment
from benchmarks.plot import draw_footprints
from benchmarks.report import write_page
from benchmarks.servers import CallFailed, RestServer
from benchmarks.soak_report import MARKS, SoakReport
from benchmarks.targets import MODELSERVER

DEPLOYMENT = Deployment(LENGTH, 1)
WORKERS = 2
PAUSE = 0.05  # seconds between an answer and the client's next request: two cores are not to be busy all the time
DESERTERS = 1
BEATS = 360  # footprints of a whole run
SHORTEST_BEAT = 0.25  # seconds
KILL_EVERY = 6  # beats
SCALE_EVERY = 12  # beats: one worker more, and the next time one fewer
WHOLE = 30.0  # minutes from which a run goes onto the page


class Soak:
    """A server under load. On every beat it is looked at, and on some of them disturbed."""

    def __init__(self, server: RestServer, seconds: float) -> None:
        self.footprints: list[Footprint] = []
        self.killer = Killer(server, DEPLOYMENT)
        self._server = server
        self._seconds = seconds
        self.changes = 0  # of the number of workers

    def run(self, load: Load) -> Tally:
        """The server serves the model already."""
        self._scale()
        return run_crowd(load, self._watch)

    def _watch(self) -> None:
        beat = max(self._seconds / BEATS, SHORTEST_BEAT)
        begin = time.monotonic()
        for turn in range(1, int(self._seconds / beat)):
            time.sleep(max(0.0, begin + turn * beat - time.monotonic()))
            self.footprints.append(take_footprint(self._server.tree, time.monotonic() - begin))
            self._disturb(turn)

    def _disturb(self, turn: int) -> None:
        """Kills and changes of the number of workers lie as far apart as they can."""
        if turn % KILL_EVERY == KILL_EVERY // 2:
            self.killer.kill_one()
        if turn % SCALE_EVERY == 0:
            wait_for_workers(self._server, DEPLOYMENT, self._workers)
            self.changes += 1
            self._scale()

    @property
    def _workers(self) -> int:
        return WORKERS + self.changes % 2

    def _scale(self) -> None:
        self._server.scale(DEPLOYMENT, self._workers)
        wait_for_workers(self._server, DEPLOYMENT, self._workers)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description="Load modelserver for a long time.")
    parser.add_argument("--minutes", type=float, default=WHOLE, help=f"the page takes no less than {WHOLE:g}")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--body-size", type=int, default=1_000_000, metavar="BYTES")
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"), metavar="DIR", help="logs and results")
    return parser.parse_args(arguments)


def command_line(options: argparse.Namespace) -> str:
    """The command that repeats the run."""
    words = ["python -m benchmarks.soak", f"--minutes {options.minutes:g}", f"--clients {options.clients}"]
    return " ".join([*words, f"--body-size {options.body_size}"])


def make_load(options: argparse.Namespace, url: str) -> Load:
    return Load(
        url,
        options.clients,
        options.minutes * 60,
        LENGTH.mime,
        LENGTH.body,
        str(options.body_size),
        copies=options.body_size,
        pause=PAUSE,
        vanishing=DESERTERS,
    )


def soak(options: argparse.Namespace, directory: Path) -> SoakReport:
    """Start a server, soak it, stop it."""
    machine = describe_machine()
    contender = find(MODELSERVER, Archives(options.cache / "model_store"), options.cache, None)
    assert contender.launch_rest is not None
    server = contender.launch_rest(directory)
    try:
        server.start()
        server.deploy(DEPLOYMENT)
        load = make_load(options, server.url(DEPLOYMENT))
        soaking = Soak(server, load.seconds)
        tally = soaking.run(load)
    finally:
        server.stop()
    return SoakReport(
        date.today(),
        command_line(options),
        machine,
        contender.version,
        load,
        tally,
        soaking.killer.kills,
        soaking.changes,
        soaking.footprints,
    )


def write(report: SoakReport, directory: Path, page: Path | None) -> None:
    """Results into the directory, and onto the performance page where one is given."""
    (directory / "soak.json").write_text(report.as_json() + "\n")
    (directory / "soak.md").write_text(report.as_markdown("soak.png"))
    draw_footprints(report.footprints, directory / "soak.png")
    if page:
        for name in ("soak.json", "soak.png"):
            shutil.copyfile(directory / name, page.with_name(name))
        write_page(page, report.as_markdown("soak.png"), MARKS)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    options.cache = options.cache.absolute()
    directory = options.cache / "run" / "soak"
    shutil.rmtree(directory, ignore_errors=True)
    try:
        report = soak(options, directory)
    except (CallFailed, CrowdFailed, NotInTime, Unreachable, psutil.NoSuchProcess) as error:
        print(f"the soak ended early, see {directory}: {error}", file=sys.stderr)
        return 1
    page = PAGE if options.minutes >= WHOLE else None
    write(report, options.cache, page)
    say(report.as_markdown("soak.png"))
    say(f"written to {options.cache}" + (f" and {PAGE}" if page else f"; {PAGE} takes only runs of {WHOLE:g} minutes"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
