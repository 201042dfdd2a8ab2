"""Every fact of the list about reading archives has a test with its number."""

from __future__ import annotations

from contract.test_contract_table import numbered

# 1, 2, 5 to 7, 18 and 19 are of the archivers, whose tests stand elsewhere; 13 is fact 26 of "runtime".
FACTS = {3, 4, 8, 9, 10, 11, 12, 14, 15, 16, 17, 20}


def test_every_number_of_archives_has_a_test() -> None:
    found = {number for listed, number in numbered() if listed == "archive"}
    assert found == FACTS
