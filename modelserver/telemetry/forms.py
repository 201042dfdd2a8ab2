"""Lines that all events of one kind share: the fixed text is made once, the fields of an event go in between."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import Any, Final

from modelserver.logconfig.plan import ACCESS_LOG, MODEL_LOG, TS_METRICS
from modelserver.telemetry.catalogue import Series
from modelserver.telemetry.clock import Stamp
from modelserver.telemetry.layouts import Layout, LogEvent
from modelserver.telemetry.page import SERVER_PREFIX, Page

_FIELD: Final = re.compile("\0(\\w+)\0")
_PLACES: Final = slice(1, None, 2)  # of the fields in a text that is cut at them: text, field, text, ..., text

_Fields = tuple[Any, ...]
_Texts = tuple[str, ...]
_Template = tuple[list[str], list[str], Callable[[_Fields], _Texts]]  # sink on the page, pieces, choice of fields


def field(name: str) -> str:
    """The place of a field in the text of a form."""
    return f"\0{name}\0"


class Form:
    """Lines by sink, in the order in which they were added, and the stored series to update.

    `moment` names several fields: `<moment>` is its date, `<moment>_s` its epoch seconds, and, used only where some
    layout is not plain, `<moment>_at` the stamp. There the field `record` is what the event loop has recorded.
    """

    def __init__(self, page: Page, thread: str) -> None:
        self._page = page
        self._thread = _fixed(thread)
        self._drafts: list[list[str]] = [[] for _ in page.lines]
        self._templates: list[_Template] = []
        self._events: list[tuple[int, str, LogEvent]] = []
        self._details: list[_Detail] = []
        self._last: _Fields = ()
        self._texts: list[tuple[list[str], str]] = []
        self.silent = True  # no line of its events is wanted
        self.updates: list[tuple[Callable[[float], None], str]] = []

    def line(self, moment: str, level: str, logger: str, message: str, thread: str | None = None) -> None:
        """Add an event of a logger."""
        stamp = Stamp(field(moment), field(f"{moment}_s"), "")
        event = LogEvent(stamp, level, logger, thread or self._thread, message)
        for sink in self._page.routes.find(logger, level):
            layout = self._page.routes.sinks[sink].layout
            if layout.plain:
                self._drafts[sink].append(layout.render(event))
            else:
                self._events.append((sink, moment, event))

    def server(self, moment: str, level: str, logger: str, message: str) -> None:
        """Add a line of the server; `logger` without its prefix."""
        self.line(moment, level, SERVER_PREFIX + logger, message)

    def access(self, moment: str, message: str) -> None:
        """Add a line of the access log."""
        self.line(moment, "INFO", ACCESS_LOG, message)

    def model(self, moment: str, message: str) -> None:
        """Add a line as if the worker had printed it."""
        self.line(moment, "INFO", MODEL_LOG, message, self._thread + "-stdout")

    def metric(self, moment: str, series: Series | None, number: str, thread: str | None = None) -> None:
        """Add an update of a series by a number, which is a field, too; none if there is no series."""
        if series is None:
            return
        if series.store is not None:
            self.updates.append((series.store, number))
            return
        tail = f"{_fixed(series.tail)}timestamp:{field(f'{moment}_s')}"
        self.line(moment, "INFO", TS_METRICS, f"{_fixed(series.head)}{field(number)}{tail}", thread)

    def finish(self, names: Sequence[str]) -> Form:
        """Close the form: from now on it is only filled in, with fields in the order of `names`."""
        lines = self._page.lines
        drafts = zip(lines, self._drafts, strict=True)
        self._templates = [_template(sink, "".join(draft), names) for sink, draft in drafts if draft]
        self._details = [
            _Detail(lines[sink], self._page.routes.sinks[sink].layout, event, names, moment)
            for sink, moment, event in self._events
        ]
        self.silent = not (self._templates or self._details)
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
        for detail in self._details:
            detail.write(fields)

    def repeat(self, fields: _Fields) -> None:
        """The same where most events have the fields of the one before: under load they share a millisecond."""
        if fields != self._last:
            self._last = fields
            self._texts = [(sink, _text(pieces, pick(fields))) for sink, pieces, pick in self._templates]
        for sink, text in self._texts:
            sink.append(text)
        for detail in self._details:
            detail.write(fields)


class _Detail:
    """A line whose layout wants the event itself."""

    def __init__(self, sink: list[str], layout: Layout, event: LogEvent, names: Sequence[str], moment: str) -> None:
        self._sink = sink
        self._layout = layout
        self._event = event
        self._pieces = _FIELD.split(event.message)
        self._pick = _picker([names.index(name) for name in self._pieces[_PLACES]])
        self._stamp = names.index(f"{moment}_at")
        self._record = names.index("record")

    def write(self, fields: _Fields) -> None:
        event = self._event
        message = _text(self._pieces, self._pick(fields))
        stamp, record = fields[self._stamp], fields[self._record]
        self._sink.append(
            self._layout.render(LogEvent(stamp, event.level, event.logger, event.thread, message, record))
        )


def _template(sink: list[str], text: str, names: Sequence[str]) -> _Template:
    pieces = _FIELD.split(text)
    return sink, pieces, _picker([names.index(name) for name in pieces[_PLACES]])


def _text(pieces: list[str], fields: _Texts) -> str:
    pieces[_PLACES] = fields
    return "".join(pieces)


def _picker(places: Sequence[int]) -> Callable[[_Fields], _Texts]:
    if not places:
        return lambda fields: ()
    if len(places) == 1:
        return lambda fields: (fields[places[0]],)  # itemgetter would give the bare value
    return itemgetter(*places)


def _fixed(text: str) -> str:
    """Text of others, without anything that could be taken for a field."""
    return text.replace("\0", "")
