"""Lines that all events of one kind share: the fixed text is made once, the fields of an event go in between."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Final

from modelserver.telemetry.page import Page
from modelserver.telemetry.scribe import Scribe

_FIELD: Final = re.compile("\0(\\w+)\0")

_Fields = Mapping[str, str]


def field(name: str) -> str:
    """The place of a field in the text of a form."""
    return f"\0{name}\0"


class Form:
    """Lines by sink, in the order in which they were added, and the stored series to update.

    `moment` names two fields: `<moment>` is its date, `<moment>_s` its epoch seconds.
    """

    def __init__(self, scribe: Scribe, thread: str) -> None:
        self._scribe = scribe
        self._thread = _fixed(thread)
        self._page = Page()
        self._templates: list[_Template] = []
        self.updates: list[tuple[Callable[[float], None], str]] = []

    def server(self, moment: str, level: str, logger: str, message: str) -> None:
        """Add a line of the server."""
        self._page.server(field(moment), level, self._thread, logger, message)

    def access(self, moment: str, message: str) -> None:
        """Add a line of the access log."""
        self._page.access(field(moment), self._thread, message)

    def model(self, moment: str, message: str) -> None:
        """Add a line as if the worker had printed it."""
        self._page.model(field(moment), "INFO", self._thread + "-stdout", message)

    def metric(self, moment: str, name: str, labels: tuple[str, ...], number: str, thread: str | None = None) -> None:
        """Add an update of a server metric by a number, which is a field, too."""
        series = self._scribe.server_series(name, labels)
        if series is None:
            return
        if series.store is not None:
            self.updates.append((series.store, number))
            return
        tail = f"{_fixed(series.tail)}timestamp:{field(f'{moment}_s')}"
        self._page.ts_metric(field(moment), thread or self._thread, f"{_fixed(series.head)}{field(number)}{tail}")

    def finish(self) -> Form:
        """Close the form: from now on it is only filled in."""
        self._templates = [_Template(sink, "".join(lines)) for sink, lines in enumerate(self._page.lines) if lines]
        return self

    def update(self, numbers: Mapping[str, float]) -> None:
        """Update the stored series."""
        for store, number in self.updates:
            store(numbers[number])

    def write(self, fields: _Fields) -> None:
        """Put the lines of one event on the page."""
        lines = self._scribe.page.lines
        for template in self._templates:
            # Three times as fast as `%` or `format`: the fields drop into every second place of the pieces.
            template.pieces[1::2] = template.pick(fields)
            lines[template.sink].append("".join(template.pieces))


class _Template:
    """The text for one sink, cut at its fields."""

    __slots__ = ("pick", "pieces", "sink")

    def __init__(self, sink: int, text: str) -> None:
        self.sink = sink
        self.pieces = _FIELD.split(text)  # text, field, text, ..., text
        self.pick = _picker(self.pieces[1::2])


def _picker(names: Sequence[str]) -> Callable[[_Fields], Sequence[str]]:
    if len(names) == 1:
        return lambda fields: (fields[names[0]],)  # itemgetter would give the bare value
    return itemgetter(*names)


def _fixed(text: str) -> str:
    """Text of others, without anything that could be taken for a field."""
    return text.replace("\0", "")
