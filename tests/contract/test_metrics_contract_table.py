"""Every fact of the check list about metrics has a test that carries its number."""

from __future__ import annotations

from contract.test_contract_table import numbered


def test_every_number_of_metrics_has_a_test() -> None:
    assert {number for listed, number in numbered() if listed == "metrics"} == set(range(1, 26))
