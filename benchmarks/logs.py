"""What logging costs: predictions under load with the built-in logs, with few, and with all that there are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks.client import NotInTime, Unreachable, poll
from benchmarks.contenders import Contender
from benchmarks.figures import ACCESS_ONLY, BUILT_IN, EVERYTHING, P99, RATE, SERVER_CPU, Samples, log_figure
from benchmarks.load import Say
from benchmarks.plan import NOOP, Deployment, Plan
from benchmarks.servers import CallFailed, RestServer
from benchmarks.torchserve import write_access_log_config
from benchmarks.wrk import UnreadableReport, run_wrk, write_script

DEPLOYMENT = Deployment(NOOP, 1)
CLIENTS = 32
LAST_LINE = "Waiting time ns: "  # one of those at DEBUG that every prediction leaves

# The built-in configuration of TorchServe, written down, with every logger at the level of its most talkative lines.
_EVERYTHING = """\
<?xml version="1.0" encoding="UTF-8"?>
<Configuration>
  <Appenders>
    <Console name="console"><PatternLayout pattern="%d{ISO8601} [%-5p] %t %c - %m%n"/></Console>
    <File name="ts_log" fileName="${env:LOG_LOCATION:-logs}/ts_log.log">
      <PatternLayout pattern="%d{ISO8601} [%-5p] %t %c - %m%n"/>
    </File>
    <File name="access_log" fileName="${env:LOG_LOCATION:-logs}/access_log.log">
      <PatternLayout pattern="%d{ISO8601} - %m%n"/>
    </File>
    <File name="model_log" fileName="${env:LOG_LOCATION:-logs}/model_log.log">
      <PatternLayout pattern="%d{ISO8601} [%-5p] %t %c - %m%n"/>
    </File>
    <File name="model_metrics" fileName="${env:METRICS_LOCATION:-logs}/model_metrics.log">
      <PatternLayout pattern="%d{ISO8601} - %m%n"/>
    </File>
    <File name="ts_metrics" fileName="${env:METRICS_LOCATION:-logs}/ts_metrics.log">
      <PatternLayout pattern="%d{ISO8601} - %m%n"/>
    </File>
  </Appenders>
  <Loggers>
    <Logger name="org.pytorch.serve" level="debug"/>
    <Logger name="ACCESS_LOG" level="debug"><AppenderRef ref="access_log"/></Logger>
    <Logger name="MODEL_LOG" level="debug"><AppenderRef ref="model_log"/></Logger>
    <Logger name="MODEL_METRICS" level="debug"><AppenderRef ref="model_metrics"/></Logger>
    <Logger name="TS_METRICS" level="debug"><AppenderRef ref="ts_metrics"/></Logger>
    <Root level="info"><AppenderRef ref="console"/><AppenderRef ref="ts_log"/></Root>
  </Loggers>
</Configuration>
"""


def _write_everything(path: Path) -> Path:
    path.write_text(_EVERYTHING)
    return path.absolute()


# How the configuration of each kind is made; nothing is made for the built-in one.
Writing = Callable[[Path], Path]  # writes a file of that name
CONFIGURATIONS: Mapping[str, Writing | None] = {
    BUILT_IN: None,
    ACCESS_ONLY: write_access_log_config,
    EVERYTHING: _write_everything,
}


class LogBench:
    """For each kind of logging all servers, started with the same file and idle but for the one under load."""

    def __init__(
        self,
        contenders: Sequence[Contender],
        plan: Plan,
        directory: Path,
        samples: Samples,
        say: Say,
        configurations: Mapping[str, Writing | None] = CONFIGURATIONS,
    ) -> None:
        self._configurations = configurations
        self._contenders = contenders
        self._plan = plan
        self._directory = directory
        self._samples = samples
        self._say = say
        self._script = directory / "logs.lua"

    def run(self) -> None:
        write_script(self._script, NOOP.mime, NOOP.body)
        for kind, write in self._configurations.items():
            config = write(self._directory / f"{kind.replace(' ', '-')}.xml") if write else None
            with ExitStack() as stack:
                servers = [
                    (contender, server)
                    for contender in self._contenders
                    if (server := self._start(contender, kind, config, stack)) is not None
                ]
                for turn in range(self._plan.rounds):
                    for contender, server in servers[turn % 2 :] + servers[: turn % 2]:
                        self._measure(contender, server, kind, turn)

    def _start(self, contender: Contender, kind: str, config: Path | None, stack: ExitStack) -> RestServer | None:
        """None for a contender whose logs are not compared, or that does not write what it is measured with."""
        if contender.launch_logging is None:
            return None
        self._say(f"start {contender.title}, {kind}")
        directory = self._directory / f"{contender.name}-{kind.replace(' ', '-')}"
        server = contender.launch_logging(directory, config)
        stack.callback(server.stop)
        try:
            server.start()
            server.deploy(DEPLOYMENT)
            run_wrk(server.url(DEPLOYMENT), CLIENTS, self._plan.warm_up, self._script)
            if kind == EVERYTHING:
                log = directory / "logs" / "ts_log.log"
                poll(lambda: LAST_LINE in log.read_text(errors="replace"), f"{LAST_LINE}in {log}", interval=0.5)
        except (CallFailed, NotInTime, Unreachable, UnreadableReport, OSError) as error:
            self._samples.discard(contender.title, kind, str(error))
            return None
        return server

    def _measure(self, contender: Contender, server: RestServer, kind: str, turn: int) -> None:
        before = server.tree.cpu()
        try:
            report = run_wrk(server.url(DEPLOYMENT), CLIENTS, self._plan.duration, self._script).report
        except UnreadableReport as error:
            self._samples.discard(contender.title, kind, f"wrk said {error}")
            return
        if report.errors:
            self._samples.discard(contender.title, kind, f"{report.errors} requests failed")
            return
        cpu = (server.tree.cpu() - before) / report.requests * 1e6
        for figure, value in {RATE: report.rate, P99: report.p99 * 1e3, SERVER_CPU: cpu}.items():
            self._samples.add(contender.name, log_figure(kind, figure), value)
        self._say(f"{kind}, round {turn + 1}: {contender.title:<12} {report.rate:>8.0f}/s, {cpu:.0f} µs")
