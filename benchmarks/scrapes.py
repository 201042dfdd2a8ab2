"""How long a scrape of many models takes, and how long it keeps others waiting."""

from __future__ import annotations

import http.client
import statistics
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.client import call
from benchmarks.contenders import Contender
from benchmarks.figures import SCRAPE, SCRAPE_SIZE, SCRAPE_STALL
from benchmarks.plan import NOOP, SCRAPED_MODELS, SCRAPES, Deployment
from benchmarks.series import Series
from benchmarks.servers import RestServer, expect_ok

INTERVAL = 0.05  # seconds between two scrapes


class ScrapeBench(Series[RestServer]):
    """A server that has served many models, one at a time: what they leave in its metrics stays."""

    what = "scrapes"

    def _launch(self, contender: Contender, directory: Path) -> RestServer | None:
        return contender.launch_scraped(directory) if contender.launch_scraped is not None else None

    def _run(self, contender: Contender, server: RestServer) -> None:
        self._say(f"start {contender.title}, with {SCRAPED_MODELS} models")
        server.start()
        for number in range(SCRAPED_MODELS):
            use(server, f"model{number}")
        server.tree.settle()
        for turn in range(self._plan.rounds):
            took, size, stall = measure(server)
            for figure, value in ((SCRAPE, took * 1e3), (SCRAPE_SIZE, size / 1e6), (SCRAPE_STALL, stall * 1e3)):
                self._samples.add(contender.name, figure, value)
            self._say(
                f"scrapes, round {turn + 1}: {contender.title}: {took * 1e3:.1f} ms, slow pings {stall * 1e3:.1f} ms"
            )


def use(server: RestServer, model: str) -> None:
    """One prediction by a worker of its own, which ends then."""
    deployment = Deployment(NOOP, 1)
    server.register(deployment, model)
    expect_ok(call("POST", server.url_of(model), NOOP.body.encode(), NOOP.mime), f"predict {model}")
    server.unregister(model)


def measure(server: RestServer) -> tuple[float, int, float]:
    """Seconds of a scrape (median), its bytes, and seconds of slow pings meanwhile."""
    times, size = [], 0
    with Pinger(server.ping_url) as pinger:
        for _ in range(SCRAPES):
            begin = time.perf_counter()
            size = len(expect_ok(call("GET", server.metrics_url), "scrape").body)
            times.append(time.perf_counter() - begin)
            time.sleep(INTERVAL)
    return statistics.median(times), size, pinger.slow


class Pinger:
    """A client that asks for the health of a server again and again, on one connection."""

    def __init__(self, url: str) -> None:
        self._times: list[float] = []
        self._address = urlsplit(url)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Pinger:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    @property
    def slow(self) -> float:
        """Seconds that one ping in a thousand exceeds. Some ten thousand fit in: if every other scrape held them up
        once, this would show, and what the machine does to a single one does not.
        """
        return statistics.quantiles(self._times, n=1000)[-1]

    def _run(self) -> None:
        connection = http.client.HTTPConnection(self._address.netloc, timeout=10)
        try:
            while not self._over.is_set():
                begin = time.perf_counter()
                connection.request("GET", self._address.path)
                connection.getresponse().read()
                self._times.append(time.perf_counter() - begin)
        finally:
            connection.close()
