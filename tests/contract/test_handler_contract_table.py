"""Every fact of the lists about handlers, and about explanations and profiles, has a test that carries its number."""

from __future__ import annotations

import pytest

from contract.test_contract_table import numbered

LISTS = {
    "handlers": set(range(1, 29)),
    "explain": set(range(1, 16)),
}


@pytest.mark.parametrize("name", LISTS)
def test_every_number_about_handlers_has_a_test(name: str) -> None:
    found = {number for listed, number in numbered() if listed == name}
    assert found == LISTS[name]
