"""Metric definitions and log configurations: what of them has no effect is told, and nothing is opened."""

from __future__ import annotations

from pathlib import Path

from modelserver.checkup.telemetry_files import examine_telemetry_files
from modelserver.settings.command_line import parse
from modelserver.settings.loading import load

XML = """<Configuration>
  <Appenders>
    <File name="file" fileName="made.log"/>
    <Carrier name="pigeon"/>
  </Appenders>
  <Loggers><Root level="info"><AppenderRef ref="file"/></Root></Loggers>
</Configuration>
"""


def lines(directory: Path, *flags: str) -> list[str]:
    return [str(finding) for finding in examine_telemetry_files(load(parse(flags), {}, directory), {})]


def test_files_that_come_with_the_package(tmp_path: Path) -> None:
    assert lines(tmp_path) == []


def test_metric_definitions(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "odd.yaml").write_text("other: 1\nts_metrics: {}\nmodel_metrics: {}\n")
    for file, reason in (
        ("gone", "No such file"),
        ("bad.yaml", "while parsing"),
        ("list.yaml", "not a mapping"),
        ("odd.yaml", "Unknown key in metrics configuration: other"),
    ):
        (tmp_path / "config.properties").write_text(f"metrics_config={file}\n")
        (line,) = lines(tmp_path)
        assert line.startswith(f"WARN {tmp_path}/{file}: ") and reason in line, line


def test_a_log_configuration(tmp_path: Path) -> None:
    """It is read as a start would, and no file of it is made."""
    path = tmp_path / "log4j2.xml"
    path.write_text(XML)
    (line,) = lines(tmp_path, "--log-config", "log4j2.xml")
    assert line.startswith(f"WARN {path}: ") and "is no appender of this server" in line
    path.write_text("<Configuration>")
    (line,) = lines(tmp_path, "--log-config", "log4j2.xml")
    assert line.startswith(f"WARN {path}: Error parsing {path}: ") and "built-in log configuration" in line
    (tmp_path / "logging.yaml").write_text("version: 1\n")
    (line,) = lines(tmp_path, "--log-config", "logging.yaml")
    assert line.startswith("INFO ")
    assert not (tmp_path / "made.log").exists()
