"""Servers for the contract of logs, and the configurations that people give them."""

from __future__ import annotations

import re
from pathlib import Path

from contract.rest_server import make
from contract.server import ContractServer

LONG = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d,\d{3} \[[A-Z ]{5}\] \S+ \S+ - ")
FILES = ["access_log.log", "model_log.log", "model_metrics.log", "ts_log.log", "ts_metrics.log"]

# The built-in configuration as users copy it, with the places that tests change.
USUAL = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="error">
    <Appenders>
        <RollingFile name="access_log" fileName="${{env:LOG_LOCATION:-logs}}/access_log.log"
                     filePattern="${{env:LOG_LOCATION:-logs}}/access_log.%d{{dd-MMM}}.log.gz">
            <PatternLayout pattern="{access}"/>
            <Policies>
                <SizeBasedTriggeringPolicy size="100 MB"/>
                <TimeBasedTriggeringPolicy/>
            </Policies>
            <DefaultRolloverStrategy max="5"/>
        </RollingFile>
        <RollingFile name="ts_log" fileName="${{env:LOG_LOCATION:-logs}}/ts_log.log"
                     filePattern="${{env:LOG_LOCATION:-logs}}/ts_log.%d{{dd-MMM}}.log.gz">
            <PatternLayout pattern="%d{{ISO8601}} [%-5p] %t %c - %m%n"/>
            <Policies>
                <SizeBasedTriggeringPolicy size="100 MB"/>
                <TimeBasedTriggeringPolicy/>
            </Policies>
            <DefaultRolloverStrategy max="5"/>
        </RollingFile>
        <Console name="STDOUT" target="SYSTEM_OUT">
            <PatternLayout pattern="%d{{ISO8601}} [%-5p] %t %c - %m%n"/>
        </Console>
        {more}
    </Appenders>
    <Loggers>
        <Logger name="io.netty" level="error"/>
        <Logger name="ACCESS_LOG" level="info">
            <AppenderRef ref="access_log"/>
        </Logger>
        <Logger name="org.pytorch.serve" level="{level}">
            <AppenderRef ref="ts_log"/>
        </Logger>
        {loggers}
        <Root level="info">
            <AppenderRef ref="STDOUT"/>
            <AppenderRef ref="ts_log"/>
        </Root>
    </Loggers>
</Configuration>
"""

# What the toolkit of a cloud platform adds: a file that only some of its users get.
ROUTED = """<Routing name="telemetry">
            <Routes pattern="${env:TELEMETRY_LOG:-OPT_OUT}">
                <Route key="OPT_OUT"><Null name="null"/></Route>
                <Route>
                    <RollingFile name="sm_telemetry" fileName="telemetry.log" filePattern="telemetry.%d{dd-MMM}.log.gz">
                        <PatternLayout pattern="%m%n"/>
                        <Policies><SizeBasedTriggeringPolicy size="100 MB"/></Policies>
                    </RollingFile>
                </Route>
            </Routes>
        </Routing>"""
ROUTED_LOGGER = '<Logger name="TELEMETRY_METRICS" level="info"><AppenderRef ref="telemetry"/></Logger>'


def configuration(
    *, access: str = "%d{ISO8601} - %m%n", level: str = "debug", more: str = "", loggers: str = ""
) -> str:
    """The usual configuration with changes."""
    return USUAL.format(access=access, level=level, more=more, loggers=loggers)


def make_logging(directory: Path, *flags: str, **options: object) -> ContractServer:
    """A server that keeps its configuration, not started yet."""
    server = make(directory, **options)  # type: ignore[arg-type]
    server.command.remove("--ncs")
    server.command += flags
    return server


def console(server: ContractServer, logger: str = "") -> list[str]:
    """Lines of standard output, without those whose logger does not hold this text."""
    return [line for line in server.lines if not logger or (LONG.match(line) and logger in line.split(" - ")[0])]
