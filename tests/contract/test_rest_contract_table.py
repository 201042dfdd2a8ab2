"""Every fact of the check lists about REST has a test that carries its number."""

from __future__ import annotations

import pytest

from contract.test_contract_table import numbered

LISTS = {
    "rest inference": set(range(1, 30)),
    "rest management": set(range(1, 29)),
}


@pytest.mark.parametrize("name", LISTS)
def test_every_number_of_rest_has_a_test(name: str) -> None:
    found = {number for listed, number in numbered() if listed == name}
    assert found == LISTS[name]
