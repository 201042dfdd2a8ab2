"""Parameters of management calls that have no effect because nobody knows them, and which was probably meant."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from modelserver.rest.operations import MANAGEMENT
from modelserver.settings.misspelt import nearest
from modelserver.settings.notices import printable

_LIKENESS: Final = 0.6  # `workers` is like `initial_workers`
_MOST: Final = 10  # names of one call that are looked at
_LONGEST: Final = 80  # characters of a name that are shown
_PATHS: Final = ("/models", "/models/{model_name}")
_KNOWN: Final = {
    (operation.method.upper(), operation.path): [
        parameter.name for parameter in operation.parameters if parameter.place == "query"
    ]
    for operation in MANAGEMENT
    if operation.path in _PATHS
}


def misspelt_parameters(method: str, path: str, names: Iterable[str]) -> list[str]:
    """Log lines about the parameters of a call; `path` as the table of operations has it."""
    known = _KNOWN[method, path]
    unknown = islice((name for name in names if name not in known), _MOST)
    return [
        f"Unknown parameter {printable(name, _LONGEST)} of {method} {path}: did you mean {near}?"
        for name in unknown
        if (near := nearest(name, known, _LIKENESS))
    ]
