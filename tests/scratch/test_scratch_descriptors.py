"""The frontend's descriptor limit, and what of it clients may take."""

from __future__ import annotations

import asyncio
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from modelserver.descriptors import Headroom, grpc_connections

ROOT = Path(__file__).parent.parent.parent


class Socket:
    def __init__(self, number: int) -> None:
        self.number = number

    def fileno(self) -> int:
        return self.number


class Connection(asyncio.BaseTransport):
    """A connection with a descriptor of a certain number."""

    def __init__(self, number: int) -> None:
        super().__init__({"socket": Socket(number)})


def limited(monkeypatch: pytest.MonkeyPatch, soft: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, soft))


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    code = """
import resource
from modelserver.descriptors import raise_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
print(raise_limit(), resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    printed = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True)
    assert printed == "(100, 200) (200, 200)\n"


@pytest.mark.parametrize(("limit", "last"), [(20_000, 14_935), (1024, 703), (256, 127), (100, 50), (16, 7)])
def test_some_descriptors_are_kept_back(monkeypatch: pytest.MonkeyPatch, limit: int, last: int) -> None:
    limited(monkeypatch, limit)
    reports: list[str] = []
    headroom = Headroom(reports.append)
    assert headroom.admits(Connection(last))
    assert reports == []
    assert not headroom.admits(Connection(last + 1))
    assert reports == [f"Too many connections for {limit} file descriptors: new ones are closed."]


@pytest.mark.parametrize(
    ("limit", "connections"), [(1 << 20, 131_072), (1024, 128), (4, 1), (resource.RLIM_INFINITY, None)]
)
def test_grpc_has_a_share_of_its_own(monkeypatch: pytest.MonkeyPatch, limit: int, connections: int | None) -> None:
    limited(monkeypatch, limit)
    assert grpc_connections() == connections


def test_it_is_said_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, 1024)
    reports: list[str] = []
    headroom = Headroom(reports.append)
    for _ in range(100):
        assert not headroom.admits(Connection(1000))
    assert len(reports) == 1


def test_no_limit_is_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, resource.RLIM_INFINITY)
    reports: list[Any] = []
    assert Headroom(reports.append).admits(Connection(100_000))
    assert reports == []
