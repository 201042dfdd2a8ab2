"""Names, versions and the default version."""

from __future__ import annotations

import pytest

from modelserver.engine.placement import Placement
from modelserver.engine.registry import Registry
from modelserver.errors import Conflict, DefaultVersionInUse, ModelNotFound, ServerError, VersionNotFound


@pytest.fixture
def registry() -> Registry[str]:
    made: Registry[str] = Registry()
    made.add("b", "1.0", "b1")
    made.add("b", "2.0", "b2")
    made.add("a", "1.0", "a1")
    return made


def test_the_first_version_is_the_default(registry: Registry[str]) -> None:
    assert registry.get("b") == "b1"
    assert registry.get("b", "2.0") == "b2"
    assert list(registry.defaults()) == [("a", "a1"), ("b", "b1")]
    assert registry.versions("b") == ["b1", "b2"]
    assert sorted(registry) == ["a1", "b1", "b2"]


def test_set_default(registry: Registry[str]) -> None:
    registry.set_default("b", "2.0")
    assert registry.get("b") == "b2"


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda r: r.get("x"), ModelNotFound, "Model not found: x"),
        (lambda r: r.get("b", "9"), VersionNotFound, "Model version: 9 does not exist for model: b"),
        (lambda r: r.add("b", "1.0", ""), Conflict, "Model version 1.0 is already registered for model b"),
        (lambda r: r.set_default("x", "1.0"), ModelNotFound, "Model not found: x"),
        (lambda r: r.set_default("b", "9"), VersionNotFound, "Model version 9 does not exist for model b"),
        (lambda r: r.remove("b"), DefaultVersionInUse, "Cannot remove default version for model b"),
        (lambda r: r.remove("b", "1.0"), DefaultVersionInUse, "Cannot remove default version for model b"),
        (lambda r: r.remove("b", "9"), VersionNotFound, "Model version: 9 does not exist for model: b"),
        (lambda r: r.versions("x"), ModelNotFound, "Model not found: x"),
    ],
)
def test_errors_have_the_contract_s_texts(registry: Registry[str], call, error: type[ServerError], text: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error) as raised:
        call(registry)
    assert raised.value.message == text


def test_the_last_version_takes_the_name_with_it(registry: Registry[str]) -> None:
    assert registry.remove("b", "2.0") == "b2"
    assert registry.remove("b") == "b1"
    with pytest.raises(ModelNotFound):
        registry.get("b")


def test_discarding_a_default_promotes_the_oldest_other(registry: Registry[str]) -> None:
    registry.add("b", "3.0", "b3")
    registry.discard("b", "1.0")
    assert registry.get("b") == "b2"


def test_every_change_is_told() -> None:
    told: list[tuple[str, tuple[str, ...], str]] = []
    registry: Registry[str] = Registry(lambda name, versions, default: told.append((name, tuple(versions), default)))
    registry.add("a", "1.0", "a1")
    registry.add("a", "2.0", "a2")
    registry.set_default("a", "2.0")
    registry.remove("a", "1.0")
    with pytest.raises(Conflict):
        registry.add("a", "2.0", "")
    registry.discard("a", "2.0")
    assert told == [
        ("a", ("1.0",), "1.0"),
        ("a", ("1.0", "2.0"), "1.0"),
        ("a", ("1.0", "2.0"), "2.0"),
        ("a", ("2.0",), "2.0"),
        ("a", (), ""),
    ]


def test_gpus_go_round_from_zero_across_models() -> None:
    placement = Placement(3)
    assert [placement.place("gpu", None, n) for n in range(4)] == [0, 1, 2, 0]


def test_listed_devices_go_round_per_model() -> None:
    placement = Placement(3)
    assert [placement.place("gpu", (2, 0), n) for n in range(4)] == [2, 0, 2, 0]
    assert placement.place("gpu", None, 0) == 0


def test_no_gpu_on_cpu() -> None:
    assert Placement(3).place("cpu", (2, 0), 0) is None
    assert Placement(0).place("gpu", None, 0) is None
