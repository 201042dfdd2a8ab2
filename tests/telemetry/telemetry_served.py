"""A telemetry under test: fixed clock, fixed host, directories of its own, standard output in memory."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

from modelserver.settings.table import Settings
from modelserver.telemetry.clock import Clock
from modelserver.telemetry.ring import Ring
from modelserver.telemetry.telemetry import Telemetry
from modelserver.wire.frames import Metric

NOON = 1795176000.0  # 2026-11-20T12:00:00 UTC
DATE = "2026-11-20T12:00:00"
WORKER = "W-9000-probe_1.0"


class Hands:
    """A clock that only the test moves; monotonic zero is noon."""

    def __init__(self, wall: float = NOON) -> None:
        self.monotonic = 0.0
        self._start = wall
        self.set = 0.0  # seconds by which somebody has set the wall clock

    def clock(self) -> Clock:
        return Clock(lambda: self.monotonic, lambda: self._start + self.monotonic + self.set, time.gmtime)


class Served:
    """One started telemetry and what it has written."""

    def __init__(
        self,
        path: Path,
        stdout: BinaryIO | None = None,
        hands: Hands | None = None,
        ring: Ring | None = None,
        **settings: Any,
    ) -> None:
        self.hands = hands or Hands()
        self.memory = io.BytesIO()
        self.path = path
        places = {"log_location": path / "logs", "metrics_location": path / "logs"}
        self.telemetry = Telemetry(
            Settings(**{**places, **settings}), stdout or self.memory, self.hands.clock(), "node1", ring
        )

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_: object) -> None:
        self.telemetry.close()

    def stdout(self) -> list[str]:
        """Lines of standard output without the one about the metric definitions."""
        self.telemetry.flush()
        lines = self.memory.getvalue().decode().splitlines()
        return [line for line in lines if "Successfully loaded metrics configuration" not in line]

    def file(self, name: str) -> list[str]:
        """Lines of one log file."""
        self.telemetry.flush()
        lines = (self.path / "logs" / f"{name}.log").read_text().splitlines()
        return [line for line in lines if "Successfully loaded metrics configuration" not in line]

    def scrape(self, *names: str) -> str:
        """The Prometheus text."""
        return asyncio.run(self.telemetry.scrape(names)).decode()

    def batch(self, *ids: str, metrics: Sequence[Metric] = (), replied: float = 0.1875) -> None:
        """A batch sent at 0.125 s, replied to at 0.1875 s and done with at 0.25 s."""
        self.hands.monotonic = 0.25
        self.telemetry.batch_done(WORKER, "probe", list(ids), 0.125, replied, metrics, replied > 0)

    def predict(self, request_id: str = "id-1", status: int = 200, ok: bool = True, label: str = "default") -> None:
        """A prediction received at 0 s, sent at 0.125 s, replied to at 0.1875 s, answered at 0.25 s."""
        self.telemetry.request_done(
            "/127.0.0.1:43288", "POST", "/predictions/probe", "HTTP/1.1", status, 0.0, 0.25,
            WORKER, "probe", label, request_id, 0.125, 0.1875, ok,
        )  # fmt: skip

    def get(self, target: str = "/ping", status: int = 200) -> None:
        """A request that is no prediction."""
        self.telemetry.request_done("/127.0.0.1:41008", "GET", target, "HTTP/1.1", status, 0.0, 0.0625)


def prediction_time(ids: str = "id-1", value: float = 0.35) -> Metric:
    """What a worker reports for every batch."""
    return Metric("PredictionTime", "ms", value, [("ModelName", "probe"), ("Level", "Model")], "GAUGE", ids)
