"""Facts about generative models that have a test with their number: asynchronous workers and the vLLM handler."""

from __future__ import annotations

from contract.test_contract_table import numbered


def test_every_number_of_generative_serving_has_a_test() -> None:
    found = {number for listed, number in numbered() if listed == "generative"}
    assert found == {23, 24, 25, 26}
