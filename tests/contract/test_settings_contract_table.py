"""Every fact of the lists about command line, configuration and model configuration has a test with its number."""

from __future__ import annotations

import pytest

from contract.test_contract_table import numbered

LISTS = {
    "cli": set(range(1, 24)),
    "config": set(range(1, 31)),
    "model config": set(range(1, 25)),
}


@pytest.mark.parametrize("name", LISTS)
def test_every_number_of_settings_has_a_test(name: str) -> None:
    found = {number for listed, number in numbered() if listed == name}
    assert found == LISTS[name]
