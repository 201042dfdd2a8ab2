"""Lines that all events of one kind share: the fixed text is made once, the fields of an event go in between."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Final

from modelserver.telemetry.page import Page
from modelserver.telemetry.scribe import Scribe

_FIELD: Final = re.compile("\0(\\w+)\0")
_PLACES: Final = slice(1, None, 2)  # of the fields in a text that is cut at them: text, field, text, ..., text

_Fields = tuple[str, ...]
_Template = tuple[list[str], list[str], Callable[[_Fields], _Fields]]  # sink on the page, pieces, choice of fields


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
        self._last: _Fields = ()
        self._texts: list[tuple[list[str], str]] = []
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

    def finish(self, names: Sequence[str]) -> Form:
        """Close the form: from now on it is only filled in, with fields in the order of `names`."""
        sinks = zip(self._scribe.page.lines, self._page.lines, strict=True)
        self._templates = [_template(sink, "".join(lines), names) for sink, lines in sinks if lines]
        return self

    def update(self, **numbers: float) -> None:
        """Update the stored series."""
        for store, number in self.updates:
            store(numbers[number])

    def write(self, fields: _Fields) -> None:
        """Put the lines of one event on the page. Nothing checks that the fields are text before it is taken."""
        for sink, pieces, pick in self._templates:
            # The quickest way, measured: no text is made here, the page joins all its pieces at once.
            pieces[_PLACES] = pick(fields)
            sink += pieces

    def repeat(self, fields: _Fields) -> None:
        """The same where most events have the fields of the one before: under load they share a millisecond."""
        if fields != self._last:
            self._last = fields
            self._texts = [(sink, _text(pieces, pick(fields))) for sink, pieces, pick in self._templates]
        for sink, text in self._texts:
            sink.append(text)


def _template(sink: list[str], text: str, names: Sequence[str]) -> _Template:
    pieces = _FIELD.split(text)
    return sink, pieces, _picker([names.index(name) for name in pieces[_PLACES]])


def _text(pieces: list[str], fields: _Fields) -> str:
    pieces[_PLACES] = fields
    return "".join(pieces)


def _picker(places: Sequence[int]) -> Callable[[_Fields], _Fields]:
    if len(places) == 1:
        return lambda fields: (fields[places[0]],)  # itemgetter would give the bare value
    return itemgetter(*places)


def _fixed(text: str) -> str:
    """Text of others, without anything that could be taken for a field."""
    return text.replace("\0", "")
