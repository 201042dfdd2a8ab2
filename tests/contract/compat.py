"""The tests of the contract, run against TorchServe. `make compat` starts it; `--help` names the options."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import psutil

from benchmarks.torchserve import TORCHSERVE_VERSION, Unavailable, has_java, prepare_packages, prepare_torchserve
from contract.differences import DIFFERENCES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache"
PASSED, FAILED = 0, 1  # exit statuses of pytest that mean that it ran the tests
WITHOUT_SERVER = ("test_*_table", "test_contract_differences")  # modules of tests
RECORDINGS = (
    "test_rest_conversation.py",
    "test_handler_gallery.py",
    "test_kserve_gallery.py",
)  # modules that record TorchServe's answers
PACKAGES = ("transformers", "onnxruntime")  # that handlers of the gallery import
WORKERS = 2  # servers at a time: each starts a JVM, and its workers import torch


@dataclass(frozen=True)
class Outcome:
    """What became of a test."""

    test: str
    result: str  # "passed", "failed" or "skipped"
    difference: str = ""  # that it proves


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make compat", description="Run the tests of the contract against TorchServe."
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--differences", action="store_true", help="run what TorchServe should fail, list what passes")
    what.add_argument("--refresh", action="store_true", help="record the answers anew, and nothing else")
    parser.add_argument("--only", metavar="EXPRESSION", help="tests whose names match, as in pytest -k")
    parser.add_argument("--torchserve-env", type=Path, metavar="DIR", help="a virtual environment with TorchServe")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 if TorchServe did what was expected of it, or cannot run here for want of Java."""
    options = parse(arguments)
    if not has_java():
        print("Compatibility is not checked: TorchServe needs Java, and there is none on this machine.")
        return 0
    try:
        executable = prepare_torchserve(CACHE / "bench" / "torchserve", options.torchserve_env)
        packages = prepare_packages(executable, CACHE / "bench" / "torchserve-handlers", PACKAGES)
    except Unavailable as reason:
        print(f"Compatibility cannot be checked: TorchServe {reason}")
        return 1
    print(f"Running the tests of the contract against TorchServe {TORCHSERVE_VERSION} ({executable}).", flush=True)
    with tempfile.TemporaryDirectory(prefix="compat-") as directory:
        try:
            status, outcomes = run_tests(options, executable, packages, Path(directory))
        finally:
            end_servers(directory)
    if status not in (PASSED, FAILED):
        return status  # pytest has said why there is nothing to compare
    return summarize_differences(outcomes) if options.differences else summarize(outcomes, status)


def run_tests(
    options: argparse.Namespace, executable: Path, packages: Path, directory: Path
) -> tuple[int, list[Outcome]]:
    """pytest's exit status, and what became of every test."""
    report = directory / "report.xml"
    tests = [str(HERE / name) for name in RECORDINGS] if options.refresh else [str(HERE)]
    command = [sys.executable, "-m", "pytest", *tests, "-q", "--basetemp", str(directory / "tests")]
    command += ["-n", str(WORKERS), "--dist", "loadfile", "--timeout", "180", "--junitxml", str(report)]
    command += ["--no-summary", "--tb", "no"] if options.differences else ["--tb", "short"]
    command += [f"--ignore-glob=*/{name}.py" for name in WITHOUT_SERVER]
    command += ["-k", options.only] if options.only else []
    environment = {**os.environ, **_orders(options), "CONTRACT_TORCHSERVE": str(executable)}
    environment["CONTRACT_PACKAGES"] = str(packages)
    status = subprocess.run(command, cwd=ROOT, env=environment).returncode
    return status, list(read_outcomes(report)) if report.exists() else []


def end_servers(directory: str) -> None:
    """Kill what tests that failed have left running: everything whose command names this run's own directory."""
    for process in psutil.process_iter(["cmdline"]):
        if any(directory in word for word in process.info["cmdline"] or ()):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def _orders(options: argparse.Namespace) -> Mapping[str, str]:
    """What the tests are told by variables."""
    wanted = {"CONTRACT_DIFFERENCES": options.differences, "CONTRACT_REFRESH": options.refresh}
    return {name: "1" for name, is_wanted in wanted.items() if is_wanted}


def read_outcomes(report: Path) -> Iterator[Outcome]:
    """Tests of a JUnit report."""
    for case in ElementTree.parse(report).iter("testcase"):
        tags = {child.tag for child in case}
        result = "failed" if tags & {"failure", "error"} else "skipped" if "skipped" in tags else "passed"
        difference = case.find("properties/property[@name='difference']")
        proved = "" if difference is None else difference.get("value", "")
        yield Outcome(f"{case.get('classname')}::{case.get('name')}", result, proved)


def tests(outcomes: Sequence[Outcome], result: str) -> list[str]:
    """Those with this result."""
    return sorted(outcome.test for outcome in outcomes if outcome.result == result)


def summarize(outcomes: Sequence[Outcome], status: int) -> int:
    """Say what TorchServe fails although it is no decided difference."""
    passed, failed, skipped = (tests(outcomes, result) for result in ("passed", "failed", "skipped"))
    print(f"\nTorchServe: {len(passed)} as modelserver, {len(failed)} otherwise though nobody decided so,")
    print(f"{len(skipped)} not run: modelserver does otherwise by decision, or more (docs/compatibility.md).")
    for test in failed:
        print(f"  otherwise: {test}")
    return status


def summarize_differences(outcomes: Sequence[Outcome]) -> int:
    """Say which decided differences are none, and which are a matter of luck and were none this time."""
    proofs = [outcome for outcome in outcomes if outcome.difference]
    lucky = [proof for proof in proofs if not DIFFERENCES[proof.difference].always]
    wrong = tests([proof for proof in proofs if proof not in lucky], "passed")
    print(f"\nTorchServe fails {len(tests(proofs, 'failed'))} tests of decided differences, as it should.")
    for test in tests(lucky, "passed"):
        print(f"  passes by luck: {test}")
    for test in wrong:
        print(f"  passes, so the mark is wrong: {test}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
