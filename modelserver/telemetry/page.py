"""The page: the lines of one write, sink by sink."""

from __future__ import annotations

from typing import Final

from modelserver.logconfig.plan import SERVER
from modelserver.telemetry.routes import Routes

SERVER_PREFIX: Final = f"{SERVER}."

_NOT_IN_THREADS: Final = str.maketrans(dict.fromkeys(" \t\n\r\v\f:", "_"))


def thread_name(text: str) -> str:
    """A thread name without blanks and colons, on which parsers of the lines rely."""
    return text.translate(_NOT_IN_THREADS)


class Page:
    """Texts by the number of their sink; nothing checks that they are text before they are taken."""

    __slots__ = ("lines", "routes")

    def __init__(self, routes: Routes) -> None:
        self.routes = routes
        self.lines: tuple[list[str], ...] = tuple([] for _ in routes.sinks)

    def take(self, sink: int) -> bytes:
        """The text of a sink as UTF-8, which is then empty."""
        lines = self.lines[sink]
        text = "".join(lines)
        lines.clear()
        return text.encode("utf-8", "backslashreplace")
