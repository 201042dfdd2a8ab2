"""Every fact of the lists about command line, configuration and model configuration has a test with its number."""

from __future__ import annotations

import pytest

from contract.test_contract_table import numbered

LISTS = {
    "cli": set(range(1, 24)),
    "config": set(range(1, 31)) - {17},  # of gRPC, which is not here yet
    # 12, 19 to 21 and 24 are of asynchronous workers and of default handlers, which are not here yet. 11, 13, 14 and 15
    # are facts 9, 26 and 23 of "runtime"; 22 is one of "snapshot".
    "model config": set(range(1, 24)) - {11, 12, 13, 14, 15, 19, 20, 21, 22},
}


@pytest.mark.parametrize("name", LISTS)
def test_every_number_of_settings_has_a_test(name: str) -> None:
    found = {number for listed, number in numbered() if listed == name}
    assert found == LISTS[name]
