"""Every fact of the list about logs has a test with its number."""

from __future__ import annotations

from contract.test_contract_table import numbered


def test_every_number_of_logs_has_a_test() -> None:
    assert {number for listed, number in numbered() if listed == "logging"} == set(range(1, 19))
