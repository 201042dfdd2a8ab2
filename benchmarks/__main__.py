"""Run the comparison and write it down. `python -m benchmarks --help` names the options."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

from benchmarks.archives import Archives
from benchmarks.client import NotInTime, Unreachable
from benchmarks.contenders import TITLES, Contender, find
from benchmarks.figures import Samples
from benchmarks.grpc_load import GrpcBench
from benchmarks.kills import KillBench
from benchmarks.kserve import KserveBench
from benchmarks.lifecycle import measure_lifecycle
from benchmarks.load import LoadBench
from benchmarks.logs import LogBench
from benchmarks.machine import describe_machine
from benchmarks.plan import FULL, QUICK, Plan
from benchmarks.plot import draw
from benchmarks.refusals import RefusalBench
from benchmarks.report import Report, target_table, write_page
from benchmarks.scrapes import ScrapeBench
from benchmarks.servers import CallFailed
from benchmarks.targets import TRITON, judge
from benchmarks.torchserve import Unavailable
from benchmarks.weights import WeightBench
from benchmarks.workbench import CodecBench

LIFECYCLE = "lifecycle"
KILLS = "kills"
REFUSALS = "refused"
GRPC = "grpc"
HANDLERS = "handlers"
LOGGING = "logging"
SCRAPES = "scrape"
KSERVE = "kserve"
NAMES = f"`{SCRAPES}`, `{LIFECYCLE}`, `{KILLS}`, `{REFUSALS}`, `{GRPC}`, `{KSERVE}`, `{LOGGING}`, or `{HANDLERS}`"
PAGE = Path("docs/performance.md")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Compare modelserver with TorchServe.")
    parser.add_argument("--quick", action="store_true", help="few points, short runs: does everything work?")
    parser.add_argument("--rounds", type=int, metavar="N", help="runs per point and server")
    parser.add_argument("--duration", type=int, metavar="SECONDS", help="length of one run")
    parser.add_argument("--servers", type=lambda text: text.split(","), default=list(TITLES), help=",".join(TITLES))
    parser.add_argument("--only", metavar="TEXT", help="points whose name holds it (`noop b1 c32`), or " + NAMES)
    parser.add_argument("--torchserve-env", type=Path, metavar="DIR", help="a virtual environment with TorchServe")
    parser.add_argument("--cache", type=Path, default=Path(".cache/bench"), metavar="DIR", help="logs and results")
    options = parser.parse_args(arguments)
    if unknown := set(options.servers) - TITLES.keys():
        parser.error(f"unknown servers: {', '.join(sorted(unknown))}")
    return options


def make_plan(options: argparse.Namespace) -> Plan:
    plan = QUICK if options.quick else FULL
    if options.only:
        plan = replace(plan, points=tuple(point for point in plan.points if options.only in point.key))
    return replace(plan, rounds=options.rounds or plan.rounds, duration=options.duration or plan.duration)


def find_contenders(options: argparse.Namespace, archives: Archives) -> tuple[list[Contender], dict[str, str]]:
    """Those that can run here, and why the others cannot."""
    found, missing = [], {}
    for name in options.servers:
        try:
            found.append(find(name, archives, options.cache, options.torchserve_env))
        except Unavailable as reason:
            missing[name] = str(reason)
            say(f"{TITLES[name]} is left out: {reason}")
    return found, missing


def measure_lifecycles(contenders: Sequence[Contender], plan: Plan, directory: Path, samples: Samples) -> None:
    for turn in range(plan.rounds):
        for contender in contenders:
            if contender.launch_rest is None:
                continue
            when = f"lifecycle, round {turn + 1}"
            say(f"{when}: {contender.title}")
            server = contender.launch_rest(directory / f"{contender.name}-lifecycle-{turn + 1}")
            try:
                measure_lifecycle(contender.name, server, plan.idle, samples)
            except (CallFailed, NotInTime, Unreachable) as error:
                samples.discard(contender.title, when, str(error))


def command_line(options: argparse.Namespace, plan: Plan) -> str:
    """The command that repeats the run; options that only name places are left out."""
    words = ["python -m benchmarks", f"--rounds {plan.rounds}", f"--duration {plan.duration}"]
    if options.quick:
        words.append("--quick")
    if options.only:
        words.append(f"--only '{options.only}'")
    if options.servers != list(TITLES):
        words.append(f"--servers {','.join(options.servers)}")
    return " ".join(words)


def write(report: Report, directory: Path, page: Path | None) -> None:
    """Results into the directory, and onto the performance page where one is given."""
    summary = report.samples.summary()
    (directory / "results.json").write_text(report.as_json() + "\n")
    (directory / "results.md").write_text(report.as_markdown("results.png"))
    titles = {server: report.titles[server] for server in report.versions}
    draw(summary, report.plan.points, titles, directory / "results.png")
    if page:
        for suffix in (".json", ".png"):
            shutil.copyfile(directory / f"results{suffix}", page.with_suffix(suffix))
        write_page(page, report.as_markdown(page.with_suffix(".png").name))


def say(line: str) -> None:
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if shutil.which("wrk") is None:
        print("the load generator `wrk` is not installed", file=sys.stderr)
        return 1
    options.cache = options.cache.absolute()
    runs = options.cache / "run"
    shutil.rmtree(runs, ignore_errors=True)
    runs.mkdir(parents=True)

    machine = describe_machine()
    plan = make_plan(options)
    contenders, missing = find_contenders(options, Archives(options.cache / "model_store"))
    samples = Samples()
    if plan.points:
        loaded = [contender for contender in contenders if contender.launch is not None]
        LoadBench(loaded, plan, runs, samples, say).run()
    if options.only in (None, LIFECYCLE):
        measure_lifecycles(contenders, plan, runs, samples)
    if options.only in (None, KILLS):
        KillBench(contenders, plan, runs, samples, say).run()
    if options.only in (None, REFUSALS):
        RefusalBench(contenders, plan, runs, samples, say).run()
    if options.only in (None, GRPC):
        GrpcBench(contenders, plan, runs, samples, say).run()
    if options.only in (None, KSERVE):
        KserveBench(contenders, plan, runs, samples, say).run()
    if options.only in (None, SCRAPES):
        ScrapeBench(contenders, plan, runs, samples, say).run()
    if options.only in (None, LOGGING):
        LogBench(contenders, plan, runs, samples, say).run()
    if options.only in (None, HANDLERS):
        CodecBench(contenders, plan, runs, samples, say).run()
        WeightBench(contenders, plan, runs, samples, say).run()

    versions = {contender.name: contender.version for contender in contenders}
    command = command_line(options, plan)
    report = Report(date.today(), command, machine, TITLES, versions, missing, plan, samples)
    expected = len(TITLES) - (TRITON in missing)  # which comes for few machines
    whole = not options.quick and not options.only and len(contenders) == expected
    write(report, options.cache, PAGE if whole else None)
    say(target_table(judge(samples.summary()), TITLES))
    say(f"written to {options.cache}" + (f" and {PAGE}" if whole else f"; {PAGE} takes only whole runs"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
