"""Every request of the conversation is answered as TorchServe answered it, but for the differences that are decided."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.conversation import CONFIG as SETTINGS
from contract.conversation import CONVERSATION, pack_models
from contract.server import TORCHSERVE, ContractServer
from contract.talk import Answer, Exchange, ask

RECORDING = Path(__file__).with_name("conversation.json")
REFRESH = TORCHSERVE and os.environ.get("CONTRACT_REFRESH")
CONFIG = SETTINGS


@pytest.fixture(scope="module")
def answers(server: ContractServer) -> Iterator[dict[str, Answer]]:
    """By the names of the exchanges; recorded if so wanted."""
    pack_models(server.store)
    found = {exchange.name: ask(server, exchange) for exchange in CONVERSATION}
    if REFRESH:
        RECORDING.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    yield found


def recorded(exchange: Exchange) -> Answer:
    answer: Answer = json.loads(RECORDING.read_text())[exchange.name]
    return answer


@pytest.mark.parametrize("exchange", CONVERSATION, ids=lambda exchange: exchange.name)
def test_an_answer(answers: dict[str, Answer], exchange: Exchange) -> None:
    """Status, headers and body."""
    theirs = recorded(exchange)
    assert answers[exchange.name] == (theirs if TORCHSERVE else exchange.expected(theirs))
