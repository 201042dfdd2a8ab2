"""`make test-clients`: clients that others have written, each in an environment of its own, against our server."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache" / "clients"
PROGRAM = "CLIENTS_MODELSERVER"  # tells the tests which server to start
WRAPPER = "KSERVE_WRAPPER"  # where the folder of KServe's wrapper is, with the generated `inference_pb2.py`
HARNESS = ("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.120", "httpx>=0.26", "psutil>=5.9")


@dataclass(frozen=True)
class ClientSet:
    """Clients that can live in one environment, and the tests that need it."""

    name: str
    requirements: tuple[str, ...]
    tests: tuple[str, ...]
    needs: str = ""  # a variable of the environment, without which there is nothing to test

    @property
    def python(self) -> Path:
        """The interpreter that has them."""
        return CACHE / self.name / "bin" / "python"


SETS = (
    ClientSet("triton", ("tritonclient[http,grpc]>=2.73",), ("test_triton_http.py", "test_triton_grpc.py")),
    ClientSet(
        "kserve",
        ("kserve>=0.21", "pyyaml>=6.0"),
        ("test_kserve_sdk.py", "test_kserve_wrapper.py", "test_kserve_manifests.py"),
    ),
    ClientSet(
        "kserve-wrapper",  # the release of the SDK that the program was written for, and what it loads models with
        (
            *("kserve==0.13.0", "requests", "boto3", "google-cloud-storage"),
            *("azure-identity", "azure-storage-blob", "azure-storage-file-share"),
        ),
        ("test_kserve_wrapper.py",),
        needs=WRAPPER,
    ),
)


def prepare(client_set: ClientSet) -> None:
    """Make the environment unless it is there and of these requirements. Raises CalledProcessError."""
    folder = CACHE / client_set.name
    wanted = "\n".join((sys.version, *HARNESS, *client_set.requirements))
    stamp = folder / "installed"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    print(f"Installing {', '.join(client_set.requirements)} into {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    # -I: a PYTHONPATH would lend it packages.
    install = [str(client_set.python), "-I", "-m", "pip", "install", "--quiet", *HARNESS, *client_set.requirements]
    subprocess.run(install, check=True)
    stamp.write_text(wanted)


def run_tests(client_set: ClientSet, options: Sequence[str]) -> int:
    """The exit status of pytest in that environment."""
    paths = [str(HERE / test) for test in client_set.tests]
    # The archiver packs the models; everything else of ours is in the environment of the server alone.
    command = [str(client_set.python), "-m", "pytest", "-o", "pythonpath=tests archiver", *options, *paths]
    environment = {**os.environ, PROGRAM: str(Path(sys.executable).with_name("modelserver"))}
    environment.pop("PYTHONPATH", None)
    if not client_set.needs:
        environment.pop(WRAPPER, None)
    print(f"{client_set.name}: {' '.join(client_set.requirements)}", flush=True)
    return subprocess.run(command, cwd=ROOT, env=environment).returncode


def main() -> int:
    """1 if the tests of one of the sets fail."""
    parser = argparse.ArgumentParser(prog="python -m clients.environments", description=__doc__)
    parser.add_argument("--only", choices=[each.name for each in SETS], help="one set of clients")
    chosen, options = parser.parse_known_args()
    failed = []
    for client_set in (each for each in SETS if chosen.only in (None, each.name)):
        if client_set.needs and not os.environ.get(client_set.needs):
            print(f"{client_set.name}: skipped, {client_set.needs} is not set")
            continue
        prepare(client_set)
        failed += [client_set.name] if run_tests(client_set, options) else []
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
