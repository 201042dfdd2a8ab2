"""`modelserver run-handler` with handlers whose requests go on in steps."""

from __future__ import annotations

import subprocess
from pathlib import Path

from harness.archives import pack
from harness.server import MODELSERVER

COUNTER = """
class Counter:
    def initialize(self, context):
        self.left = {}

    def handle(self, data, context):
        ids = [context.get_request_id(index) for index in range(len(data))]
        for id, row in zip(ids, data):
            self.left[id] = int(row["body"]) if row else self.left[id] - 1
        context.stopping_criteria = [self.criterion(id, bool(row)) for id, row in zip(ids, data)]
        return [str(self.left[id]) for id in ids]

    def criterion(self, id, fresh):
        left = self.left[id]
        return lambda _: None if fresh and left < 2 else left < 2
"""


def test_each_batch_is_run_until_none_of_its_requests_goes_on(tmp_path: Path) -> None:
    pack(tmp_path, "counter", COUNTER, config="continuousBatching: true\n")
    for name, number in (("three", 3), ("one", 1)):
        (tmp_path / f"{name}.txt").write_text(str(number))
    command = [str(MODELSERVER), "run-handler", "counter.mar", "--input", "three.txt", "one.txt", "--output", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    heads = [line for line in done.stdout.splitlines() if line.startswith("---")]
    assert heads == [
        "--- three.txt: 200 (piece)",
        "--- one.txt: 200",
        "--- three.txt: 200 (piece)",
        "--- three.txt: 200 (last piece)",
    ]
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {
        "1-1-three.txt.body": "321",
        "1-2-one.txt.body": "1",
    }
