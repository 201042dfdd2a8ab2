"""What is wrong with a request, or with what a handler returned; the text is for the client."""

from __future__ import annotations

import reprlib

_LONGEST = 80  # characters of what somebody sent, in a line of ours


class InvalidRequest(ValueError):
    """A request that does not follow the protocol, or not what the model declares."""


class InvalidOutput(ValueError):
    """A result of the handler that has no form in the protocol."""


def shown(value: object) -> str:
    """What was sent, fit for a message: shortened, however large or nested it is."""
    return _short.repr(value)


def _abbreviation() -> reprlib.Repr:
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _LONGEST
    return short


_short = _abbreviation()
