"""Every fact of the check list about gRPC has a test that carries its number."""

from __future__ import annotations

from contract.test_contract_table import numbered


def test_every_number_of_grpc_has_a_test() -> None:
    found = {number for listed, number in numbered() if listed == "grpc"}
    assert found == set(range(1, 40))
