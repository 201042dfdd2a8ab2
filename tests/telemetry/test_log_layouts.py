"""Layouts that want more of an event than its text: JSON, metrics, Python's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from telemetry_served import WORKER, Served, prediction_time

from modelserver.wire.frames import Metric


def configured(path: Path, layout: str, level: str = "debug") -> Path:
    """A log4j2 configuration with one appender."""
    file = path / "log4j2.xml"
    file.write_text(
        f'<Configuration><Appenders><Console name="out"><{layout}/></Console></Appenders><Loggers>'
        f'<Root level="{level}"><AppenderRef ref="out"/></Root></Loggers></Configuration>'
    )
    return file


def events(served: Served) -> list[dict[str, Any]]:
    return [json.loads(line) for line in served.stdout()]


def test_json_of_a_request(tmp_path: Path) -> None:
    with Served(tmp_path, log_format="json") as served:
        served.batch("id-1", metrics=[prediction_time()])
        served.predict("id-1")
        by_logger = {event["logger"]: event for event in events(served)}
        of_worker = {"worker": "9000", "model": "probe", "version": "1.0"}
        assert by_logger["ACCESS_LOG"] == {
            "time": "2026-11-20T12:00:00.250+00:00",
            "level": "INFO",
            "thread": WORKER,
            "logger": "ACCESS_LOG",
            "message": '/127.0.0.1:43288 "POST /predictions/probe HTTP/1.1" 200 250',
            **of_worker,
            "request_id": "id-1",
            "remote": "127.0.0.1:43288",
            "method": "POST",
            "path": "/predictions/probe",
            "protocol": "HTTP/1.1",
            "status": 200,
            "duration_ms": 250,
        }
        metric = by_logger["MODEL_METRICS"]
        assert {name: metric[name] for name in ("metric", "value", "unit", "dimensions", "request_id")} == {
            "metric": "PredictionTime",
            "value": 0.35,
            "unit": "ms",
            "dimensions": {"ModelName": "probe", "Level": "Model"},
            "request_id": "id-1",
        }
        assert by_logger["org.pytorch.serve.wlm.BatchAggregator"]["request_id"] == "id-1"
        assert by_logger["org.pytorch.serve.wlm.WorkerThread"]["request_ids"] == ["id-1"]
        assert of_worker.items() <= by_logger["MODEL_LOG"].items()


def test_json_goes_to_standard_output_alone(tmp_path: Path) -> None:
    with Served(tmp_path, log_format="json") as served:
        served.get()
        assert served.stdout()[0].startswith('{"time":')
        assert served.file("ts_log")[0].startswith("2026-11-20T12:00:00,062 [INFO ] listener ACCESS_LOG - ")


def test_json_of_lines_that_workers_print(tmp_path: Path) -> None:
    with Served(tmp_path, log_format="json") as served:
        served.telemetry.printed("W-9001-a_b_2.0", "stderr", 'say "ü"\t\udcff')
        (event,) = events(served)
        assert (event["level"], event["stream"], event["worker"]) == ("WARN", "stderr", "9001")
        assert (event["model"], event["version"]) == ("a_b", "2.0")
        assert event["message"] == 'say "ü"\t\udcff'


def test_json_keeps_what_json_has_no_number_for(tmp_path: Path) -> None:
    with Served(tmp_path, log_format="json") as served:
        for value in (float("inf"), float("nan")):
            update = Metric("PredictionTime", "ms", value, [("ModelName", "a,b:c"), ("Level", "Model")], "GAUGE", "")
            served.telemetry.worker_metrics(WORKER, "probe", [update])
        assert [event["value"] for event in events(served)] == ["Infinity", "NaN"]
        assert "request_id" not in events(served)[0]


def test_json_layout_of_a_configuration(tmp_path: Path) -> None:
    with Served(tmp_path, log_config=configured(tmp_path, "JsonLayout")) as served:
        served.telemetry.log("WARN", "wlm.X", "a\nb")
        assert events(served)[0] == {
            "time": "2026-11-20T12:00:00.000+00:00",
            "level": "WARN",
            "thread": "main",
            "logger": "org.pytorch.serve.wlm.X",
            "message": "a\nb",
        }


def test_metrics_as_objects(tmp_path: Path) -> None:
    with Served(tmp_path, log_config=configured(tmp_path, "JSONPatternLayout")) as served:
        served.telemetry.log("INFO", "wlm.X", "no metric")
        served.telemetry.worker_metrics(WORKER, "probe", [prediction_time("a,b")])
        text = "\n".join(served.stdout())
        assert text.startswith('no metric\n{\n  "MetricName": "PredictionTime",\n')
        assert json.loads(text.partition("\n")[2]) == {
            "MetricName": "PredictionTime",
            "Value": "0.35",
            "Unit": "ms",
            "Dimensions": [{"Name": "ModelName", "Value": "probe"}, {"Name": "Level", "Value": "Model"}],
            "DimensionNames": ["ModelName", "Level"],
            "DimensionValues": ["probe", "Model"],
            "Timestamp": "1795176000",
            "RequestId": "a,b",
            "HostName": "node1",
        }


def test_metrics_as_records_of_a_query_log(tmp_path: Path) -> None:
    with Served(tmp_path, log_config=configured(tmp_path, "QLogLayout")) as served:
        served.telemetry.log("INFO", "wlm.X", "no metric")
        served.get()
        assert served.stdout() == [
            "HostName=node1",
            "StartTime=1795176000",
            "Program=MXNetModelServer",
            "Metrics=Requests2XX=1.0 Count Level|Host",
            "EOE",
        ]


def test_pattern_that_encodes_messages(tmp_path: Path) -> None:
    pattern = "{&quot;t&quot;:&quot;%d{UNIX_MILLIS}&quot;,&quot;m&quot;:&quot;%enc{%m}{JSON}&quot;}%n"
    with Served(tmp_path, log_config=configured(tmp_path, f'PatternLayout pattern="{pattern}"')) as served:
        served.get('/x?"')
        assert json.loads(served.stdout()[0]) == {
            "t": "1795176000062",
            "m": '/127.0.0.1:41008 "GET /x?" HTTP/1.1" 200 62',
        }


def test_debug_lines_of_requests_where_a_configuration_asks_for_them(tmp_path: Path) -> None:
    layout = 'PatternLayout pattern="%p %c{1} %m%n"'
    with Served(tmp_path, log_config=configured(tmp_path, layout)) as served:
        served.batch("id-1")
        served.predict("id-1")
        assert [line for line in served.stdout() if line.startswith("DEBUG")] == [
            "DEBUG WorkerThread Flushing req.cmd PREDICT repeats 1 to backend at: 1795176000125",
            "DEBUG RestJob Waiting time ns: 125000000, Backend time ns: 62500000",
        ]
    with Served(tmp_path, log_config=configured(tmp_path, layout, level="info")) as served:
        served.predict("id-1")
        assert [line for line in served.stdout() if line.startswith("DEBUG")] == []


def test_configuration_without_files_makes_no_directory(tmp_path: Path) -> None:
    with Served(tmp_path, log_config=configured(tmp_path, 'PatternLayout pattern="%m%n"')) as served:
        served.get()
        served.telemetry.flush()
    assert not (tmp_path / "logs").exists()


def test_complaints_come_first_on_standard_output(tmp_path: Path) -> None:
    file = configured(tmp_path, 'PatternLayout pattern="%m%n"')
    file.write_text(file.read_text().replace("<Loggers>", "<Loggers><Other/>"))
    with Served(tmp_path, log_config=file) as served:
        assert served.stdout() == [
            f"2026-11-20 12:00:00,000 main WARN StatusLogger {file}: line 1: <other> has no effect"
        ]


@pytest.mark.parametrize("name", ["gone.xml", "gone.properties", "gone.yaml", "gone.ini"])
def test_configuration_that_cannot_be_read_leaves_the_built_in_one(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    with Served(tmp_path, log_config=tmp_path / name) as served:
        served.get()
        assert len(served.file("access_log")) == 1
    text = capfd.readouterr().err
    assert text.startswith(f"2026-11-20 12:00:00,000 main ERROR StatusLogger Error parsing {tmp_path / name}: ")
    assert text.endswith("The built-in log configuration is used instead.\n")


@pytest.mark.parametrize("asked", [False, True])
def test_errors_are_counted_for_a_platform_that_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    if asked:
        monkeypatch.setenv("SM_TELEMETRY_LOG", "1")
    with Served(tmp_path) as served:
        served.telemetry.log("INFO", "TELEMETRY_METRICS", "ModelServerError.Count:1", WORKER)
        line = f"2026-11-20T12:00:00,000 [INFO ] {WORKER} TELEMETRY_METRICS - ModelServerError.Count:1"
        assert served.stdout() == ([line] if asked else [])


# Python's logging is one for a whole process, so these run in processes of their own.

PROGRAM = """
import logging, sys
from pathlib import Path
from telemetry_served import Served

with Served(Path(sys.argv[1]), log_config=Path(sys.argv[2])) as served:
    assert served.telemetry.python_logging
    for message in ("one", "two"):
        served.telemetry.log("WARN", "wlm.X", message)
    served.telemetry.log("TRACE", "wlm.X", "three")
    served.predict("id-1")
    served.telemetry.announce("ready")
    served.telemetry.flush()
    logging.getLogger("some.library").warning("of a library")
"""
DICTIONARY: dict[str, Any] = {
    "formatters": {"own": {"format": "%(levelname)s|%(threadName)s|%(name)s|%(message)s|%(request_id)s|%(created).3f"}},
    "handlers": {"out": {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "own"}},
    "loggers": {"TS_METRICS": {"level": "ERROR"}, "org.pytorch.serve": {"level": 5}},
    "root": {"level": "INFO", "handlers": ["out"]},
}
INI = """
[loggers]
keys=root
[handlers]
keys=out
[formatters]
keys=own
[logger_root]
level=WARNING
handlers=out
[handler_out]
class=StreamHandler
args=(sys.stdout,)
formatter=own
[formatter_own]
format=%(levelname)s|%(name)s|%(message)s
"""


def run_program(path: Path, configuration: Path) -> subprocess.CompletedProcess[str]:
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (here, here.parent, path)))}
    command = [sys.executable, "-c", PROGRAM, str(path), str(configuration)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)


def test_dictionary_for_python(tmp_path: Path) -> None:
    (tmp_path / "own.json").write_text(json.dumps(DICTIONARY))
    done = run_program(tmp_path, tmp_path / "own.json")
    lines = done.stdout.splitlines()
    server = "org.pytorch.serve.wlm.X"
    assert [line for line in lines if server in line] == [
        f"WARNING|main|{server}|one||1795176000.000",
        f"WARNING|main|{server}|two||1795176000.000",
        f"TRACE|main|{server}|three||1795176000.000",
    ]
    access = '/127.0.0.1:43288 "POST /predictions/probe HTTP/1.1" 200 250'
    assert f"INFO|{WORKER}|ACCESS_LOG|{access}|id-1|1795176000.250" in lines
    assert not any("TS_METRICS" in line for line in lines)
    assert "Formatting field not found in record: 'request_id'" in done.stderr  # the library's record has none
    assert done.returncode == 0


def test_ini_file_for_python(tmp_path: Path) -> None:
    (tmp_path / "own.ini").write_text(INI)
    done = run_program(tmp_path, tmp_path / "own.ini")
    server = "org.pytorch.serve.wlm.X"
    kept = [f"WARNING|{server}|one", f"WARNING|{server}|two", "WARNING|some.library|of a library"]
    assert [line for line in done.stdout.splitlines() if "|" in line] == kept
    assert done.returncode == 0


def test_handler_that_fails_stops_nothing_and_says_so_once(tmp_path: Path) -> None:
    broken = {**DICTIONARY, "handlers": {"out": {"class": "logging.FileHandler", "filename": "/dev/full"}}}
    (tmp_path / "own.json").write_text(json.dumps(broken))
    done = run_program(tmp_path, tmp_path / "own.json")
    (report,) = done.stderr.splitlines()
    assert report.endswith("cannot log: OSError: [Errno 28] No space left on device")
    assert done.returncode == 0


def test_filter_that_raises_stops_nothing_and_is_told_once(tmp_path: Path) -> None:
    filtered = {"filters": {"f": {"()": "filtering.Refusing"}}, "root": {"level": "INFO", "filters": ["f"]}}
    (tmp_path / "filtering.py").write_text(
        "class Refusing:\n    def filter(self, record):\n        raise ValueError('never')\n"
    )
    loggers = {name: {"filters": ["f"]} for name in ("org.pytorch.serve.wlm.X", "ACCESS_LOG")}
    (tmp_path / "own.json").write_text(json.dumps({**DICTIONARY, **filtered, "loggers": loggers}))
    done = run_program(tmp_path, tmp_path / "own.json")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("cannot log: ValueError: never") == 1


BAD = {
    "handlers.yaml": ("root: {handlers: [none]}", "Unable to configure root logger"),
    "list.yaml": ("- a list", "it holds no mapping"),
    "open.yaml": ("{", "while parsing a flow node"),
    "open.json": ("{", "Expecting property name"),
    "formatters.ini": ("[loggers]\n", "KeyError: 'formatters'"),
    "section.conf": ("no section", "section.conf is invalid"),
}
TRIAL = """
import sys
from pathlib import Path
from modelserver.logconfig.elements import Malformed
from modelserver.logconfig.python_style import configure

for path in map(Path, sys.argv[1:]):
    try:
        configure(path)
    except Malformed as error:
        print(error)
"""


def test_bad_configurations_for_python(tmp_path: Path) -> None:
    for name, (text, _) in BAD.items():
        (tmp_path / name).write_text(text)
    command = [sys.executable, "-c", TRIAL, *(str(tmp_path / name) for name in BAD)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    for line, (_, reason) in zip(done.stdout.splitlines(), BAD.values(), strict=True):
        assert reason in line
