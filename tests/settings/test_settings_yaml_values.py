"""Values of a model's YAML in the words of warnings."""

from __future__ import annotations

import pytest
import yaml

from modelserver.settings.model_yaml import read_yaml
from modelserver.settings.yaml_values import shown


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("null", "null"),
        ("yes", "true"),
        ("[a, 1, 2.0, [no]]", "[a, 1, 2.0, [false]]"),
        ("{k: v, 1: {}}", "{k=v, 1={}}"),
        ("[]", "[]"),
        ("99999999999", "99999999999"),
        ("!!pairs [a: 1]", "[[a, 1]]"),
    ],
)
def test_values_as_log_matchers_know_them(text: str, words: str) -> None:
    assert shown(yaml.safe_load(text)) == words


def test_a_long_value_is_cut() -> None:
    assert shown("x" * 1000) == "x" * 300 + "..."
    assert shown(16**5000) == "0x1" + "0" * 297 + "..."  # whose decimals Python refuses to write


ENDLESS = {
    "list": "&a [*a]",
    "mapping": "&a {nnodes: *a, inputs: *a, mapping: [*a]}",
    "pairs": "&a !!pairs [x: *a]",
}


@pytest.mark.parametrize("value", ENDLESS.values(), ids=ENDLESS)
@pytest.mark.parametrize("key", ["minWorkers", "deviceIds", "useJobTicket", "deviceType", "torchrun", "openInference"])
def test_values_without_end_are_refused_like_any_other(key: str, value: str) -> None:
    """They neither stop a registration nor take its time."""
    _, warnings = read_yaml(yaml.safe_load(f"{key}: {value}\nbatchSize: 3"), 0)
    assert any(key in warning.message for warning in warnings)
    assert all(len(warning.message) < 500 for warning in warnings)


@pytest.mark.parametrize("key", ["torchrun", "openInference"])
def test_a_key_that_python_would_not_write(key: str) -> None:
    _, (warning,) = read_yaml(yaml.safe_load(f"{key}:\n  ? 0x1{'0' * 5000}\n  : 1"), 0)
    assert "0x1000" in warning.message and len(warning.message) < 500


def test_billions_of_elements_take_no_time() -> None:
    levels = "\n".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9) if n else 'x'}]" for n in range(40))
    _, (warning,) = read_yaml(yaml.safe_load(f"{levels}\nminWorkers: *l39"), 0)
    assert warning.message.startswith("Invalid minWorkers: [[[[")
