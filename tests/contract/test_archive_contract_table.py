"""Every fact of the list about making and reading archives has a test with its number."""

from __future__ import annotations

from contract.test_contract_table import numbered

FACTS = set(range(1, 21)) - {13}  # which is fact 26 of "runtime"


def test_every_number_of_archives_has_a_test() -> None:
    found = {number for listed, number in numbered() if listed == "archive"}
    assert found == FACTS
