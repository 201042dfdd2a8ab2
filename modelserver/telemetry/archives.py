"""Old logs: a log that is full, or of yesterday, becomes `ts_log.20-Nov.log.gz` beside it."""

from __future__ import annotations

import gzip
import os
import re
import shutil
import threading
from pathlib import Path
from typing import Final

KEPT: Final = 5  # archives of one log

_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_CHUNK: Final = 1 << 20
_LEVEL: Final = 1  # packs several times faster than the default level, and log lines shrink to a tenth anyway


class Archives:
    """The archives of one log file; they are packed in a thread of their own, one at a time."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._packer: threading.Thread | None = None
        stem = re.escape(log.stem)
        self._pattern = re.compile(rf"{stem}\.(?P<day>\d\d-[A-Z][a-z]{{2}})(?:\.(?P<index>\d+))?\.log(?P<packed>\.gz)?")

    @property
    def busy(self) -> bool:
        """True while the last archive is being packed; another one would have to wait."""
        return self._packer is not None and self._packer.is_alive()

    def add(self, day: str) -> None:
        """Move the log away as an archive of that day (`2026-11-20`) and begin to pack it. Raises OSError."""
        self._log.rename(self._free_name(day))
        self._packer = threading.Thread(target=self._pack, name=f"pack-{self._log.stem}", daemon=True)
        self._packer.start()

    def wait(self) -> None:
        """Return when nothing is being packed."""
        if self._packer is not None:
            self._packer.join()

    def _free_name(self, day: str) -> Path:
        text = f"{day[8:10]}-{_MONTHS[int(day[5:7]) - 1]}"
        taken = [int(match["index"] or 0) for _, match in self._present() if match["day"] == text]
        index = f".{max(taken) + 1}" if taken else ""
        return self._log.with_name(f"{self._log.stem}.{text}{index}.log")

    def _present(self) -> list[tuple[Path, re.Match[str]]]:
        matches = ((path, self._pattern.fullmatch(path.name)) for path in self._log.parent.iterdir())
        return [(path, match) for path, match in matches if match]

    def _pack(self) -> None:
        # Takes what an earlier server left unpacked, too. A full disk leaves it to the next time.
        try:
            for path, match in self._present():
                if not match["packed"]:
                    _pack_file(path)
            self._prune()
        except OSError:
            pass

    def _prune(self) -> None:
        packed = [
            (path.stat().st_mtime_ns, int(match["index"] or 0), path)
            for path, match in self._present()
            if match["packed"]
        ]
        for *_, path in sorted(packed, reverse=True)[KEPT:]:
            path.unlink()


def _pack_file(path: Path) -> None:
    modified = path.stat()
    partial = path.with_name(f"{path.name}.gz.part")
    with path.open("rb") as source, gzip.open(partial, "wb", compresslevel=_LEVEL) as target:
        shutil.copyfileobj(source, target, _CHUNK)
    os.utime(partial, ns=(modified.st_atime_ns, modified.st_mtime_ns))
    partial.replace(path.with_name(f"{path.name}.gz"))
    path.unlink()
