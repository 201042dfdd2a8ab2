"""Rolling: when files are moved away by the patterns of their archives, and what these are called."""

from __future__ import annotations

import bz2
import gzip
import os
from datetime import datetime
from pathlib import Path

import pytest
from telemetry_served import NOON, Hands

from modelserver.logconfig.plan import FileTarget, Rolling
from modelserver.telemetry.archives import ArchiveNames
from modelserver.telemetry.files import LogFile
from modelserver.telemetry.java_dates import finest_unit, ordinal

TIME = datetime(2026, 11, 20, 15, 28, 56)


class Rolled:
    """A file that rolls in a directory of its own."""

    def __init__(
        self, directory: Path, pattern: str, *, append: bool = True, name: str = "x.log", **rolling: int
    ) -> None:
        self.hands = Hands()
        self.directory = directory
        self.complaints: list[str] = []
        roll = Rolling(f"{directory}/{pattern}", **rolling)  # type: ignore[arg-type]
        target = FileTarget(directory / "x.log", append, roll)
        self.file = LogFile(target, self.hands.clock(), self.complaints.append)

    def write(self, text: str, after: float = 0.0) -> None:
        """Write a line that many seconds later."""
        self.file.wait_for_archives()
        self.hands.monotonic += after
        self.file.write(f"{text}\n".encode())
        self.file.wait_for_archives()

    def files(self) -> dict[str, str]:
        """Name and text of all files, once all archives are packed."""
        self.file.wait_for_archives()
        self.file.close()
        paths = (path for path in self.directory.rglob("*") if path.is_file())
        openers = {".gz": gzip.decompress, ".bz2": bz2.decompress}
        return {
            str(path.relative_to(self.directory)): openers.get(path.suffix, bytes)(path.read_bytes()).decode()
            for path in paths
        }


@pytest.mark.parametrize(
    ("pattern", "number", "name"),
    [
        ("/l/ts_log.%d{dd-MMM}.log.gz", 0, "/l/ts_log.20-Nov.log"),
        ("/l/ts_log.%d{dd-MMM}.log.gz", 2, "/l/ts_log.20-Nov.2.log"),
        ("/l/app.log.%d{yyyy.MM.dd}", 0, "/l/app.log.2026.11.20"),
        ("/l/app.log.%d{yyyy.MM.dd}", 1, "/l/app.log.2026.11.20.1"),
        ("/l/app-%d{yyyy-MM-dd}-%i.log.gz", 1, "/l/app-2026-11-20-1.log"),
        ("/l/app-%03i.log", 7, "/l/app-007.log"),
        ("/l/%d{yyyy-MM}/app-%d{dd}.log", 0, "/l/2026-11/app-20.log"),
        ("/l/app-%d.log", 0, "/l/app-2026-11-20.log"),
        ("/l/100%%/app.%i", 1, "/l/100%/app.1"),
        ("/l.d/app", 1, "/l.d/app.1"),
    ],
)
def test_names(pattern: str, number: int, name: str) -> None:
    names = ArchiveNames(pattern)
    assert str(names.name(TIME, number)) == name
    match = names.match(Path(name))
    assert match is not None
    assert int(match["index"] or 0) == number
    assert names.match(Path(name + names.packing)) is not None


@pytest.mark.parametrize(
    "name", ["/l/ts_log.log", "/l/ts_log.20-Nov.log.bak", "/l/other.20-Nov.log.gz", "/m/ts_log.20-Nov.log"]
)
def test_other_files_are_no_archives(name: str) -> None:
    assert ArchiveNames("/l/ts_log.%d{dd-MMM}.log.gz").match(Path(name)) is None


@pytest.mark.parametrize(
    ("pattern", "unit"),
    [
        ("dd-MMM", "d"),
        ("yyyy-MM", "M"),
        ("yyyy", "y"),
        ("yyyy-ww", "w"),
        ("yyyy-MM-dd-HH", "H"),
        ("HH:mm", "m"),
        ("HH:mm:ss.SSS", "S"),
        ("'daily'", ""),
    ],
)
def test_finest_unit(pattern: str, unit: str) -> None:
    assert finest_unit([pattern, "yyyy"] if unit else [pattern]) == unit


@pytest.mark.parametrize(
    ("unit", "same", "next_one"),
    [
        ("y", datetime(2026, 1, 1), datetime(2027, 1, 1)),
        ("M", datetime(2026, 11, 1), datetime(2026, 12, 1)),
        ("w", datetime(2026, 11, 16), datetime(2026, 11, 23)),
        ("d", datetime(2026, 11, 20), datetime(2026, 11, 21)),
        ("a", datetime(2026, 11, 20, 12), datetime(2026, 11, 21)),
        ("H", datetime(2026, 11, 20, 15), datetime(2026, 11, 20, 16)),
        ("m", datetime(2026, 11, 20, 15, 28), datetime(2026, 11, 20, 15, 29)),
        ("s", TIME, datetime(2026, 11, 20, 15, 28, 57)),
    ],
)
def test_ordinals(unit: str, same: datetime, next_one: datetime) -> None:
    assert ordinal(same, unit) == ordinal(TIME, unit)
    assert ordinal(next_one, unit) == ordinal(TIME, unit) + 1


def test_numbers_rise_and_the_oldest_go(tmp_path: Path) -> None:
    rolled = Rolled(tmp_path, "x-%i.log.gz", size=4, keep=2)
    for text in ("one", "two", "three", "four"):
        rolled.write(text)
    assert rolled.files() == {"x-2.log.gz": "two\n", "x-3.log.gz": "three\n", "x.log": "four\n"}


def test_every_archive_stays_without_a_limit(tmp_path: Path) -> None:
    rolled = Rolled(tmp_path, "x-%d{dd}-%i.log.bz2", size=4)
    for number in range(12):
        rolled.write(f"{number:03d}")
    assert sorted(rolled.files().values()) == [f"{number:03d}\n" for number in range(12)]


def test_hours(tmp_path: Path) -> None:
    rolled = Rolled(tmp_path, "x.%d{HH}.log", interval=1)
    rolled.write("noon")
    rolled.write("half past", 1800)
    rolled.write("one", 1800)
    rolled.write("three", 7200)
    assert rolled.files() == {"x.12.log": "noon\nhalf past\n", "x.13.log": "one\n", "x.log": "three\n"}


@pytest.mark.parametrize(("modulate", "archived"), [(True, "a\n"), (False, "a\nb\n")])
def test_intervals_begin_with_the_file_or_with_the_clock(tmp_path: Path, modulate: bool, archived: str) -> None:
    """From 13:00, with intervals of six hours: 18:00 is the end of one, or the fifth hour of the file."""
    rolled = Rolled(tmp_path, "x.%d{HH}.log", interval=6, modulate=modulate)
    rolled.write("a", 3600)
    rolled.write("b", 5 * 3600)
    rolled.write("c", 3600)
    assert rolled.files()["x.13.log"] == archived


def test_rolling_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("earlier\n")
    os.utime(tmp_path / "x.log", (NOON, NOON))
    rolled = Rolled(tmp_path, "x-%d{dd}.log", at_start=True)
    rolled.write("now")
    rolled.write("later")
    assert rolled.files() == {"x-20.log": "earlier\n", "x.log": "now\nlater\n"}


def test_file_that_is_not_appended_to(tmp_path: Path) -> None:
    (tmp_path / "x.log").write_text("earlier\n")
    rolled = Rolled(tmp_path, "x-%d{dd}.log", append=False)
    rolled.write("now")
    assert rolled.files() == {"x.log": "now\n"}


def test_what_is_no_file_never_rolls(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.log")
    reader = os.open(tmp_path / "x.log", os.O_RDONLY | os.O_NONBLOCK)
    rolled = Rolled(tmp_path, "x-%i.log", size=4, interval=1)
    for text in ("one", "two", "three"):
        rolled.write(text, 86400)
    assert os.read(reader, 100) == b"one\ntwo\nthree\n"
    os.close(reader)
    assert [path.name for path in tmp_path.iterdir()] == ["x.log"]


def test_folders_by_month(tmp_path: Path) -> None:
    rolled = Rolled(tmp_path, "%d{yyyy-MM}/x-%d{dd}.log.gz", interval=1)
    rolled.write("November")
    rolled.write("December", 12 * 86400)
    assert rolled.files() == {"2026-11/x-20.log.gz": "November\n", "x.log": "December\n"}


def test_folder_that_cannot_be_made_costs_a_complaint_and_no_line(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    rolled = Rolled(tmp_path, "old/x-%i.log", size=4)
    for text in ("one", "two"):
        rolled.write(text)
    assert rolled.files()["x.log"] == "one\ntwo\n"
    assert len(rolled.complaints) == 1
    assert rolled.complaints[0].startswith(f"Unable to roll file {tmp_path}/x.log: ")


def test_the_number_may_stand_in_several_places_and_is_not_filled_up_without_end(tmp_path: Path) -> None:
    rolled = Rolled(tmp_path, "%i/x-%99999999999999999999i.log", size=4, keep=2)
    for text in ("one", "two", "six", "ten"):
        rolled.write(text)
    assert rolled.files() == {"2/x-000000002.log": "two\n", "3/x-000000003.log": "six\n", "x.log": "ten\n"}


@pytest.mark.parametrize(
    ("pattern", "names"),
    [("x.log", ["x.2.log", "x.3.log", "x.log"]), ("x.log.gz", ["x.2.log.gz", "x.3.log.gz", "x.log"])],
)
def test_archives_with_the_name_of_the_log(tmp_path: Path, pattern: str, names: list[str]) -> None:
    """What is still written is no archive: neither packed nor removed."""
    rolled = Rolled(tmp_path, pattern, size=4, keep=2)
    for text in ("one", "two", "six", "ten"):
        rolled.write(text)
    files = rolled.files()
    assert sorted(files) == names
    assert files["x.log"] == "ten\n"


def test_an_archive_that_cannot_be_packed_stays_as_it_is_and_leaves_no_piece(tmp_path: Path) -> None:
    rolled = Rolled(tmp_path, "x-%i.log.gz", size=4)
    (tmp_path / "x-1.log.gz").mkdir()
    (tmp_path / "x-1.log.gz" / "in-the-way").touch()
    rolled.write("one")
    rolled.write("two")
    assert rolled.files() == {"x-1.log.gz/in-the-way": "", "x-2.log.gz": "one\n", "x.log": "two\n"}
