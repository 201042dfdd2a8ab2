"""Parameters of management calls, from the query or a JSON body, with TorchServe's leniency."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final

from modelserver.errors import BadRequest
from modelserver.rest.url import parse_query

_INTEGER = re.compile(r"[+-]?[0-9]{1,10}")
_MOST_QUOTED: Final = 16 << 10  # bytes of a body that single quotes are looked for in; real ones have a few hundred
_INT_RANGE = range(-(2**31), 2**31)
# An unterminated string runs to the end of the text, so that matching takes linear time on any text.
_STRING = re.compile(r""""(?:[^"\\]|\\.?)*(?:"|\Z)|'((?:[^'\\]|\\.?)*)(?:'|\Z)""", re.DOTALL)


class Query:
    """Parameters of a query string: the first value counts, numbers that do not parse are absent."""

    def __init__(self, query: bytes) -> None:
        self._values: dict[str, str] = {}
        for name, value in parse_query(query):
            self._values.setdefault(name, value)

    @property
    def names(self) -> Iterable[str]:
        """What was sent."""
        return self._values

    def text(self, name: str) -> str | None:
        """The value as it is."""
        return self._values.get(name)

    def integer(self, name: str) -> int | None:
        """The value as a 32-bit integer."""
        return _integer(self._values.get(name, ""))

    def boolean(self, name: str, *, default: bool) -> bool:
        """True for `true` in any letter case, False for any other value."""
        value = self._values.get(name)
        return default if value is None else value.lower() == "true"


class JsonParameters:
    """Parameters of a JSON object: strings are accepted for numbers and booleans, null is absent.

    Raises BadRequest for malformed JSON and, when read, for values of a wrong type.
    """

    def __init__(self, body: bytes) -> None:
        members = _parse_json(body)
        if not isinstance(members, dict):
            raise BadRequest("Request body is not a JSON object.")
        self._members: dict[str, Any] = {name: value for name, value in members.items() if value is not None}

    @property
    def names(self) -> Iterable[str]:
        """What was sent."""
        return self._members

    def text(self, name: str) -> str | None:
        """The member as text; numbers and booleans as JSON writes them."""
        value = self._members.get(name)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, dict | list):
            raise _wrong_type(name, "a string")
        return json.dumps(value)

    def integer(self, name: str) -> int | None:
        """The member as a 32-bit integer."""
        value = self._members.get(name)
        if value is None:
            return None
        number = _integer(value) if isinstance(value, str) else value
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int) or number not in _INT_RANGE:
            raise _wrong_type(name, "an integer")
        return number

    def boolean(self, name: str, *, default: bool) -> bool:
        """The member as a boolean; text as in a query."""
        value = self._members.get(name, default)
        if isinstance(value, str):
            return value.lower() == "true"
        if not isinstance(value, bool):
            raise _wrong_type(name, "a boolean")
        return value


Parameters = Query | JsonParameters


def _integer(text: str) -> int | None:
    number = int(text) if _INTEGER.fullmatch(text) else None
    return number if number is not None and number in _INT_RANGE else None


def _wrong_type(name: str, wanted: str) -> BadRequest:
    return BadRequest(f"Parameter {name} is not {wanted}.")


def _parse_json(body: bytes) -> Any:
    """Clients also send single-quoted strings, so these are tried once plain JSON has failed."""
    try:
        text = body.decode("utf-8")
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            if len(body) > _MOST_QUOTED:
                raise
            return json.loads(_STRING.sub(_double_quoted, text))
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"Request body is not valid JSON: {error}") from error


def _double_quoted(match: re.Match[str]) -> str:
    inner = match.group(1)
    if inner is None:
        return match.group(0)
    return '"' + re.sub(r'\\(.)|(")', lambda part: _escape(part.group(1), part.group(2)), inner, flags=re.DOTALL) + '"'


def _escape(escaped: str | None, quote: str | None) -> str:
    """Inside double quotes `'` needs no backslash and `"` needs one."""
    if quote is not None:
        return '\\"'
    return "'" if escaped == "'" else f"\\{escaped}"
