"""Old logs: a log that is full, or of yesterday, becomes `ts_log.20-Nov.log.gz` beside it."""

from __future__ import annotations

import bz2
import gzip
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, cast

from modelserver.telemetry.java_dates import date_format, date_regex

_CHUNK: Final = 1 << 20
_LEVEL: Final = 1  # packs several times faster than the default level, and log lines shrink to a tenth anyway
_PACKERS: Final[dict[str, Callable[[Path], BinaryIO]]] = {
    ".gz": lambda path: cast(BinaryIO, gzip.GzipFile(path, "wb", compresslevel=_LEVEL)),
    ".bz2": lambda path: cast(BinaryIO, bz2.BZ2File(path, "wb", compresslevel=_LEVEL)),
}
_CONVERSION: Final = re.compile(
    r"%(?P<width>\d*)i|(?P<dated>%d(?:ate)?(?:\{(?P<date>[^}]*)\})?(?:\{[^}]*\})?)|%%|[^%\0]+|%|\0"
)
_DATE: Final = "yyyy-MM-dd"
_WIDEST: Final = 9  # digits that a number is filled up to
_INDEX: Final = r"(?P<index>\d+)"
_OPTIONAL: Final = "\0"  # the place of a number that only the second archive of a name needs


class ArchiveNames:
    """Names by a pattern such as `logs/ts_log.%d{dd-MMM}.log.gz`; without `%i`, `.<n>` tells equal ones apart."""

    def __init__(self, pattern: str) -> None:
        self.packing = Path(pattern).suffix if Path(pattern).suffix in _PACKERS else ""
        pieces = [_Piece(match) for match in _CONVERSION.finditer(_with_place(pattern.removesuffix(self.packing)))]
        self.dates = [piece.date for piece in pieces if piece.date]
        self.first = max(piece.first for piece in pieces)
        fixed = "" if pieces[0].variable else pieces[0].text
        self.directory = Path(fixed[: fixed.rfind("/") + 1] or ".")
        self.nested = any("/" in piece.text for piece in pieces[1:])  # dates name folders, too
        self._pieces = pieces
        before, first, after = "".join(piece.regex for piece in pieces).partition(_INDEX)
        after = after.replace(_INDEX, r"\d+")  # the number may stand in several places
        self._regex = re.compile(f"{before}{first}{after}(?P<packed>{re.escape(self.packing)})?")

    def name(self, time: datetime, number: int) -> Path:
        """The name of that time and number, not packed."""
        return Path("".join(piece.format(time, number) for piece in self._pieces))

    def match(self, path: Path) -> re.Match[str] | None:
        """Whether a path is one of the names, `packed` or not, with its `index` if it has one."""
        return self._regex.fullmatch(str(path))


class _Piece:
    """One part of a pattern: fixed text, a date, or a number."""

    def __init__(self, match: re.Match[str]) -> None:
        self.variable = bool(match["dated"]) or match["width"] is not None or match[0] == _OPTIONAL
        self.text = "" if self.variable else "%" if match[0] == "%%" else match[0]
        self.date = (match["date"] or _DATE) if match["dated"] else ""
        self.first = 1 if match["width"] is not None else 0
        self.format: Callable[[datetime, int], str]
        if self.date:
            dated = date_format(self.date)
            self.format, self.regex = lambda time, number: dated(time), date_regex(self.date)
        elif match["width"] is not None:
            width = min(int(match["width"][:_WIDEST] or 1), _WIDEST)
            self.format, self.regex = lambda time, number: f"{number:0{width}d}", _INDEX
        elif match[0] == _OPTIONAL:
            self.format, self.regex = lambda time, number: f".{number}" if number else "", rf"(?:\.{_INDEX})?"
        else:
            self.format, self.regex = lambda time, number: self.text, re.escape(self.text)


def _with_place(pattern: str) -> str:
    """With the place of an optional number: before the last extension if it comes last of all, or at the end."""
    if re.search(r"%\d*i", pattern):
        return pattern
    name = max(pattern.rfind("/"), pattern.rfind("}"))
    dot = pattern.rfind(".", name + 1)
    place = dot if dot > name else len(pattern)
    return pattern[:place] + _OPTIONAL + pattern[place:]


class Archives:
    """The archives of one log file; they are packed in a thread of their own, one at a time."""

    def __init__(self, log: Path, pattern: str, keep: int) -> None:
        """`keep`: how many of them stay, 0 for all."""
        self._log = log
        self._names = ArchiveNames(pattern)
        self._keep = keep
        self._packer: threading.Thread | None = None

    @property
    def dates(self) -> list[str]:
        """The date patterns in the names."""
        return self._names.dates

    @property
    def busy(self) -> bool:
        """True while the last archive is being packed; another one would have to wait."""
        return self._packer is not None and self._packer.is_alive()

    def add(self, time: datetime) -> None:
        """Move the log away as an archive of that time and begin to pack it. Raises OSError."""
        self._log.rename(self._free_name(time))
        self._packer = threading.Thread(target=self._pack, name=f"pack-{self._log.stem}", daemon=True)
        self._packer.start()

    def wait(self) -> None:
        """Return when nothing is being packed."""
        if self._packer is not None:
            self._packer.join()

    def _free_name(self, time: datetime) -> Path:
        """The name of that time with the number after those that are taken."""
        numbers = [
            number
            for path, match in self._present()
            if _unpacked(path, match) == self._names.name(time, number := int(match["index"] or 0))
        ]
        if self._names.name(time, self._names.first) == self._log:  # whose name may be one of theirs
            numbers.append(self._names.first)
        path = self._names.name(time, max(numbers) + 1 if numbers else self._names.first)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _present(self) -> list[tuple[Path, re.Match[str]]]:
        matches = ((path, self._names.match(path)) for path in self._candidates())
        return [(path, match) for path, match in matches if match and path != self._log]

    def _candidates(self) -> Iterator[Path]:
        directory = self._names.directory
        if not directory.is_dir():
            return iter(())
        return directory.rglob("*") if self._names.nested else directory.iterdir()

    def _pack(self) -> None:
        # Takes what an earlier server left unpacked, too. A full disk leaves it to the next time.
        try:
            for path, match in self._present():
                if self._names.packing and not match["packed"]:
                    _pack_file(path, self._names.packing)
            self._prune()
        except OSError:
            pass

    def _prune(self) -> None:
        if not self._keep:
            return
        finished = [
            (path.stat().st_mtime_ns, int(match["index"] or 0), path)
            for path, match in self._present()
            if not self._names.packing or match["packed"]
        ]
        for *_, path in sorted(finished, reverse=True)[self._keep :]:
            path.unlink()


def _unpacked(path: Path, match: re.Match[str]) -> Path:
    return path.with_name(path.name.removesuffix(match["packed"] or ""))


def _pack_file(path: Path, packing: str) -> None:
    modified = path.stat()
    partial = path.with_name(f"{path.name}{packing}.part")
    try:
        with path.open("rb") as source, _PACKERS[packing](partial) as target:
            shutil.copyfileobj(source, target, _CHUNK)
    except OSError:
        partial.unlink(missing_ok=True)  # a disk that is full needs the room
        raise
    os.utime(partial, ns=(modified.st_atime_ns, modified.st_mtime_ns))
    partial.replace(path.with_name(f"{path.name}{packing}"))
    path.unlink()
