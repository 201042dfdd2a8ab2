"""Which archives a check opens: those that a start loads, and the rest of the model store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from modelserver.archives.manifest import FILE_NAME, FOLDER
from modelserver.archives.naming import is_remote, local_file_name, remote_file_name
from modelserver.settings.snapshot import SavedVersion, Snapshot
from modelserver.settings.startup import InitialModel, initial_models
from modelserver.settings.table import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One archive, and who wants it."""

    url: str
    name: str | None = None  # forced; None: the manifest's
    default_name: str | None = None  # where neither names the model
    startup: bool = False  # named by load_models or --models
    saved: SavedVersion | None = None  # of model_snapshot

    @property
    def loaded(self) -> bool:
        """Whether a start loads it; else it only lies in the model store."""
        return self.startup or self.saved is not None


def find_targets(settings: Settings, model_store: Path) -> list[Target]:
    """In the order of a start, then the rest by name. Raises OSError if the model store cannot be listed."""
    snapshot = settings.model_snapshot
    loaded = [*_saved(snapshot)] if snapshot else [*map(_initial, initial_models(settings.load_models, model_store))]
    known = set(_file_names(loaded))
    others = [model for model in initial_models("all", model_store) if model.url not in known]
    stored = [model for model in others if _is_model(model_store / model.url)]
    return [*loaded, *(Target(url=model.url, default_name=model.default_name) for model in stored)]


def stored_name(url: str) -> str:
    """The file in the model store that a URL or a path means, "" for none."""
    try:
        return remote_file_name(url) if is_remote(url) else local_file_name(url)
    except ValueError:
        return ""


def _saved(snapshot: Snapshot) -> Iterator[Target]:
    if snapshot.model_count > 0:
        for name, versions in snapshot.models.items():
            yield from (Target(url=entry.mar_name, name=name, saved=entry) for entry in versions.values())


def _is_model(path: Path) -> bool:
    """Directories without a manifest may be anything: some deployments name the root for their model store."""
    return not path.is_dir() or (path / FOLDER / FILE_NAME).is_file()


def _initial(model: InitialModel) -> Target:
    return Target(url=model.url, name=model.name, default_name=model.default_name, startup=True)


def _file_names(targets: Iterable[Target]) -> Iterator[str]:
    return (stored_name(target.url) for target in targets)
