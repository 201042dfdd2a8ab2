"""Files of saved configurations: their names, their text, which one a start takes up, and who has written it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from pathlib import Path
from typing import Final

import javaproperties

from modelserver.settings.properties import Given

FOLDER: Final = "config"  # in the directory of the log files
STARTUP: Final = "startup"
CHANGE: Final = "snapshot"
SHUTDOWN: Final = "shutdown"

_KINDS: Final = (STARTUP, CHANGE, SHUTDOWN)
_NAME: Final = re.compile(rf"([0-9]{{17}})-({'|'.join(_KINDS)})\.cfg")
_FIRST_LINE: Final = "#Saving snapshot"
_MARK: Final = "#Written by modelserver"
_HEAD: Final = 500  # bytes that hold the first three lines


class Origin(Enum):
    """Who has written a configuration file."""

    USER = auto()
    TORCHSERVE = auto()
    OWN = auto()


@dataclass(frozen=True, slots=True)
class SavedFiles:
    """What a start finds where configurations are saved."""

    newest: Path | None
    skipped: tuple[str, ...]  # names, each with the reason


def find_saved(folder: Path) -> SavedFiles:
    """The newest saved configuration, by the time in its name, and what there is besides. Reads the directory."""
    try:
        usable = {entry.name: _is_usable(entry) for entry in folder.iterdir() if not is_partial(entry.name)}
    except (FileNotFoundError, NotADirectoryError):
        return SavedFiles(None, ())
    except OSError as error:
        return SavedFiles(None, (f"{folder} ({error.strerror})",))
    names = in_order(name for name, good in usable.items() if good)
    skipped = sorted(set(usable) - set(names))
    return SavedFiles(folder / names[-1] if names else None, tuple(skipped))


def in_order(names: Iterable[str]) -> list[str]:
    """Those that are names of saved configurations, oldest first."""
    return sorted(filter(_NAME.fullmatch, names), key=_rank)


def file_name(moment: datetime, kind: str) -> str:
    """The name of a configuration saved at a local time."""
    return f"{moment:%Y%m%d%H%M%S}{moment.microsecond // 1000:03}-{kind}.cfg"


def moment_of(name: str) -> datetime | None:
    """The local time in a file's name; None if there is no such time."""
    try:
        return datetime.strptime(name[:17] + "000", "%Y%m%d%H%M%S%f")
    except ValueError:
        return None


def partial_name(name: str) -> str:
    """The name of a file while it is written: no start takes it up."""
    return f".{name}.part"


def is_partial(name: str) -> bool:
    """Whether it is such a name."""
    return name.startswith(".") and name.endswith(".part") and _NAME.fullmatch(name[1:-5]) is not None


def document(properties: Mapping[str, str], moment: datetime, version: str) -> bytes:
    """The text of a file: pure ASCII, in the syntax of Java's `.properties`."""
    lines = [_FIRST_LINE, f"#{javaproperties.java_timestamp(moment)}", f"{_MARK} {version}"]
    lines += [javaproperties.join_key_value(key, text) for key, text in properties.items()]
    return "".join(f"{line}\n" for line in lines).encode("ascii", "backslashreplace")


def read_origin(path: Path) -> Origin:
    """Who has written a file; what cannot be read is the user's."""
    try:
        with path.open("rb") as file:
            lines = file.read(_HEAD).decode("iso-8859-1").splitlines()[:3]
    except OSError:
        return Origin.USER
    if not lines or lines[0].strip() != _FIRST_LINE:
        return Origin.USER
    return Origin.OWN if any(line.startswith(_MARK) for line in lines) else Origin.TORCHSERVE


def forget_derived_store(given: dict[str, Given]) -> None:
    """Drop a saved workflow store that is the saved model store: it follows the model store of this start."""
    model_store, workflow_store = given.get("model_store"), given.get("workflow_store")
    if model_store and workflow_store and model_store.text == workflow_store.text:
        del given["workflow_store"]


def _is_usable(entry: Path) -> bool:
    """A regular file with something in it: a program that died while writing may have left an empty one."""
    try:
        return entry.is_file() and entry.stat().st_size > 0
    except OSError:
        return False


def _rank(name: str) -> tuple[str, int]:
    stamp, _, kind = name.partition("-")
    return stamp, _KINDS.index(kind.removesuffix(".cfg"))
