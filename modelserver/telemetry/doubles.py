"""Numbers as the log lines and the Prometheus text spell them: the decimal text of Java's `Double.toString`."""

from __future__ import annotations

import math
from typing import Final

_THOUSANDTHS: Final = tuple(repr(number / 1000)[1:] for number in range(1000))  # `.0`, `.001`, ..., `.999`


def java_double(value: float) -> str:
    """Shortest decimal that reads back as `value`: plain from 1e-3 up to 1e7 (`0.35`), else scientific (`2.318336E8`).

    At least one digit follows the point. Specials are `NaN`, `Infinity` and `-Infinity`.
    """
    if 1e-3 <= value < 1e7:  # nearly all there are
        return repr(value + 0.0)
    value = float(value)
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    if not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    return _scientific(value)


def java_whole(number: int) -> str:
    """`java_double` of a whole number, from its digits."""
    return f"{number}.0" if 0 <= number < 10**7 else java_double(number)


def java_thousandths(number: int) -> str:
    """`java_double` of `number` / 1000, from its digits."""
    return f"{number // 1000}{_THOUSANDTHS[number % 1000]}" if 0 <= number < 10**10 else java_double(number / 1000)


def prometheus_double(value: float) -> str:
    """The same, with the infinities as the exposition format wants them: `+Inf`, `-Inf`."""
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return java_double(value)


def _scientific(value: float) -> str:
    # Where one digit would do, Java takes the best decimal of two: this shows in the smallest subnormals (4.9E-324).
    two_digits = f"{value:.1e}"
    if float(two_digits) == value:
        mantissa, _, power = two_digits.partition("e")
        return f"{mantissa}E{int(power)}"
    sign = "-" if value < 0 else ""
    digits, exponent = _shortest_digits(abs(value))
    return f"{sign}{digits[0]}.{digits[1:] or '0'}E{exponent}"


def _shortest_digits(value: float) -> tuple[str, int]:
    """Significant digits and the decimal exponent of the first of them."""
    mantissa, _, exponent = repr(value).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    leading = len(whole) - 1 if whole != "0" else len(digits) - len(fraction) - 1
    return digits.rstrip("0"), leading + int(exponent or 0)
