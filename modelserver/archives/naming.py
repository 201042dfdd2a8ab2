"""Names: which file a url means, what an unnamed model is called, which model names are refused."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from modelserver.errors import BadRequest

_REMOTE = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_UNREACHABLE = re.compile(r"[/\x00-\x1f\x7f-\x9f]")
_UNNAMED = ("", ".", "..", "all")  # nothing, what clients take out of paths, and all versions


def is_remote(url: str) -> bool:
    """True if `url` begins with a scheme, so that it cannot mean a name in the model store."""
    return _REMOTE.match(url) is not None


def local_file_name(url: str) -> str:
    """Last component of a plain path; "" for `.` and `/`."""
    return PurePosixPath(url).name


def remote_file_name(url: str) -> str:
    """Last component of the path of a url, as written: percent escapes stay. Raises ValueError if there is none."""
    name = PurePosixPath(urlsplit(url).path).name
    if not name:
        raise ValueError(f"no file name in url: {url}")
    return name


def check_model_name(name: str) -> None:
    """Raises BadRequest for names that no url path could address."""
    if _UNREACHABLE.search(name):
        raise BadRequest(f"Model name contains a slash or a control character: {name!r}")


def is_reachable(version: str) -> bool:
    """Whether a url path could name this version. One that none could is served all the same, as the default one."""
    return version not in _UNNAMED and "/" not in version
