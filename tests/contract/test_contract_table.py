"""Every fact of the check lists has a test that carries its number."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
LISTS = {
    "runtime": range(1, 30),
    "worker protocol": range(5, 13),  # 1 to 4 are of a codec that handlers import
    "snapshot": range(1, 24),
}


@cache
def numbered() -> frozenset[tuple[str, int]]:
    """List and number of every `check` that decorates a test."""
    texts = (path.read_text() for path in TESTS.rglob("test_*.py"))
    return frozenset(pair for text in texts if "check(" in text for pair in numbered_in(text))


def numbered_in(text: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield from filter(None, map(check_of, node.decorator_list))


def check_of(decorator: ast.expr) -> tuple[str, int] | None:
    if not (isinstance(decorator, ast.Call) and ast.unparse(decorator.func) in ("check", "pytest.mark.check")):
        return None
    name, number = map(ast.literal_eval, decorator.args)
    return name, number


@pytest.mark.parametrize("name", LISTS)
def test_every_number_has_a_test(name: str) -> None:
    found = {number for listed, number in numbered() if listed == name}
    assert found == set(LISTS[name])
