"""Metrics of the machine: what the server reads itself, and what a command of the user tells."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from telemetry_served import Served

from modelserver.settings.table import Settings
from modelserver.telemetry.collector import TEXT_LIMIT, Collector, read_report
from modelserver.telemetry.gpus import Gpus, GpusUnreadable
from modelserver.telemetry.host import Processor, read_host
from modelserver.telemetry.records import Reading
from modelserver.telemetry.system import SystemMetrics

NAMES = ["CPUUtilization", "DiskAvailable", "DiskUsage", "DiskUtilization"]
NAMES += ["MemoryAvailable", "MemoryUsed", "MemoryUtilization"]


class Notebook:
    """Takes in what is sampled, and tells when."""

    def __init__(self) -> None:
        self.rounds: list[Sequence[Reading]] = []
        self.lines: list[str] = []
        self.noted = threading.Event()

    def log(self, level: str, logger: str, message: str, thread: str = "main") -> None:
        self.lines.append(f"{level} {logger} {message}")

    def host_metrics(self, readings: Sequence[Reading]) -> None:
        self.rounds.append(readings)
        self.noted.set()

    async def rounds_of(self, system: SystemMetrics, count: int) -> None:
        """Sample until there are that many."""
        sampling = asyncio.create_task(system.run())
        while len(self.rounds) < count and not sampling.done():
            self.noted.clear()
            await asyncio.to_thread(self.noted.wait, 20)
        sampling.cancel()
        await asyncio.wait([sampling])


def script(path: Path, text: str) -> str:
    """A command that runs this text."""
    file = path / "collector.py"
    file.write_text(text)
    return str(file)


def collector(path: Path, text: str, patience: float = 20.0) -> Collector:
    return Collector([sys.executable, script(path, text)], path, os.environ, patience)


def test_this_machine() -> None:
    readings = list(read_host(Processor()))
    assert [reading.name for reading in readings] == NAMES
    values = {reading.name: reading.value for reading in readings}
    assert all(0 <= values[name] <= 100 for name in values if name.endswith("Utilization"))
    assert values["MemoryUsed"] > 1  # MB
    assert {reading.labels for reading in readings} == {("Host",)}


def test_processor_is_seen_between_two_looks() -> None:
    processor = Processor()
    assert 0 <= processor.percent() <= 100
    assert 0 <= processor.percent() <= 100


def test_samples_become_metrics(tmp_path: Path) -> None:
    with Served(tmp_path, metrics_mode="PROMETHEUS") as served:
        served.telemetry.host_metrics([Reading("MemoryUsed", 5.5), Reading("GPUUtilization", 7.0, ("Host", "1"))])
        served.telemetry.host_metrics([Reading("NoSuchMetric", 1.0)])
        lines = served.scrape().splitlines()
        assert 'MemoryUsed{Level="Host",Hostname="node1",} 5.5' in lines
        assert 'GPUUtilization{Level="Host",DeviceId="1",Hostname="node1",} 7.0' in lines
        assert served.stdout() == []


def test_samples_are_logged_in_log_mode(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.telemetry.host_metrics([Reading("DiskAvailable", 77.29169464111328)])
        text = "DiskAvailable.Gigabytes:77.29169464111328|#Level:Host|#hostname:node1,timestamp:1795176000"
        assert [line.partition(" - ")[2] for line in served.file("ts_metrics")] == [text]


def test_sampling_at_an_interval() -> None:
    notebook = Notebook()
    system = SystemMetrics(Settings(metric_time_interval=1), notebook, list)
    asyncio.run(notebook.rounds_of(system, 2))
    assert [reading.name for reading in notebook.rounds[1]] == NAMES
    assert system.memory is None
    assert notebook.lines == []


def test_no_sampling_where_it_is_disabled() -> None:
    notebook = Notebook()
    system = SystemMetrics(Settings(disable_system_metrics=True), notebook, list)
    asyncio.run(system.run())
    assert notebook.rounds == []
    assert system.memory == {}


def test_a_command_replaces_the_sampling(tmp_path: Path) -> None:
    text = """
import sys
pids = sys.stdin.readline().strip().split(",")
print("CPUUtilization.Percent:42.5|#Level:Host|#hostname:h,1700000000")
print("gibberish")
print()
for pid in pids:
    print(f"{pid}:{int(pid) * 1000}")
print("x:y")
print("no good", file=sys.stderr)
"""
    notebook = Notebook()
    settings = Settings(system_metrics_cmd=script(tmp_path, text), home=tmp_path)
    system = SystemMetrics(settings, notebook, lambda: [17, -1, 23], environment=os.environ)
    assert system.memory == {}
    asyncio.run(notebook.rounds_of(system, 1))
    assert notebook.rounds == [[Reading("CPUUtilization", 42.5)]]
    assert system.memory == {17: 17000, 23: 23000}
    assert notebook.lines == [
        "WARN metrics.MetricCollector worker pid is not available yet.",
        "WARN metrics.MetricCollector Parse metrics failed: gibberish",
        "WARN metrics.MetricCollector Parse metrics failed: x:y",
        "ERROR metrics.MetricCollector no good",
    ]


def test_the_command_sees_its_directory_and_environment(tmp_path: Path) -> None:
    text = "import os, sys; print(); sys.stderr.write(os.getcwd() + ' ' + os.environ['OWN'])"
    run = Collector([sys.executable, script(tmp_path, text)], tmp_path, {**os.environ, "OWN": "yes"}, 20.0).run([])
    assert run.complaint == f"{tmp_path} yes"


def test_the_default_script_answers_as_a_command(tmp_path: Path) -> None:
    home = Settings().home
    default = Collector([sys.executable, "ts/metrics/metric_collector.py", "--gpu", "0"], home, os.environ, 50.0)
    report = default.run([os.getpid()])
    assert sorted(reading.name for reading in report.readings) == sorted(NAMES)
    assert report.memory[os.getpid()] > 1 << 20
    assert (report.unreadable, report.complaint) == ([], "")


@pytest.mark.parametrize(
    ("output", "readings", "memory", "unreadable"),
    [
        ("", 0, {}, []),
        ("\n1:2\n", 0, {1: 2}, []),
        ("\r\n1:2\r\n", 0, {1: 2}, []),
        ("A.b:1|#|#hostname:h,1\n", 1, {}, []),
        ("A.b:1|#|#hostname:h,1\n1:2\n\n3:4", 1, {3: 4}, ["1:2"]),
        ("\n-1:2\n1:\n:\n", 0, {}, ["-1:2", "1:", ":"]),
    ],
)
def test_reports(output: str, readings: int, memory: dict[int, int], unreadable: list[str]) -> None:
    report = read_report(output)
    assert (len(report.readings), report.memory, report.unreadable) == (readings, memory, unreadable)


def test_a_command_that_fails(tmp_path: Path) -> None:
    assert collector(tmp_path, "raise SystemExit(3)").run([]).complaint == "ended with status 3"
    missing = Collector([str(tmp_path / "nosuch")], tmp_path, os.environ, 20.0).run([])
    assert "cannot be started" in missing.complaint


def test_a_command_that_does_not_read_its_input(tmp_path: Path) -> None:
    report = collector(tmp_path, "import os; os.close(0); print('\\n1:2')").run(range(100_000))
    assert report.memory == {1: 2}


def test_a_command_that_does_not_end_is_killed_with_its_children(tmp_path: Path) -> None:
    text = (
        "import subprocess, sys; subprocess.Popen(['sleep', '600']); print('x'); sys.stdout.flush(); input(); input()"
    )
    report = collector(tmp_path, text, patience=1.0).run([1])
    assert report.complaint.startswith("no end within 1 s: ")
    assert (report.readings, report.memory) == ([], {})


def test_a_command_that_prints_without_end_is_cut(tmp_path: Path) -> None:
    report = collector(tmp_path, f"print('x' * {2 * TEXT_LIMIT})").run([])
    assert [len(line) for line in report.unreadable] == [TEXT_LIMIT]


def test_a_command_that_begins_while_the_server_stops_ends_at_once(tmp_path: Path) -> None:
    late = collector(tmp_path, "import time; time.sleep(600)")
    late.close()
    assert late.run([]).complaint == "ended with status -9"


def test_few_of_many_bad_lines_are_shown(tmp_path: Path) -> None:
    notebook = Notebook()
    settings = Settings(system_metrics_cmd=script(tmp_path, "print('bad\\n' * 1000)"), home=tmp_path)
    asyncio.run(notebook.rounds_of(SystemMetrics(settings, notebook, list, environment=os.environ), 1))
    assert notebook.lines[:2] == ["WARN metrics.MetricCollector Parse metrics failed: bad"] * 2
    assert notebook.lines[10:] == ["WARN metrics.MetricCollector Parse metrics failed: 990 more lines"]


def test_a_running_command_ends_with_the_sampling(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    text = f"import os, time; open({str(begun)!r}, 'w').write(str(os.getpid())); time.sleep(600)"

    async def stop_while_it_runs() -> int:
        system = SystemMetrics(
            Settings(system_metrics_cmd=script(tmp_path, text)), Notebook(), list, environment=os.environ
        )
        sampling = asyncio.create_task(system.run())
        pid = int(await asyncio.to_thread(begun.read_text))
        sampling.cancel()
        await asyncio.wait([sampling])
        return pid

    pid = asyncio.run(stop_while_it_runs())  # waits for the thread, which waits for the command
    assert not Path(f"/proc/{pid}").exists()


class NvmlError(Exception):
    """As in the management library."""


class Nvml:
    """Two devices, of which one does not tell how busy it is."""

    NVMLError = NvmlError
    memory = namedtuple("memory", "used total")

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken

    def nvmlInit(self) -> None:
        if self.broken:
            raise NvmlError("Driver Not Loaded")

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return f"index {index}"

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:
        return f"uuid {name}"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> Any:
        return self.memory(3 << 20, 12 << 20)

    def nvmlDeviceGetUtilizationRates(self, handle: str) -> Any:
        if handle.startswith("uuid"):
            raise NvmlError("Not Supported")
        return SimpleNamespace(gpu=40)


def test_gpus_by_index_and_by_name() -> None:
    assert list(Gpus(["3", "GPU-abc"], Nvml()).read()) == [
        Reading("GPUMemoryUtilization", 25.0, ("Host", "0")),
        Reading("GPUMemoryUsed", 3.0, ("Host", "0")),
        Reading("GPUUtilization", 40.0, ("Host", "0")),
        Reading("GPUMemoryUtilization", 25.0, ("Host", "1")),
        Reading("GPUMemoryUsed", 3.0, ("Host", "1")),
    ]


def test_gpus_without_a_driver() -> None:
    with pytest.raises(GpusUnreadable, match="GPU metrics are not available: Driver Not Loaded"):
        Gpus(["0"], Nvml(broken=True))


def test_sampling_goes_on_without_gpus() -> None:
    notebook = Notebook()
    asyncio.run(notebook.rounds_of(SystemMetrics(Settings(), notebook, list, gpus=["nosuch"]), 1))
    assert [reading.name for reading in notebook.rounds[0]] == NAMES
    assert len(notebook.lines) == 1
    assert notebook.lines[0].startswith("WARN metrics.MetricCollector GPU metrics")
