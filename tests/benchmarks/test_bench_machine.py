"""Facts about the machine."""

from __future__ import annotations

from benchmarks.machine import processor_name


def test_processor_name_is_the_first_one() -> None:
    text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz \nprocessor\t: 1\nmodel name\t: Another\n"
    assert processor_name(text) == "Some CPU @ 2 GHz"


def test_no_processor_name() -> None:
    assert processor_name("processor\t: 0\nFeatures\t: fp asimd\n") == ""
