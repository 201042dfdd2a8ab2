"""A plain HTTP client for the calls around the load: one connection per call, every status an answer."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

CALL_LIMIT = 120.0  # seconds


class Unreachable(Exception):
    """No complete HTTP answer came."""


class NotInTime(Exception):
    """What was polled for did not happen."""


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


# Environment variables may name a proxy; every server here is on this machine.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(
    method: str, url: str, body: bytes | None = None, mime: str = "", headers: Mapping[str, str] | None = None
) -> Answer:
    """Raises Unreachable."""
    sent = {**({"Content-Type": mime} if mime else {}), **(headers or {})}
    request = urllib.request.Request(url, data=body, headers=sent, method=method)
    try:
        try:
            with _opener.open(request, timeout=CALL_LIMIT) as response:
                return Answer(response.status, response.read())
        except urllib.error.HTTPError as refusal:
            with refusal:
                return Answer(refusal.code, refusal.read())
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"{method} {url}: {error}") from error


def poll(done: Callable[[], bool], what: str, *, interval: float, limit: float = CALL_LIMIT) -> None:
    """Ask until `done`; Unreachable counts as not yet. Times in seconds. Raises NotInTime."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        try:
            if done():
                return
        except Unreachable:
            pass
        time.sleep(interval)
    raise NotInTime(f"{what}: not within {limit:.0f} s")
