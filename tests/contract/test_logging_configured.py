"""What users change about logs: places, levels, patterns, whole configurations, and mistakes in them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from contract.logging_server import FILES, LONG, ROUTED, ROUTED_LOGGER, configuration, console, make_logging
from harness.archives import ECHO, pack
from harness.server import eventually

check = pytest.mark.check
fixed = pytest.mark.fixed


@check("logging", 10)
@check("logging", 16)
def test_two_directories(tmp_path: Path) -> None:
    places = {"LOG_LOCATION": "a", "METRICS_LOCATION": "b"}
    with make_logging(tmp_path, environment=places, config={"async_logging": "true"}) as server:
        assert sorted(path.name for path in (tmp_path / "a").glob("*.log")) == FILES[:2] + FILES[3:4]
        assert sorted(path.name for path in (tmp_path / "b").glob("*.log")) == FILES[2:3] + FILES[4:]
        eventually(lambda: list((tmp_path / "a" / "config").glob("*-startup.cfg")))
        assert f"Log dir: {tmp_path}/a" in server.lines
        assert f"Metrics dir: {tmp_path}/b" in server.lines


@check("logging", 11)
@check("logging", 16)
def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    options = {"LOG_LOCATION": str(tmp_path / "file" / "logs")}
    with make_logging(tmp_path, environment=options, config={"async_logging": "2"}) as server:
        assert server.ping() == 200
        assert any("main ERROR" in line and "Unable to create file" in line for line in server.lines)
        eventually(lambda: "Requests2XX" in server.log("ts_metrics.log"))
        eventually(lambda: any(" ACCESS_LOG - " in line for line in server.lines))


@check("logging", 12)
def test_configuration_that_is_not_there(tmp_path: Path) -> None:
    server = make_logging(tmp_path)
    done = server.launch("--start", "--model-store", str(server.store), "--log-config", "/missing.xml")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "--log-config file not found: /missing.xml"


@check("logging", 13)
@check("logging", 15)
def test_flag_wins_over_vmargs_and_its_patterns_and_levels_hold(tmp_path: Path) -> None:
    (tmp_path / "other.xml").write_text(configuration(access="other%n"))
    vmargs = f"-Xmx512m -Dlog4j.configurationFile=file://{tmp_path}/other.xml"
    # The addresses are INFO lines: without them the harness cannot find the server.
    addresses = '<Logger name="org.pytorch.serve.ModelServer" level="info"><AppenderRef ref="ts_log"/></Logger>'
    (tmp_path / "mine.xml").write_text(configuration(access="%m%n", level="warn", loggers=addresses))
    with make_logging(tmp_path, "--log-config", "mine.xml", config={"vmargs": vmargs}) as server:
        assert server.ping() == 200
        form = r'/127\.0\.0\.1:\d+ "GET /ping HTTP/1\.1" 200 \d+\n'
        eventually(lambda: re.fullmatch(form, server.log("access_log.log")))
        levels = {line.split("[")[1][:5] for line in console(server, "org.pytorch.serve") if "ModelServer" not in line}
        assert levels <= {"WARN ", "ERROR"}
        assert f"Warning: TorchServe is using non-default JVM parameters: {vmargs}" in server.lines
        assert not (tmp_path / "logs" / "model_log.log").exists()


@check("logging", 14)
@check("logging", 15)
def test_configuration_in_vmargs_with_routes(tmp_path: Path) -> None:
    """Its DEBUG lines of every request are written, because somebody asks for that level."""
    (tmp_path / "toolkit.xml").write_text(configuration(more=ROUTED, loggers=ROUTED_LOGGER))
    vmargs = f"-XX:-UseContainerSupport -Dlog4j.configurationFile={tmp_path}/toolkit.xml"
    with make_logging(tmp_path, config={"vmargs": vmargs}) as server:
        pack(server.store, "echo", ECHO)
        assert server.register("echo.mar").status_code == 200
        assert server.predict("echo", b"hello").text == "hello"
        eventually(lambda: re.search(r"Waiting time ns: \d+, Backend time ns: \d+", server.log("ts_log.log")))
        eventually(lambda: re.search(r"Flushing req\.cmd PREDICT repeats 1 to backend", server.log("ts_log.log")))
        assert [line for line in server.lines if " WARN StatusLogger" in line] == []
        assert not (tmp_path / "telemetry.log").exists()


@fixed("broken log configuration")
def test_broken_configuration_costs_a_complaint(tmp_path: Path) -> None:
    (tmp_path / "broken.xml").write_text("<Configuration>\n<Appenders>\n</Configuration>")
    with make_logging(tmp_path, "--log-config", "broken.xml") as server:
        (complaint,) = [line for line in server.lines if "ERROR StatusLogger Error parsing" in line]
        assert complaint.endswith(
            f"{tmp_path}/broken.xml: line 3: mismatched tag. The built-in log configuration is used instead."
        )
        assert sorted(path.name for path in (tmp_path / "logs").glob("*.log")) == FILES
        assert server.ping() == 200


@fixed("log configurations of Python")
def test_configuration_for_python_with_json_formatter_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "logging.yaml").write_text("""
formatters:
  short: {format: "%(levelname)s|%(threadName)s|%(name)s|%(model)s|%(message)s"}
handlers:
  console: {class: logging.StreamHandler, stream: ext://sys.stdout, formatter: short}
  access: {class: logging.FileHandler, filename: only_access.log, formatter: short}
loggers:
  ACCESS_LOG: {handlers: [access]}
  TS_METRICS: {level: ERROR}
root: {level: INFO, handlers: [console]}
""")
    with make_logging(tmp_path, "--log-config", "logging.yaml") as server:
        pack(server.store, "echo", ECHO)
        assert server.register("echo.mar").status_code == 200
        assert server.predict("echo", b"hello").text == "hello"
        line = r'INFO\|W-\d+-echo_1.0\|ACCESS_LOG\|echo\|/\S+ "POST /predictions/echo HTTP/1.1" 200 \d+'
        eventually(lambda: re.search(line, (tmp_path / "only_access.log").read_text()))
        eventually(lambda: any(re.fullmatch(line, each) for each in server.lines))
        assert not any("|TS_METRICS|" in line or line.startswith("DEBUG") for line in server.lines)
        assert not (tmp_path / "logs" / "ts_log.log").exists()


@fixed("json lines")
def test_json_lines_name_request_model_version_and_worker(tmp_path: Path) -> None:
    config = {"log_format": "json", "log_to_files": "false", "log_level": "debug"}
    with make_logging(tmp_path, config=config, environment={"SM_TELEMETRY_LOG": "1"}) as server:
        pack(server.store, "echo", ECHO)
        assert server.register("echo.mar").status_code == 200
        answer = server.predict("echo", b"hello")
        line = eventually(lambda: [line for line in server.lines if '"path":"/predictions/echo"' in line])[0]
        access = json.loads(line)
        assert access["request_id"] == answer.headers["x-request-id"]
        assert (access["model"], access["version"], access["status"]) == ("echo", "1.0", 200)
        assert access["worker"] == server.ready_workers("echo")[0]["id"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d\d:\d\d", access["time"])
        assert [line for line in server.lines if LONG.match(line)] == []
        eventually(lambda: any('"message":"Waiting time ns: ' in line for line in server.lines))
        assert list((tmp_path / "logs").glob("*.log")) == []
        server.prepare("hopeless", starting="raise")
        server.register("hopeless.mar", synchronous="false")
        counted = (
            r'"logger":"TELEMETRY_METRICS","message":"ModelServerError\.Count:1\|#TorchServe:[\d.]+\S*,ValueError:-1"'
        )
        eventually(lambda: any(re.search(counted, line) for line in server.lines))
