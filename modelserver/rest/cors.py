"""The headers that let pages of other origins read responses: the same on every response of every port."""

from __future__ import annotations

from typing import ClassVar, Final

from modelserver.rest.call import Call
from modelserver.rest.exchange import Headers
from modelserver.settings.table import Settings

_KEYS: Final = ("origin", "methods", "headers")


def cors_headers(settings: Settings) -> Headers:
    """Those that the configuration asks for."""
    values = {name: getattr(settings, f"cors_allowed_{name}") for name in _KEYS}
    return [(f"access-control-allow-{name}".encode(), value.encode()) for name, value in values.items() if value]


class CrossOriginCall(Call):
    """A call whose response carries the headers, except where the handler has set the same."""

    __slots__ = ()
    allowed: ClassVar[Headers] = []

    def head(self, headers: Headers) -> bytes:
        """The header lines of a response."""
        given = {name.lower() for name, _ in headers}
        return super().head([*headers, *(header for header in self.allowed if header[0] not in given)])
