"""A server per test module, and what TorchServe does otherwise is left out when TorchServe is under test."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from contract.server import TORCHSERVE, ContractServer, start

HERE = Path(__file__).parent
DIFFERENCES = bool(os.environ.get("CONTRACT_DIFFERENCES"))  # run what is marked as fixed, and nothing else


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what modelserver does better by decision; or all else, where that is to be proved."""
    for item in items:
        if TORCHSERVE and HERE in item.path.parents:
            mark = item.get_closest_marker("fixed")
            if item.get_closest_marker("added"):
                item.add_marker(pytest.mark.skip(reason="TorchServe has nothing like it"))
            elif mark and DIFFERENCES:
                item.user_properties += [("difference", name) for name in mark.args]
            elif mark:
                item.add_marker(pytest.mark.skip(reason="TorchServe does otherwise"))
            elif DIFFERENCES:
                item.add_marker(pytest.mark.skip(reason="not a difference"))


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ContractServer]]:
    """Starts servers that one test alone needs."""
    with ExitStack() as stack:

        def start_one(**options: Any) -> ContractServer:
            return start(stack, tmp_path_factory.mktemp("server"), **options)

        yield start_one


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    """One server for the tests of a module, with the CONFIG and ENVIRONMENT that the module states."""
    options = {name.lower(): getattr(request.module, name, None) for name in ("CONFIG", "ENVIRONMENT")}
    with ExitStack() as stack:
        yield start(stack, tmp_path_factory.mktemp("server"), **options)
