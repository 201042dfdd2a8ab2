"""Handlers as users write them, packed by either archiver, are served as TorchServe has served them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contract.gallery import EXHIBITS, Exhibit, pack_exhibit
from contract.server import TORCHSERVE, ContractServer
from contract.talk import Answer, ask

RECORDING = Path(__file__).with_name("gallery.json")
REFRESH = TORCHSERVE and os.environ.get("CONTRACT_REFRESH")
CONFIG = {"install_py_dep_per_model": "true", "preload_modules": "torch,ts.torch_handler.base_handler"}
OFFLINE = {"HF_HUB_OFFLINE": "1"}
# Where TorchServe finds what the handlers import, if its own environment has not got it.
ENVIRONMENT = OFFLINE | ({"PYTHONPATH": PACKAGES} if (PACKAGES := os.environ.get("CONTRACT_PACKAGES")) else {})
ARCHIVER = Path(sys.executable).with_name("torch-model-archiver")
PRECISION = 1e-4  # of floats: libraries add up in orders of their own


@dataclass(frozen=True)
class Stage:
    """A server, and the archiver whose archives it serves."""

    server: ContractServer
    archiver: Path
    work: Path
    recorded: dict[str, dict[str, Answer]]

    def answers(self, exhibit: Exhibit) -> dict[str, Answer]:
        """What the exhibit answers, by the names of the requests."""
        work = self.work / f"{exhibit.name}-{self.archiver.parent.parent.name}"
        pack_exhibit(self.archiver, exhibit, work, self.server.store)
        registered = self.server.register(f"{exhibit.name}.mar", **exhibit.registration)
        assert registered.status_code == 200, registered.text
        try:
            with ThreadPoolExecutor(len(exhibit.exchanges) if exhibit.together else 1) as clients:
                found = list(clients.map(partial(ask, self.server), exhibit.exchanges))
        finally:
            self.server.delete(exhibit.name)
        return {exchange.name: answer for exchange, answer in zip(exhibit.exchanges, found, strict=True)}


@pytest.fixture(scope="module")
def recorded() -> Iterator[dict[str, dict[str, Answer]]]:
    """TorchServe's answers; recorded anew if so wanted."""
    known = {} if REFRESH else json.loads(RECORDING.read_text())
    yield known
    if REFRESH:
        RECORDING.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def archivers() -> dict[str, Path]:
    """Ours, and the one beside TorchServe where that is under test."""
    own = {"modelserver": ARCHIVER}
    return own | {"torchserve": Path(TORCHSERVE).with_name("torch-model-archiver")} if TORCHSERVE else own


@pytest.fixture(scope="module", params=archivers())
def stage(
    request: pytest.FixtureRequest,
    server: ContractServer,
    recorded: dict[str, dict[str, Answer]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Stage:
    return Stage(server, archivers()[request.param], tmp_path_factory.mktemp("gallery"), recorded)


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_an_exhibit(stage: Stage, exhibit: Exhibit) -> None:
    """Status, headers and body of every answer."""
    found = stage.answers(exhibit)
    if REFRESH:
        stage.recorded.setdefault(exhibit.name, found)
    assert parsed(found) == expected(stage.recorded[exhibit.name])


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContractServer]:
    """modelserver, also where TorchServe is under test."""
    with ExitStack() as stack:
        directory = tmp_path_factory.mktemp("own")
        yield stack.enter_context(ContractServer(directory, config=CONFIG, environment=OFFLINE))


if TORCHSERVE:  # there is no other archiver without it

    @pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
    def test_an_exhibit_that_torchserve_has_packed(
        own_server: ContractServer, recorded: dict[str, dict[str, Answer]], tmp_path: Path, exhibit: Exhibit
    ) -> None:
        """modelserver answers for it as for its own."""
        stage = Stage(own_server, archivers()["torchserve"], tmp_path, recorded)
        assert parsed(stage.answers(exhibit)) == expected(recorded[exhibit.name])


def expected(answers: dict[str, Answer]) -> dict[str, Any]:
    """What `parsed` is compared with: floats need not be the same to the last digit."""
    return {name: {**answer, "body": nearly(answer["body"])} for name, answer in parsed(answers).items()}


def parsed(answers: dict[str, Answer]) -> dict[str, Any]:
    """With bodies of JSON as objects."""
    return {name: {**answer, "body": from_json(answer["body"])} for name, answer in answers.items()}


def from_json(body: str) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body


def nearly(value: Any) -> Any:
    if isinstance(value, float):
        return pytest.approx(value, rel=PRECISION, abs=PRECISION)
    if isinstance(value, dict):
        return {name: nearly(member) for name, member in value.items()}
    return [nearly(member) for member in value] if isinstance(value, list) else value


def test_the_comparison_can_fail() -> None:
    """It sees what differs, and overlooks what may."""
    same: Answer = {"status": 200, "headers": {}, "body": '{"a": [0.5, 1]}'}
    assert parsed({"x": {**same, "body": '{"a": [0.50001, 1]}'}}) == expected({"x": same})
    for other in ('{"a": [0.51, 1]}', '{"a": [0.5, 2]}', '{"b": [0.5, 1]}', "text"):
        assert parsed({"x": {**same, "body": other}}) != expected({"x": same})
