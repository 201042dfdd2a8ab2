"""What is left of JVM options where there is no JVM: the `-D` names in `vmargs`."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit


def system_properties(vmargs: str) -> dict[str, str]:
    """The `-DNAME=VALUE` options, last one wins; `-DNAME` is empty. Everything else is dropped."""
    definitions = (option[2:].partition("=") for option in vmargs.split() if option.startswith("-D"))
    return {name: value for name, _, value in definitions if name}


def local_path(location: str) -> Path:
    """The path behind a `file:` URL or a plain path."""
    return Path(unquote(urlsplit(location).path) if location.startswith("file:") else location)
