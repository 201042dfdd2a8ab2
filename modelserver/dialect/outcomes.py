"""How the calls that change models are answered, and the list of models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from modelserver.engine.requests import Registered, Scaled

LONGEST_PAGE: Final = 100  # models
_PROCESSING: Final = "Processing worker updates..."


def registered_text(outcome: Registered) -> str:
    """A registration."""
    if outcome.pending:
        return _PROCESSING
    text = f'Model "{outcome.model}" Version: {outcome.version} registered with {outcome.workers} initial workers'
    if not outcome.workers:
        text += ". Use scale workers API to add workers for the model."
    return text


def scaled_text(outcome: Scaled, model: str, version: str | None, minimum: int) -> str:
    """A change of the number of workers to `minimum`, unless another call was faster; `version` as it was asked for."""
    if outcome.pending:
        return _PROCESSING
    if not outcome.complete:
        return "Workers scaling in progress..."
    workers = minimum if outcome.overtaken is None else outcome.overtaken
    text = f"Workers scaled to {workers} for model: {model}"
    return text if version is None else f"{text}, version: {version}"


def unregistered_text(model: str) -> str:
    """The removal of a version."""
    return f'Model "{model}" unregistered'


def default_text(model: str, version: str) -> str:
    """Another default version."""
    return f'Default version successfully updated for model "{model}" to "{version}"'


def page_of(models: Sequence[tuple[str, str]], offset: int, limit: int) -> dict[str, Any]:
    """`limit` of all models (name, url) from `offset` on; a token where more may follow, at the exact end too."""
    page = [{"modelName": name, "modelUrl": url} for name, url in models[offset : offset + limit]]
    token = str(offset + limit) if offset + limit <= len(models) else None
    return {"nextPageToken": token, "models": page}
