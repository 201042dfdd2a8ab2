"""Every setting in force, with its value and where it came from, for people and for programs."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from modelserver.settings.notices import Notice, printable
from modelserver.settings.table import Settings, rows
from modelserver.settings.unserved import unserved_settings

# What no key sets: the command line, the environment or the installation do.
OTHERS: Final = (
    "config_file",
    "snapshots",
    "log_config",
    "log_location",
    "metrics_location",
    "temp_dir",
    "home",
    "python",
)

_MASK: Final = "********"
_USER_OF_URL: Final = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_SECRET_OPTION: Final = re.compile(r"(?i)(-D\S*?(?:pass|secret|token)\S*?=)\S+")
_LONGEST: Final = 100_000  # characters of a value


def as_text(settings: Settings) -> str:
    """One line per setting, `name=value  (source)`, then what the log would say about them."""
    lines = [f"{name}={text_of(value)}  ({source})" for name, value, source in _entries(settings)]
    lines += [f"{notice.level} {notice.message}" for notice in _notices(settings)]
    return "\n".join(printable(line, _LONGEST) for line in lines)


def as_json(settings: Settings) -> str:
    """The same as a JSON object: `settings` (name -> value and source) and `notices`."""
    entries = {name: {"value": plain(value), "source": source} for name, value, source in _entries(settings)}
    notices = [{"level": notice.level, "message": notice.message} for notice in _notices(settings)]
    return json.dumps({"settings": entries, "notices": notices}, indent=2)


def _notices(settings: Settings) -> list[Notice]:
    return [*settings.notices, *unserved_settings(settings)]


def text_of(value: Any) -> str:
    """A value as a configuration file would state it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(text_of, value))
    if isinstance(value, Mapping):
        return json.dumps(value) if value else ""
    return "" if value is None else str(plain(value))


def plain(value: Any) -> Any:
    """A value in JSON's types."""
    if isinstance(value, tuple):
        return [plain(element) for element in value]
    if isinstance(value, re.Pattern):
        return value.pattern
    return value if value is None or isinstance(value, bool | int | float | Mapping) else str(value)


def _entries(settings: Settings) -> list[tuple[str, Any, str]]:
    """Name, value without passwords, and source of every setting."""
    keys = [(key, _MASK if row.secret else _masked(getattr(settings, key))) for key, row in rows().items()]
    others = [(name, getattr(settings, name)) for name in OTHERS]
    return [(name, value, settings.source(name)) for name, value in keys + others]


def _masked(value: Any) -> Any:
    """A text without the passwords that URLs and JVM options in it may carry."""
    return _SECRET_OPTION.sub(rf"\1{_MASK}", _USER_OF_URL.sub(_MASK, value)) if type(value) is str else value
