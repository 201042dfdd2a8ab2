"""Appenders of a log4j2 configuration: where lines go, and how they look there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from modelserver.logconfig.elements import Element
from modelserver.logconfig.levels import level_rank
from modelserver.logconfig.plan import (
    Appender,
    FileTarget,
    JsonLayout,
    Layout,
    MetricJsonLayout,
    NoTarget,
    PatternLayout,
    QueryLogLayout,
    Reference,
    StreamTarget,
    Target,
)
from modelserver.logconfig.rolling import read_rolling
from modelserver.logconfig.texts import Texts

BARE: Final = PatternLayout("%m%n")  # of appenders without a layout

_FILES: Final = ("file", "randomaccessfile", "memorymappedfile")
_ROLLING: Final = ("rollingfile", "rollingrandomaccessfile")
_DETOURS: Final = ("async", "rewrite", "failover")
_ENCODINGS: Final = ("UTF-8", "UTF8", "US-ASCII")

_References = tuple[Reference, ...]


class Appenders:
    """Those of one document by name; those that only lead to others are followed by `expand`."""

    def __init__(self, texts: Texts) -> None:
        self._texts = texts
        self._found: dict[str, Appender] = {}
        self._detours: dict[str, _References] = {}

    @property
    def found(self) -> tuple[Appender, ...]:
        """All that write somewhere, or nowhere on purpose."""
        return tuple(self._found.values())

    def read(self, element: Element, name: str) -> None:
        """Take in one appender."""
        if element.kind in _DETOURS:
            self._detours[name] = self._detour(element)
        elif element.kind == "routing":
            self._detours[name] = self._route(element, name)
        else:
            threshold = self._texts.lowest_level(element) or "ALL"
            self._found[name] = Appender(name, self._target(element), self._layout(element), threshold)

    def references(self, element: Element) -> _References:
        """The references in an element, as they stand."""
        references = []
        for each in element.all("appenderref", "appender-ref"):
            level = self._texts.lowest_level(each, self._texts.level(each)) or "ALL"
            references.append(Reference(self._texts.get(each, "ref"), level))
        return tuple(references)

    def expand(self, element: Element, reference: Reference) -> list[Reference]:
        """What a reference leads to in the end: every appender once, with the lowest of the levels on the ways there.

        Detours may be many and lead back, so each is followed once for a level.
        """
        ends: dict[str, Reference] = {}
        lowest: dict[str, int] = {}  # ranks of levels by appender
        waiting = [reference]
        while waiting:
            each = waiting.pop()
            rank = level_rank(each.level)
            if lowest.get(each.appender, rank + 1) <= rank:
                continue
            known = each.appender in lowest
            lowest[each.appender] = rank
            if each.appender in self._found:
                ends[each.appender] = each
            elif each.appender in self._detours:
                ways = [(way, max(each.level, way.level, key=level_rank)) for way in self._detours[each.appender]]
                waiting += [Reference(way.appender, level) for way, level in reversed(ways)]
            elif not known:
                self._texts.complain(element, f"there is no appender {each.appender}")
        if reference.appender in self._detours and not ends:
            self._texts.complain(element, f"{reference.appender} leads to no appender")
        return list(ends.values())

    # Where lines go.

    def _target(self, element: Element) -> Target:
        if element.kind == "console":
            return StreamTarget(2 if self._texts.get(element, "target").upper() == "SYSTEM_ERR" else 1)
        if element.kind in (*_FILES, *_ROLLING):
            return self._file(element)
        if element.kind != "null":
            self._texts.complain(element, f"<{element.kind}> is no appender of this server: what goes there is lost")
        return NoTarget()

    def _file(self, element: Element) -> Target:
        name = self._texts.get(element, "filename")
        if not name:
            self._texts.complain(element, "without fileName: what goes there is lost")
            return NoTarget()
        rolling = read_rolling(element, self._texts) if element.kind in _ROLLING else None
        return FileTarget(Path(name).absolute(), self._texts.flag(element, "append", default=True), rolling)

    def _detour(self, element: Element) -> _References:
        if element.kind != "async":
            self._texts.complain(element, f"<{element.kind}> only passes events on")
        primary = self._texts.get(element, "primary")
        return (*([Reference(primary)] if primary else []), *self.references(element))

    def _route(self, element: Element, name: str) -> _References:
        """What the pattern says now is said for good."""
        routes = element.first("routes")
        if routes is None:
            self._texts.complain(element, "without routes: what goes there is lost")
            return ()
        wanted = self._texts.get(routes, "pattern")
        by_key = {self._texts.get(route, "key"): route for route in routes.all("route")}
        route = by_key.get(wanted) or by_key.get("")
        if route is None:
            return ()
        if reference := self._texts.get(route, "ref"):
            return (Reference(reference),)
        inner = f"{name}-{wanted}"
        for nested in route.children:
            self.read(nested, inner)
        return (Reference(inner),) if route.children else ()

    # How they look there.

    def _layout(self, element: Element) -> Layout:
        for child in element.children:
            match child.kind:
                case "patternlayout":
                    return self._pattern(child)
                case "jsonlayout":
                    return JsonLayout()
                case "jsontemplatelayout":
                    self._texts.complain(child, "templates are not read: events have the keys of this server")
                    return JsonLayout()
                case "jsonpatternlayout":
                    return MetricJsonLayout()
                case "qloglayout":
                    return QueryLogLayout()
            if child.kind.endswith("layout"):
                self._texts.complain(child, f"<{child.kind}> is not known: lines have the bare message")
        return BARE

    def _pattern(self, element: Element) -> Layout:
        charset = self._texts.get(element, "charset", "UTF-8")
        if charset.upper() not in _ENCODINGS:
            self._texts.complain(element, f"charset {charset} has no effect: lines are UTF-8")
        for child in element.children:
            if child.kind not in ("pattern", "charset"):
                self._texts.complain(child, f"<{child.kind}> has no effect")
        for name in ("header", "footer"):
            if self._texts.get(element, name):
                self._texts.complain(element, f"{name} has no effect")
        # A pattern has lookups of the configuration, and none of what is logged.
        return PatternLayout(self._texts.get(element, "pattern", "%m%n"))
