"""Every fact of the check list about KServe has a test that carries its number."""

from __future__ import annotations

from contract.test_contract_table import numbered

FACTS = range(1, 19)  # some of them are about KServe's own programs and clients: tests/clients


def test_every_number_of_kserve_has_a_test() -> None:
    assert {number for listed, number in numbered() if listed == "kserve"} == set(FACTS)
