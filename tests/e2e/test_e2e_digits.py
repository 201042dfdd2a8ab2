"""The README's example for real: trained and packed by the Makefile, served, and asked what curl would ask."""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from harness.server import ServerProcess, eventually
from harness.system import needs, outside_make

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs" / "examples" / "digits"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

pytestmark = needs("make")


def make(directory: Path, target: str) -> list[str]:
    """The command that makes a target of the Makefile in a directory, with this interpreter's environment as it is."""
    venv = Path(sys.executable).parents[1]
    return ["make", "-C", str(ROOT), f"--old-file={venv}/installed", f"VENV={venv}", f"DIGITS={directory}", target]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """digits.mar, trained and packed by the Makefile: once, however many processes share the tests of this run."""
    root = tmp_path_factory.getbasetemp()
    directory = (root.parent if "PYTEST_XDIST_WORKER" in os.environ else root) / "digits"
    directory.mkdir(exist_ok=True)
    target = directory / "store" / "digits.mar"
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = subprocess.run(
            make(directory, str(target)),
            env=outside_make(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    assert made.returncode == 0, made.stdout
    return target


@pytest.fixture(scope="module")
def server(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = {"default_workers_per_model": 2}
    server = ServerProcess(tmp_path_factory.mktemp("serving"), models=["digits=digits.mar"], config=config, torch=True)
    shutil.copy(archive, server.store)
    with server:
        eventually(lambda: len(server.ready_workers("digits")) == 2)
        yield server


def picture(digit: int) -> bytes:
    return (PICTURES / f"{digit}.png").read_bytes()


def ask(server: ServerProcess, body: bytes, content_type: str | None = None) -> httpx.Response:
    """What `curl -T` sends: a PUT without a content type, unless one is given."""
    headers = {} if content_type is None else {"content-type": content_type}
    return server.request("PUT", "/predictions/digits", content=body, headers=headers)


def test_the_readme_request(server: ServerProcess) -> None:
    answer = ask(server, picture(7))
    assert answer.status_code == 200
    shares = answer.json()
    assert next(iter(shares)) == "seven"
    assert shares["seven"] > 0.9
    assert len(shares) == 3 and set(shares) < set(NAMES)
    assert list(shares.values()) == sorted(shares.values(), reverse=True)
    assert sum(shares.values()) <= 1.0001
    assert answer.text.startswith('{\n  "seven": 0.'), "indented, as TorchServe does it"


@needs("curl")
def test_the_readme_command(server: ServerProcess) -> None:
    command = ["curl", "--silent", "--fail", f"{server.url()}/predictions/digits", "-T", str(PICTURES / "7.png")]
    asked = subprocess.run(command, capture_output=True, text=True)
    assert (asked.returncode, asked.stdout) == (0, ask(server, picture(7)).text)


def test_make_serve(archive: Path, tmp_path: Path) -> None:
    environment = {"TS_CONFIG_FILE": str(tmp_path / "config.properties"), "MAKEFLAGS": ""}
    server = ServerProcess(tmp_path, environment=environment)
    server.command = make(archive.parents[1], "serve")
    with server:
        command = "curl http://127.0.0.1:8080/predictions/digits -T docs/examples/digits/7.png"
        assert f"Try: {command}" in server.lines
        assert f"```sh\n{command}\n```" in (ROOT / "README.md").read_text()
        assert next(iter(ask(server, picture(7)).json())) == "seven"
        assert server.launch("--stop", "--foreground").returncode == 0
        assert server.wait() == 0
    assert "train.py" not in server.output, "an archive newer than its sources is not made again"


@pytest.mark.parametrize("digit", range(10))
def test_every_committed_picture(server: ServerProcess, digit: int) -> None:
    answer = ask(server, picture(digit))
    assert answer.status_code == 200
    assert next(iter(answer.json())) == NAMES[digit]


def test_other_forms_of_the_same_picture(server: ServerProcess) -> None:
    expected = ask(server, picture(7)).json()
    assert ask(server, base64.b64encode(picture(7)), "text/plain").json() == expected
    assert ask(server, picture(7), "image/png").json() == expected
    form = {"data": ("7.png", picture(7), "image/png")}
    assert server.request("POST", "/predictions/digits", files=form).json() == expected


def test_the_description(server: ServerProcess) -> None:
    described = server.describe("digits")
    expected = {
        "modelName": "digits",
        "modelVersion": "1.0",
        "modelUrl": "digits.mar",
        "runtime": "python",
        "batchSize": 1,
        "loadedAtStartup": True,
    }
    assert {name: described[name] for name in expected} == expected
    assert [worker["status"] for worker in described["workers"]] == ["READY", "READY"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"not a picture", None),
        (picture(7)[:60], None),
        (b"not base64", "text/plain"),
        (b'{"a": "mapping"}', "application/json"),
    ],
    ids=["text", "truncated", "base64", "mapping"],
)
def test_what_is_no_picture_is_refused_and_the_workers_live_on(
    server: ServerProcess, body: bytes, content_type: str | None
) -> None:
    before = {worker["pid"] for worker in server.ready_workers("digits")}
    answer = ask(server, body, content_type)
    assert answer.status_code == 503
    assert {name: answer.json()[name] for name in ("code", "type", "message")} == {
        "code": 503,
        "type": "InternalServerException",
        "message": "Prediction failed",
    }
    assert next(iter(ask(server, picture(7)).json())) == "seven"
    assert {worker["pid"] for worker in server.ready_workers("digits")} == before


def test_both_workers_answer_alike(server: ServerProcess) -> None:
    workers = [psutil.Process(worker["pid"]) for worker in server.ready_workers("digits")]

    def waits() -> list[int]:
        """How often each worker has fallen asleep: one that gets no work does not move."""
        return [worker.num_ctx_switches().voluntary for worker in workers]

    before = waits()
    answers: set[str] = set()

    def both_have_worked() -> bool:
        answers.update(answer.text for answer in clients.map(lambda _: ask(server, picture(7)), range(8)))
        return all(now > then for now, then in zip(waits(), before, strict=True))

    with ThreadPoolExecutor(8) as clients:
        eventually(both_have_worked)
    assert len(answers) == 1
