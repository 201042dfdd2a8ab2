"""float32 as the shortest decimals that mean them: 0.1, where plain widening would give 0.10000000149011612."""

from __future__ import annotations

import numpy as np

from modelserver.oip.datatypes import Array

_DIGITS = (6, 7, 8, 9)  # every decimal of 6 digits survives float32, and 9 digits tell any two of them apart
_EXACT_INTEGER = 1 << 24
_FEW = 64  # up to so many numbers, text is the faster way
_EXACT_POWER = 22  # powers of ten up to this one are exact in float64
_POWERS = 10.0 ** np.arange(_EXACT_POWER + 1)


def shortest(numbers: Array) -> Array:
    """float64 that print as the float32 given."""
    if numbers.size <= _FEW:
        return np.array([float(str(number)) for number in numbers], np.float64)
    result = numbers.astype(np.float64)
    whole = (result == np.rint(result)) & (np.abs(result) <= _EXACT_INTEGER)
    rest = np.flatnonzero(np.isfinite(result) & ~whole)
    exponents = np.floor(np.log10(np.abs(result[rest]))).astype(np.int64)
    easy = (exponents >= _DIGITS[-1] - 1 - _EXACT_POWER) & (exponents <= _DIGITS[0] - 1 + _EXACT_POWER)
    hard, rest, exponents = rest[~easy], rest[easy], exponents[easy]
    for digits in _DIGITS:
        rounded = _rounded(result[rest], digits - 1 - exponents)
        fits = rounded.astype(np.float32) == numbers[rest]
        result[rest[fits]] = rounded[fits]
        rest, exponents = rest[~fits], exponents[~fits]
    for index in (*hard, *rest):  # of these, float64 has not the powers of ten exactly
        result[index] = float(str(numbers[index]))
    return result


def _rounded(numbers: Array, places: Array) -> Array:
    """To so many decimal places each, negative ones too."""
    if not places.size:
        return numbers
    scale = _POWERS[np.abs(places)]
    rounded: Array = np.rint(numbers * scale) / scale
    if places.min() < 0:
        rounded = np.where(places < 0, np.rint(numbers / scale) * scale, rounded)
    return rounded
