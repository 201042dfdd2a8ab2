"""Verbs that the HTTP parser does not know: by the contract they are verbs like any other."""

from __future__ import annotations

import re
from typing import ClassVar, Final

import httptools

_VERB: Final = re.compile(rb"(?:\r?\n)*([!#$%&'*+.^_`|~0-9A-Za-z-]{1,100})( ?)")


def begins_verb(data: bytes) -> bool:
    """Whether this may be the beginning of a verb, and nothing behind it has arrived."""
    found = _VERB.fullmatch(data)
    return found is not None and not found[2]


def split_strange_verb(data: bytes) -> tuple[bytes, bytes] | None:
    """The verb that a request begins with, and what follows it; None if it is not whole, none at all, or known."""
    found = _VERB.match(data)
    if found is None or not found[2] or _is_known(found[1]):
        return None
    return found[1], data[found.end(1) :]


def _is_known(verb: bytes) -> bool:
    try:
        httptools.HttpRequestParser(None).feed_data(verb + b" ")
    except httptools.HttpParserInvalidMethodError:
        return False
    return True


class IncompleteVerb(httptools.HttpRequestParser):
    """In the place of a parser until the whole verb is there."""

    def feed_data(self, data: object) -> None:
        """Raises HttpParserInvalidMethodError."""
        raise httptools.HttpParserInvalidMethodError


class StrangeVerb(httptools.HttpRequestParser):
    """Takes a request with `known` in the place of its verb; those that follow, as any parser does."""

    known: ClassVar = b"POST"  # a body is framed alike under any verb

    def __init__(self, protocol: object, verb: bytes) -> None:
        super().__init__(protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self._verb = verb

    def get_method(self) -> bytes:
        """The verb of the request that has just been parsed; asked for once per request."""
        verb, self._verb = self._verb, b""
        return verb or super().get_method()
