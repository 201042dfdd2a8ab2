"""Number texts against the definition of Java's `Double.toString`."""

from __future__ import annotations

import math
import re
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelserver.telemetry.doubles import java_double, java_thousandths, java_whole, prometheus_double

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1, "1.0"),
        (1.0, "1.0"),
        (0.35, "0.35"),
        (12583.294, "12583.294"),
        (3095.6490000000003, "3095.6490000000003"),
        (1e-3, "0.001"),
        (9.99e-4, "9.99E-4"),
        (1e-7, "1.0E-7"),
        (9999999.0, "9999999.0"),
        (1e7, "1.0E7"),
        (231833600.0, "2.318336E8"),
        (-231833600.0, "-2.318336E8"),
        (12345678.9, "1.23456789E7"),
        (1.2e-4, "1.2E-4"),
        (1e16, "1.0E16"),
        (1.5e300, "1.5E300"),
        (5e-324, "4.9E-324"),
        (1.7976931348623157e308, "1.7976931348623157E308"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
    ],
)
def test_known_texts(value: float, text: str) -> None:
    assert java_double(value) == text


@given(FINITE)
@example(2e-323)
@example(123456.7)
def test_text_reads_back_as_the_same_number(value: float) -> None:
    text = java_double(value)
    assert float(text) == value
    assert math.copysign(1, float(text)) == math.copysign(1, value)


@given(FINITE)
def test_form_follows_the_magnitude(value: float) -> None:
    text = java_double(value)
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        assert re.fullmatch(r"-?\d+\.\d+", text)
    else:
        assert re.fullmatch(r"-?[1-9]\.\d+E-?[1-9]\d*", text)


@given(FINITE)
def test_no_shorter_decimal_would_do(value: float) -> None:
    digits = len(Decimal(java_double(value)).normalize().as_tuple().digits)
    if digits > 2:
        assert float(f"{value:.{digits - 2}e}") != value


@given(st.integers(-100, 10**12))
@example(0)
@example(10**7 - 1)
@example(10**7)
def test_whole_numbers_have_the_same_text(number: int) -> None:
    assert java_whole(number) == java_double(float(number))


@given(st.integers(-100, 10**12))
@example(0)
@example(1)
@example(187500)
@example(10**10 - 1)
@example(10**10)
def test_thousandths_have_the_same_text(number: int) -> None:
    assert java_thousandths(number) == java_double(number / 1000)


def test_prometheus_spells_the_infinities_its_own_way() -> None:
    assert [prometheus_double(value) for value in (math.inf, -math.inf, math.nan, 1e-7)] == [
        "+Inf",
        "-Inf",
        "NaN",
        "1.0E-7",
    ]
