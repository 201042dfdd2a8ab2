"""`modelserver run-handler` with handlers that are coroutines."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.archives import pack
from harness.server import MODELSERVER

TELLER = """
import asyncio

from ts.handler_utils.utils import send_intermediate_predict_response


class Teller:
    def initialize(self, context):
        self.loop = asyncio.get_event_loop().run_until_complete(self.here())

    async def here(self):
        return asyncio.get_running_loop()

    async def handle(self, data, context):
        if data[0]["body"] == "fail":
            raise ValueError("no such thing")
        if data[0]["body"] == "stream":
            send_intermediate_predict_response(["piece"], context.request_ids, "", 200, context)
        await asyncio.sleep(0)
        return [str(await self.here() is self.loop)] * len(data)
"""


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory, with an archive and requests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    pack(directory, "teller", TELLER, config="asyncCommunication: true\n")
    for name in ("fine", "stream", "fail"):
        (directory / f"{name}.txt").write_text(name)


def run(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [str(MODELSERVER), "run-handler", "teller.mar", "--input", *arguments]
    return subprocess.run(command, input=typed, capture_output=True, text=True, timeout=60)


def test_each_batch_is_run_to_its_end() -> None:
    done = run("fine.txt", "stream.txt", "--batch-size", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("--- fine.txt: 200\nTrue\n")
    assert "piece" in done.stdout and done.stdout.endswith("True\n")


def test_the_debugger_where_a_coroutine_fails() -> None:
    done = run("fail.txt", "--pdb", typed="p data\nq\n")
    assert "ValueError: no such thing\n" in done.stdout
    assert "(Pdb) [{'body': 'fail'}]\n" in done.stdout
    assert done.returncode == 1
