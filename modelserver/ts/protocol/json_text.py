"""JSON as `json.dumps(value, indent=2)` writes it, to the byte, in a fraction of the time."""

from __future__ import annotations

import json
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]
from typing import Any, Final

import msgspec

_MANY: Final = 32  # floats in a list: what models mostly answer, and what takes most of the time
_FEW: Final = 16  # members of an object that is looked through for them
_SLICE: Final = 128  # floats that are written at a time: one that Python writes differently slows its slice down
_DEEP: Final = 4  # lists and objects in one another
_HOLDING: Final = (list, dict)

_dump_slowly = json.JSONEncoder().encode
_dump_indented = json.JSONEncoder(indent=2).encode
_format = msgspec.json.format
_write_floats = msgspec.json.Encoder().encode


def dump_indented(value: Any) -> bytes:
    """Raises TypeError, ValueError and RecursionError, as `json` does."""
    return _write(value, b"\n") if _has_floats(value) else _write_plain(value)


def _has_floats(value: Any, depth: int = _DEEP) -> bool:
    """Whether a long list of floats is seen at a glance: only the first element of every list is looked at."""
    if type(value) is list and value:
        if type(value[0]) is float:
            return len(value) >= _MANY
        return depth > 0 and _has_floats(value[0], depth - 1)
    if type(value) is dict and depth and len(value) <= _FEW:
        for member in value.values():
            if type(member) in _HOLDING and _has_floats(member, depth - 1):
                return True
    return False


def _dump(value: Any) -> str:
    """As `json.dumps` does, whose encoder makes itself anew for every call."""
    if _pieces is None:
        return _dump_slowly(value)
    try:
        return "".join(_pieces(value, 0))
    except RecursionError:  # it has not looked out for circles, of which another error tells
        return _dump_slowly(value)


def _refuse(value: object) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


# Without a memory for circles, which an error would leave behind in it. Python may come without this encoder.
_pieces = c_make_encoder and c_make_encoder(
    None, _refuse, encode_basestring_ascii, None, ": ", ", ", False, False, True
)


def _write_plain(value: Any) -> bytes:
    text = _dump(value).encode()
    try:
        return _format(text, indent=2)
    except msgspec.MsgspecError:  # NaN, infinities and lone surrogates are more than JSON has
        return _dump_indented(value).encode()


def _write(value: Any, newline: bytes) -> bytes:
    """`newline` is a line break with the indentation of what `value` is part of."""
    inner = newline + b"  "
    if type(value) is list and value:
        texts = _floats_of(value, inner) if type(value[0]) is float else None
        if texts is None:
            texts = (b"," + inner).join([_write(each, inner) for each in value])
        return b"[" + inner + texts + newline + b"]"
    if type(value) is dict and value and set(map(type, value)) == {str}:
        members = [_dump(name).encode() + b": " + _write(member, inner) for name, member in value.items()]
        return b"{" + inner + (b"," + inner).join(members) + newline + b"}"
    return _write_plain(value).replace(b"\n", newline)  # within strings there are no line breaks


def _floats_of(values: list[Any], newline: bytes) -> bytes | None:
    """The elements on lines of their own; None if one is no float, or no number."""
    if set(map(type, values)) != {float}:
        return None
    separator = b"," + newline
    slices = (values[start : start + _SLICE] for start in range(0, len(values), _SLICE))
    texts = [text.replace(b",", separator) for text in map(_text_of, slices)]
    return None if b"" in texts else separator.join(texts)


def _text_of(floats: list[float]) -> bytes:
    """Separated by commas; b"" if one is no number."""
    text = _write_floats(floats)
    if b"null" in text:
        return b""
    # Where Python writes 1e-05 and 1e+16, others write 0.00001 and 1e16.
    return ",".join(map(repr, floats)).encode() if b"e" in text or b"0.0000" in text else text[1:-1]
