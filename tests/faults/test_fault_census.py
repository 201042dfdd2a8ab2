"""The census itself: it notices what is there more, and what is there less."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from fault_stage import stage

from harness.leaks import Census, assert_settles
from harness.server import eventually


def test_a_census_notices_every_kind_of_leak(tmp_path: Path) -> None:
    with stage(tmp_path) as server:
        before = Census.of(server)
        address = urlsplit(server.url())
        segment = Path("/dev/shm", f"modelserver-test-{secrets.token_hex(8)}")
        with socket.create_connection((address.hostname or "", address.port or 0)):
            (server.temp / "left").touch()
            segment.touch()
            try:
                changes = eventually(lambda: changes if (changes := seen(before, Census.of(server))) else {})
                with pytest.raises(AssertionError, match="left"):
                    assert_settles(server, before, within=0)
            finally:
                segment.unlink()
                (server.temp / "left").unlink()
        assert changes == {"frontend": {"socket": 1}, "files": {"left": 1}, "segments": {segment.name: 1}}
        assert_settles(server, before)
        psutil.Process(server.ready_workers("bystander")[0]["pid"]).suspend()
        assert_settles(server, before)
        server.scale("bystander", 0)
        assert min(before.changes(Census.of(server))["processes"].values()) == -1


def seen(before: Census, after: Census) -> dict[str, dict[str, int]]:
    """The changes, once the frontend has accepted."""
    changes: dict[str, dict[str, int]] = before.changes(after)
    return changes if "frontend" in changes else {}
