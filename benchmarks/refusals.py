"""What a refused request costs beside a served one: both on connections of their own, since a refusal ends its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.figures import REFUSED, SERVED, cost_of
from benchmarks.plan import MAX_BODY, NOOP, Deployment
from benchmarks.series import Series
from benchmarks.servers import CallFailed, RestServer
from benchmarks.wrk import WrkReport, run_wrk, write_script

DEPLOYMENT = Deployment(NOOP, 1)
CLIENTS = 32


@dataclass(frozen=True)
class Request:
    """One kind of request: `name` is its figure, the rest is what makes it different from the served one."""

    name: str
    model: str = DEPLOYMENT.model
    key: str | None = None  # None: the right one
    body: str = NOOP.body

    def is_answered(self, report: WrkReport) -> bool:
        """Whether all of them were served, or all refused."""
        bad = 0 if self.name == SERVED else report.requests
        return report.requests > 0 and (report.bad_statuses, report.socket_errors) == (bad, 0)


SERVED_ONE = Request(SERVED)
UNKNOWN_MODEL, BAD_KEY, TOO_LARGE = REFUSED
REFUSED_ONES = (
    Request(UNKNOWN_MODEL, model="unknown"),
    Request(BAD_KEY, key="wrongkey"),
    Request(TOO_LARGE, body="x" * (MAX_BODY + 1)),
)


class RefusalBench(Series[RestServer]):
    """Servers that ask for keys; every kind of request in turn, so that noise treats all alike."""

    what = "refusals"

    def _launch(self, contender: Contender, directory: Path) -> RestServer | None:
        return contender.launch_guarded(directory) if contender.launch_guarded is not None else None

    def _run(self, contender: Contender, server: RestServer) -> None:
        self._say(f"start {contender.title}, with keys")
        server.start()
        server.deploy(DEPLOYMENT)
        for request in (SERVED_ONE, *REFUSED_ONES):
            self._load(server, request, self._plan.warm_up)
        for turn in range(self._plan.rounds):
            costs = {each.name: self._cost(server, each) for each in (SERVED_ONE, *REFUSED_ONES)}
            for figure, value in refusal_figures(costs).items():
                self._samples.add(contender.name, figure, value)
            told = ", ".join(f"{name} {cost:.0f} µs" for name, cost in costs.items())
            self._say(f"refusals, round {turn + 1}: {contender.title}: {told}")

    def _cost(self, server: RestServer, request: Request) -> float:
        """Microseconds of processor time of the whole server for one request."""
        before = server.tree.cpu()
        report = self._load(server, request, self._plan.duration)
        return (server.tree.cpu() - before) / report.requests * 1e6

    def _load(self, server: RestServer, request: Request, seconds: int) -> WrkReport:
        """Raises CallFailed if a single one was answered otherwise than it should be."""
        script = self._directory / f"{request.name.replace(' ', '-')}.lua"
        write_script(script, NOOP.mime, request.body, self._headers(server, request))
        report = run_wrk(server.url_of(request.model), CLIENTS, seconds, script).report
        if not request.is_answered(report):
            raise CallFailed(f"{request.name}: {report}")
        return report

    def _headers(self, server: RestServer, request: Request) -> dict[str, str]:
        key = server.authorization("inference") if request.key is None else {"Authorization": f"Bearer {request.key}"}
        return {"Connection": "close", **key}


def refusal_figures(costs: Mapping[str, float]) -> dict[str, float]:
    """What each kind costs, and the refused ones as shares of the served one."""
    shares = {name: costs[name] / costs[SERVED] for name in REFUSED}
    return {**{cost_of(name): cost for name, cost in costs.items()}, **shares}
