"""Facts about generative models that have a test: sequences, asynchronous workers, vLLM, the launchers."""

from __future__ import annotations

from contract.test_contract_table import numbered


def test_every_number_of_generative_serving_has_a_test() -> None:
    found = {number for listed, number in numbered() if listed == "generative"}
    assert found == {11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 30}
