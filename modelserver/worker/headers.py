"""The headers of a request, as handlers see them; read from the wire only when a handler looks."""

from __future__ import annotations

from typing import Any

from modelserver.wire.frames import Request
from ts.context import RequestProcessor

# Set by the server, so another spelling sent by a client must not pass for them.
_EXACT = frozenset(("describe", "explain", "url_path"))


class RequestHeaders(dict[str, Any]):
    """Parameters (each a dict with its `content-type`), headers in the client's spelling, headers of the server.

    A lookup tries the exact spelling, then, for the client's headers only, any spelling; the last one sent wins.
    """

    def __init__(self, request: Request) -> None:
        super().__init__((part.name, {"content-type": part.mime}) for part in request.parts)
        sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers]
        self.update(sent)
        self.update(request.extra)
        self._folded = {name.lower(): value for name, value in sent}

    def __missing__(self, key: object) -> Any:
        if isinstance(key, str) and (folded := key.lower()) not in _EXACT:
            return self._folded[folded]
        raise KeyError(key)

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or (
            isinstance(key, str) and (folded := key.lower()) not in _EXACT and folded in self._folded
        )

    def get(self, key: str, default: Any = None) -> Any:
        """The value under `key`, else `default`."""
        try:
            return self[key]
        except KeyError:
            return default


class WireRequestProcessor(RequestProcessor):
    """Decodes the headers of its request on first use."""

    def __init__(self, request: Request) -> None:
        super().__init__({})
        self._request: Request | None = request

    def get_request_property(self, key: str) -> Any:
        """As in the base class; the server's own headers are found without decoding the client's."""
        if self._request is not None and key in self._request.extra:
            return self._request.extra[key]
        return self.get_request_properties().get(key)

    def get_request_properties(self) -> dict[str, Any]:
        """All headers, decoded."""
        if self._request is not None:
            self._request_header = RequestHeaders(self._request)
            self._request = None
        return self._request_header
