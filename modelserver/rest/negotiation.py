"""Which of two formats a client would rather have, from its Accept header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import re
from typing import Final

_OPENMETRICS: Final = b"application/openmetrics-text"
_TEXT: Final = (b"text/plain", b"text/*", b"*/*")  # the most telling one counts
_WEIGHT: Final = re.compile(rb";\s*q\s*=\s*([^;\s]*)")
_NUMBER: Final = re.compile(rb"0(\.[0-9]{0,3})?|1(\.0{0,3})?")


def prefers_openmetrics(accept: bytes) -> bool:
    """Whether OpenMetrics is named, and not named as worse than plain text; of two versions of it the better counts.

    A weight that is none is 1. `accept`: the values of all such headers, with commas between them.
    """
    weights: dict[bytes, float] = {}
    for entry in accept.lower().split(b","):
        kind = entry.partition(b";")[0].strip()
        weights[kind] = max(_weight(entry), weights.get(kind, 0.0))
    text = next((weights[kind] for kind in _TEXT if kind in weights), 0.0)
    openmetrics = weights.get(_OPENMETRICS, 0.0)
    return openmetrics > 0 and openmetrics >= text


def _weight(entry: bytes) -> float:
    found = _WEIGHT.search(entry)
    return float(found[1]) if found is not None and _NUMBER.fullmatch(found[1]) else 1.0
