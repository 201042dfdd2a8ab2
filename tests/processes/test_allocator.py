"""Memory that a batch has freed serves the next one."""

from __future__ import annotations

import platform
import resource
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other ways")

_REQUESTS, _SIZE = 12, 1 << 20  # of a batch; bytes
_BATCHES = 10
_PAGES = _REQUESTS * _SIZE // resource.getpagesize()  # of a batch
_PROGRAM = (
    """
import resource, sys
from modelserver.allocator import keep_freed_memory
keep_freed_memory({name: "1" for name in sys.argv[1:]})
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def batch():
    return len([bytearray(b"x") * SIZE for _ in range(REQUESTS)])
batch(), batch()
before = faults()
for _ in range(BATCHES):
    batch()
print(faults() - before)
""".replace("SIZE", str(_SIZE))
    .replace("REQUESTS", str(_REQUESTS))
    .replace("BATCHES", str(_BATCHES))
)


def pages_cleared(*variables: str) -> int:
    """Pages that a new process has got from the kernel for some batches, with these variables set."""
    command = [sys.executable, "-c", _PROGRAM, *variables]
    return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def test_the_memory_of_a_batch_serves_the_next_one() -> None:
    assert pages_cleared() < _PAGES


def test_what_was_kept_can_be_given_back() -> None:
    program = _PROGRAM.replace("import keep_freed_memory", "import give_freed_memory_back, keep_freed_memory")
    program += "give_freed_memory_back()\nbefore = faults()\nbatch()\nprint(faults() - before)\n"
    command = [sys.executable, "-c", program]
    kept, given = map(int, subprocess.run(command, capture_output=True, check=True, timeout=60).stdout.split())
    assert kept < _PAGES
    assert given > _PAGES // 2


@pytest.mark.parametrize("variable", ["MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"])
def test_who_has_decided_otherwise_is_obeyed(variable: str) -> None:
    assert pages_cleared(variable) > _BATCHES * _PAGES // 2
