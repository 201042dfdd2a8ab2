"""Sinks that break, fill up, stall, roll; records that are dropped."""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
from telemetry_served import DATE, NOON, WORKER, Hands, Served, prediction_time

from modelserver.logconfig.plan import FileTarget, Rolling
from modelserver.telemetry.console import Console
from modelserver.telemetry.files import LOOK, RETRY, LogFile
from modelserver.telemetry.records import Announcement, Flush, Printed, RequestDone
from modelserver.telemetry.ring import Ring

DAY = 86400.0


class LogUnderTest:
    """One log file with a clock and a memory for complaints."""

    def __init__(self, path: Path, size_limit: int = 100) -> None:
        self.hands = Hands()
        self.path = path
        self.complaints: list[str] = []
        rolling = Rolling(str(path.with_name(f"{path.stem}.%d{{dd-MMM}}.log.gz")), size_limit, interval=1, keep=5)
        self.file = LogFile(FileTarget(path, rolling=rolling), self.hands.clock(), self.complaints.append)

    def names(self) -> list[str]:
        """Files in the directory, once all archives are packed."""
        self.file.wait_for_archives()
        return sorted(path.name for path in self.path.parent.iterdir())

    def fill(self, letter: str) -> None:
        """Write so much that the next write makes the file roll."""
        self.file.wait_for_archives()
        self.file.write(letter.encode() * 99 + b"\n")


def test_files_are_appended_to(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with Served(tmp_path) as served:
            served.telemetry.log("INFO", "ModelServer", text)
    lines = (tmp_path / "logs" / "ts_log.log").read_text().splitlines()
    assert [line[-6:] for line in lines if "ModelServer" in line] == [" first", "second"]


def test_two_directories(tmp_path: Path) -> None:
    places: dict[str, Any] = {"log_location": tmp_path / "a" / "b", "metrics_location": tmp_path / "c"}
    with Served(tmp_path, **places):
        pass
    assert sorted(path.name for path in (tmp_path / "a" / "b").iterdir()) == [
        "access_log.log",
        "model_log.log",
        "ts_log.log",
    ]
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == ["model_metrics.log", "ts_metrics.log"]


def test_no_files_where_none_are_wanted(tmp_path: Path) -> None:
    with Served(tmp_path, log_to_files=False) as served:
        served.get()
        assert len(served.stdout()) == 2
    assert list(tmp_path.iterdir()) == []


def test_unusable_directory_costs_only_its_files(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with Served(tmp_path, log_location=tmp_path / "file" / "logs") as served:
        served.get()
        served.get()
        complaints = [line for line in served.stdout() if "Unable to create file" in line]
        assert complaints == [
            f"2026-11-20 12:00:00,000 main ERROR Unable to create file {tmp_path}/file/logs/{name}.log: Not a directory"
            for name in ("ts_log", "access_log", "model_log")
        ]
        assert sum(" ACCESS_LOG - " in line for line in served.stdout()) == 2
        assert len(served.file("ts_metrics")) == 2


def test_full_disk_costs_lines_and_one_complaint() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    log = LogUnderTest(Path("/dev/full"))
    for _ in range(3):
        log.file.write(b"lost\n")
        log.hands.monotonic += RETRY
    assert log.complaints == ["Unable to write to file /dev/full: No space left on device"]
    log.file.close()


def test_file_comes_back_when_its_directory_can_be_made(tmp_path: Path) -> None:
    blocker = tmp_path / "logs"
    blocker.touch()
    log = LogUnderTest(blocker / "x.log")
    log.file.write(b"lost\n")
    blocker.unlink()
    log.file.write(b"too early\n")
    log.hands.monotonic += RETRY
    log.file.write(b"kept\n")
    assert log.path.read_bytes() == b"kept\n"
    assert len(log.complaints) == 1
    log.file.close()


def test_file_rolls_at_its_size(tmp_path: Path) -> None:
    log = LogUnderTest(tmp_path / "ts_log.log")
    log.fill("a")
    log.fill("b")
    log.fill("c")
    assert log.names() == ["ts_log.20-Nov.1.log.gz", "ts_log.20-Nov.log.gz", "ts_log.log"]
    assert gzip.decompress((tmp_path / "ts_log.20-Nov.log.gz").read_bytes()) == b"a" * 99 + b"\n"
    assert gzip.decompress((tmp_path / "ts_log.20-Nov.1.log.gz").read_bytes()) == b"b" * 99 + b"\n"
    assert log.path.read_bytes() == b"c" * 99 + b"\n"
    log.file.close()


def test_file_rolls_at_midnight_under_the_name_of_its_day(tmp_path: Path) -> None:
    log = LogUnderTest(tmp_path / "ts_log.log")
    log.file.write(b"yesterday\n")
    log.hands.monotonic = DAY
    log.file.write(b"today\n")
    assert log.names() == ["ts_log.20-Nov.log.gz", "ts_log.log"]
    assert log.path.read_bytes() == b"today\n"
    log.file.close()


def test_empty_file_does_not_roll(tmp_path: Path) -> None:
    log = LogUnderTest(tmp_path / "ts_log.log")
    log.hands.monotonic = DAY
    log.file.write(b"x" * 500)
    assert log.names() == ["ts_log.log"]
    log.file.close()


def test_file_of_an_earlier_run_rolls_at_the_first_write(tmp_path: Path) -> None:
    path = tmp_path / "access_log.log"
    path.write_bytes(b"old\n")
    os.utime(path, (NOON - 3 * DAY, NOON - 3 * DAY))
    log = LogUnderTest(path)
    log.file.write(b"new\n")
    assert log.names() == ["access_log.17-Nov.log.gz", "access_log.log"]
    log.file.close()


def test_five_archives_are_kept(tmp_path: Path) -> None:
    for name in ("other.20-Nov.log.gz", "ts_log.cfg", "ts_log.20-Nov.log.bak"):
        (tmp_path / name).touch()
    log = LogUnderTest(tmp_path / "ts_log.log")
    for index in range(9):
        log.fill(str(index))
    archives = [name for name in log.names() if name.startswith("ts_log.20") and name.endswith(".gz")]
    assert archives == [f"ts_log.20-Nov.{index}.log.gz" for index in (3, 4, 5, 6, 7)]
    assert {"other.20-Nov.log.gz", "ts_log.cfg", "ts_log.20-Nov.log.bak"} < set(log.names())
    log.file.close()


def test_archive_left_unpacked_is_packed_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "ts_log.19-Nov.log").write_bytes(b"killed while packing\n")
    log = LogUnderTest(tmp_path / "ts_log.log")
    log.fill("a")
    log.fill("b")
    assert log.names() == ["ts_log.19-Nov.log.gz", "ts_log.20-Nov.log.gz", "ts_log.log"]
    log.file.close()


def test_rolling_loses_no_line(tmp_path: Path) -> None:
    log = LogUnderTest(tmp_path / "ts_log.log", size_limit=2000)
    lines = [b"%05d\n" % index for index in range(1500)]
    for line in lines:
        log.file.write(line)
        log.file.wait_for_archives()
    log.file.close()
    names = [name for name in log.names() if name.endswith(".gz")]
    assert len(names) == 4
    names.sort(key=lambda name: int(name.split(".")[2]) if name.count(".") == 4 else 0)
    kept = b"".join(gzip.decompress((tmp_path / name).read_bytes()) for name in names) + log.path.read_bytes()
    assert kept == b"".join(lines)


class BrokenPipe(io.RawIOBase):
    """Standard output whose reader has gone."""

    def write(self, _: Any) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_broken_stdout_leaves_the_files(tmp_path: Path) -> None:
    with Served(tmp_path, stdout=cast(BinaryIO, BrokenPipe())) as served:
        for _ in range(3):
            served.get()
            served.telemetry.flush()
        assert len(served.file("access_log")) == 3
        lines = [line for line in served.file("ts_log") if "Standard output is gone" in line]
        assert lines == [
            f"{DATE},000 [WARN ] main org.pytorch.serve.telemetry - "
            "Standard output is gone ([Errno 32] Broken pipe): lines go to the log files only."
        ]


def test_stdout_takes_what_it_can(tmp_path: Path) -> None:
    class Sip(io.BytesIO):
        def write(self, text: Any) -> int:
            return super().write(bytes(text)[:7])

    sip = Sip()
    with Served(tmp_path, stdout=sip) as served:
        served.predict()
        served.telemetry.flush()
        assert sip.getvalue() == (tmp_path / "logs" / "ts_log.log").read_bytes()


def test_reader_that_stalls_loses_lines_but_never_halves() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    complaints: list[str] = []
    with os.fdopen(writer, "wb", buffering=0) as stream, os.fdopen(reader, "rb", buffering=0) as pipe:
        console = Console(stream, complaints.append, stall=0.0)
        line = b"x" * 999 + b"\n"
        for _ in range(100):
            console.write(line * 3)
        assert len(complaints) == 1
        read = pipe.read(1 << 20)
        console.write(b"after\n")
        read += pipe.read(1 << 20)
    assert read.endswith(b"\nafter\n")
    assert set(read.splitlines()) == {b"x" * 999, b"after"}


def test_real_stdout_that_nobody_reads_stops_nothing(tmp_path: Path) -> None:
    program = """
import sys
from pathlib import Path
from modelserver.settings.table import Settings
from modelserver.telemetry.telemetry import Telemetry

logs = Path(sys.argv[1])
telemetry = Telemetry(Settings(log_location=logs, metrics_location=logs))
for _ in range(2000):
    telemetry.request_done("/127.0.0.1:1", "GET", "/ping", "HTTP/1.1", 200, 0.0, 0.0)
telemetry.announce("last words")
telemetry.close()
"""
    with subprocess.Popen([sys.executable, "-c", program, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.wait(60) == 0
        assert process.stdout is not None
        head = process.stdout.read()
    assert b"GET /ping" in head
    assert len((tmp_path / "access_log.log").read_bytes().splitlines()) == 2000
    assert b"Nobody reads standard output" in (tmp_path / "ts_log.log").read_bytes()


def request(index: int) -> RequestDone:
    """Any request record."""
    return RequestDone("", "GET", f"/{index}", "", 200, 0.0, 0.0, "", "", "", "", 0.0, 0.0, False)


def test_ring_drops_the_newest_and_counts() -> None:
    ring = Ring(events=3)
    for index in range(5):
        ring.offer(request(index))
    ring.put(Announcement("never dropped"))
    assert ring.take_dropped() == 2
    assert ring.take_dropped() == 0
    assert ring.take(3) == [request(0), request(1), request(2)]
    ring.offer(request(6))
    assert ring.take(3) == [Announcement("never dropped"), request(6)]
    assert (ring.take(3), ring.take_dropped()) == ([], 0)


def test_ring_bounds_waiting_output_by_its_size() -> None:
    ring = Ring(printed=100)
    for _ in range(3):
        ring.offer_printed(Printed(0.0, WORKER, "stdout", "x" * 40))
    assert ring.take_dropped() == 1
    assert len(ring.take(9)) == 2
    ring.offer_printed(Printed(0.0, WORKER, "stdout", "y" * 100))
    assert (len(ring.take(9)), ring.take_dropped()) == (1, 0)


def test_resting_writer_is_woken_by_the_first_record() -> None:
    ring = Ring()
    taken: list[int] = []

    def rest() -> None:
        ring.rest(0.0, idle=True)
        taken.append(len(ring.take(9)))

    thread = threading.Thread(target=rest)
    thread.start()
    while not ring.idle:
        pass
    ring.offer(request(0))
    thread.join(60)
    assert taken == [1]


def test_urgent_record_cuts_the_rest_short() -> None:
    ring = Ring()
    ring.put(Flush(threading.Event()))
    ring.rest(3600.0, idle=True)
    assert len(ring.take(9)) == 1


def test_dropped_events_are_told(tmp_path: Path) -> None:
    with Served(tmp_path, ring=Ring(events=0)) as served:
        served.get()
        served.get()
        served.telemetry.log("INFO", "ModelServer", "kept")
        text = "\n".join(served.stdout() + served.stdout())
        assert "ModelServer - kept" in text
        assert "[WARN ] main org.pytorch.serve.telemetry - 2 events came faster than they could be written" in text
        assert served.file("access_log") == []


def test_counts_are_exact_under_many_events(tmp_path: Path) -> None:
    async def load(served: Served) -> str:
        for turn in range(100):
            for index in range(100):
                served.batch(f"{turn}-{index}", metrics=[prediction_time()])
                served.predict(f"{turn}-{index}")
            await asyncio.sleep(0)
        return (await served.telemetry.scrape([])).decode()

    with Served(tmp_path / "prometheus", metrics_mode="PROMETHEUS") as served:
        text = asyncio.run(load(served))
        assert (
            'ts_inference_requests_total{model_name="probe",model_version="default",hostname="node1",} 10000.0' in text
        )
        assert 'Requests2XX{Level="Host",Hostname="node1",} 10000.0' in text
    with Served(tmp_path / "log") as served:
        asyncio.run(load(served))
        lines = {name: len(served.file(name)) for name in ("access_log", "model_log", "ts_metrics", "model_metrics")}
        assert lines == {"access_log": 10000, "model_log": 10000, "ts_metrics": 60000, "model_metrics": 10000}
        assert len(served.stdout()) == len(served.file("ts_log")) == 120000


def test_scrape_follows_everything_recorded_before(tmp_path: Path) -> None:
    async def scrape_often(served: Served) -> None:
        for expected in range(1, 50):
            served.get()
            text = (await served.telemetry.scrape(["Requests2XX"])).decode()
            assert text.splitlines()[2] == f'Requests2XX{{Level="Host",Hostname="node1",}} {expected}.0'

    with Served(tmp_path, metrics_mode="PROMETHEUS") as served:
        asyncio.run(scrape_often(served))


def test_scrape_whose_client_left_harms_nobody(tmp_path: Path) -> None:
    async def leave(served: Served) -> bytes:
        gone = asyncio.ensure_future(served.telemetry.scrape([]))
        await asyncio.sleep(0)
        gone.cancel()
        return await served.telemetry.scrape(["Requests2XX"])

    with Served(tmp_path, metrics_mode="PROMETHEUS") as served:
        served.get()
        assert b"Requests2XX{" in asyncio.run(leave(served))


def test_bad_records_do_not_stop_the_writer(tmp_path: Path) -> None:
    with Served(tmp_path) as served:
        served.telemetry.batch_done(WORKER, "m", ["id"], cast(float, None), 1.0, [], True)
        served.telemetry.log("INFO", "ModelServer", "x", cast(str, 5))
        served.predict(cast(str, 7))
        served.get()
        text = "\n".join(served.stdout())
        assert "A BatchDone record could not be written: " in text
        assert "A ServerLine record could not be written: " in text
        assert "Sending response for jobId 7" in text
        assert len(served.file("access_log")) == 2


def test_close_writes_everything_and_can_be_repeated(tmp_path: Path) -> None:
    served = Served(tmp_path)
    served.batch("a")
    served.predict("a")
    served.telemetry.log("INFO", "ModelServer", "Torchserve stopped.")
    served.telemetry.close()
    served.telemetry.close()
    served.telemetry.flush()
    assert served.scrape() == ""
    lines = served.memory.getvalue().decode().splitlines()
    assert lines[-1].endswith("org.pytorch.serve.ModelServer - Torchserve stopped.")
    assert any("Backend response time" in line for line in lines)


@pytest.mark.parametrize("how", ["removed", "moved", "with its folder"])
def test_a_file_that_is_gone_is_made_anew(tmp_path: Path, how: str) -> None:
    """As other programs that rotate logs have it; the look for it is not made at every write."""
    log = LogUnderTest(tmp_path / "logs" / "x.log")
    log.file.write(b"one\n")
    match how:
        case "removed":
            log.path.unlink()
        case "moved":
            log.path.rename(tmp_path / "old")
        case _:
            shutil.rmtree(log.path.parent)
    log.file.write(b"two\n")
    assert not log.path.exists()
    log.hands.monotonic += LOOK
    log.file.write(b"three\n")
    log.file.close()
    assert log.path.read_bytes() == b"three\n"
    if how == "moved":
        assert (tmp_path / "old").read_bytes() == b"one\ntwo\n"
    assert log.complaints == []


def test_a_file_that_somebody_has_emptied_rolls_by_what_is_in_it(tmp_path: Path) -> None:
    log = LogUnderTest(tmp_path / "x.log")
    log.fill("a")
    os.truncate(log.path, 0)
    log.hands.monotonic += LOOK
    log.fill("b")
    assert log.names() == ["x.log"]
    log.fill("c")
    assert log.names() == ["x.20-Nov.log.gz", "x.log"]
    log.file.close()


def test_a_pipe_that_nobody_reads_holds_nobody_up(tmp_path: Path) -> None:
    pipe = tmp_path / "x.log"
    os.mkfifo(pipe)
    log = LogUnderTest(pipe)
    assert log.complaints == [f"Unable to create file {pipe}: {os.strerror(errno.ENXIO)}"]
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log.hands.monotonic += RETRY
    log.file.write(b"told\n")
    assert os.read(reader, 100) == b"told\n"
    log.file.close()
    os.close(reader)


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_a_name_that_no_file_can_have_costs_only_its_lines(tmp_path: Path, name: str) -> None:
    log = LogUnderTest(tmp_path / name)
    log.file.write(b"lost\n")
    (complaint,) = log.complaints
    assert complaint.startswith("Unable to create file ")


class Odd(io.RawIOBase):
    """A stream that fails as none should."""

    def write(self, text: Any) -> int:
        raise RuntimeError("odd")


def test_whatever_a_stream_does_the_rest_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with Served(tmp_path, stdout=cast(BinaryIO, Odd())) as served:
        served.get()
        assert len(served.file("access_log")) == 1
        served.get()
        assert len(served.file("access_log")) == 2
    assert capfd.readouterr().err == "'telemetry' cannot log: RuntimeError: odd\n"
