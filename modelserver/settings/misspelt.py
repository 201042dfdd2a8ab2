"""Names that nobody knows, and the known name that was probably meant."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Final

from modelserver.settings.notices import Notice, printable
from modelserver.settings.properties import Given
from modelserver.settings.variables import VARIABLES

_LIKENESS: Final = 0.75  # of a misspelt key: `job_queue` is like `job_queue_size`, `NUM_WORKERS` like nothing
_LONGEST: Final = 80  # characters of a name that are compared and shown
_MOST: Final = 20  # unknown keys that are named: a file that is none has any number
_LOGGER: Final = "util.ConfigManager"
_FORMER: Final = {"metrics_format": "metrics_mode"}  # key of old releases -> what took its place


def nearest(name: str, known: Collection[str], likeness: float = _LIKENESS) -> str | None:
    """The known name most like this one, if any is; letter case, `_`, `-` and `.` do not count."""
    plain = {_plain(other): other for other in known}
    matches = get_close_matches(_plain(name[:_LONGEST]), plain, 1, likeness)
    return plain[matches[0]] if matches else None


def unknown_keys(given: Mapping[str, Given], known: Collection[str]) -> list[Notice]:
    """What to log about keys of a configuration file that have no meaning."""
    unknown = [key for key in given if key not in known]
    replaced = {key for key, present in _FORMER.items() if key in given and present not in given}
    notices = [_former_key(key, given[key].source) for key in sorted(replaced)]
    unknown = [key for key in unknown if key not in replaced]
    notices += [_unknown_key(key, given[key].source, known) for key in unknown[:_MOST]]
    if (rest := len(unknown) - _MOST) > 0:
        notices.append(Notice("WARN", _LOGGER, f"{rest} more unknown keys"))
    return notices


def unknown_variables(environ: Collection[str], known: Mapping[str, Collection[str]]) -> list[Notice]:
    """What to log about environment variables that look like settings but are none; `known`: key -> its variables."""
    readable = {name for names in known.values() for name in names}
    closed = {f"TS_{key.upper()}": key for key, names in known.items() if not names}
    strange = [name for name in environ if name.startswith("TS_") and name not in readable and name not in VARIABLES]
    texts = [text for name in sorted(strange) if (text := _about_variable(name, readable, closed))]
    return [Notice("WARN", _LOGGER, text) for text in texts[:_MOST]]


def _about_variable(name: str, readable: Collection[str], closed: Mapping[str, str]) -> str | None:
    if name in closed:
        return f"{name} has no effect: {closed[name]} is not read from the environment"
    near = nearest(name, readable)
    return near and f"Unknown environment variable {printable(name, _LONGEST)}: did you mean {near}?"


def _former_key(key: str, source: str) -> Notice:
    text = f"{key} is a key of old releases and has no effect: did you mean {_FORMER[key]}? ({source})"
    return Notice("WARN", _LOGGER, text, source)


def _unknown_key(key: str, source: str, known: Collection[str]) -> Notice:
    name = printable(key, _LONGEST)
    if near := nearest(key, known):
        return Notice("WARN", _LOGGER, f"Unknown key {name}: did you mean {near}? ({source})", source)
    return Notice("INFO", _LOGGER, f"Unknown key {name} has no effect ({source})", source)


def _plain(name: str) -> str:
    return name.lower().translate({ord(mark): None for mark in "_-."})
