"""Which models `--models` and `load_models` name."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ARCHIVES: Final = (".mar", ".model", ".tar.gz", ".tgz")


@dataclass(frozen=True, slots=True)
class InitialModel:
    """One model to load at start-up."""

    name: str | None  # forced name; None: the manifest's
    url: str  # archive in the model store, directory, or URL
    default_name: str  # for an archive whose manifest names no model


def initial_models(load_models: str, model_store: Path) -> list[InitialModel]:
    """The models of a `load_models` text, in order; `all` lists the model store by name. Raises OSError for `all`."""
    if load_models.strip().lower() == "all":
        return [InitialModel(None, name, default_name(name)) for name in _stored(model_store)]
    return [model for element in load_models.split(",") if (model := _named(element)).url]


def default_name(url: str) -> str:
    """The name of a model whose archive does not tell: the file name, less its last suffix, as a word."""
    path = url.partition("?")[0] if "://" in url else url
    name = path.rstrip("/").rpartition("/")[2]
    if ".mar" in url or ".model" in url:
        name = name.rpartition(".")[0] or name
    return re.sub(r"\W", "_", name, flags=re.ASCII)


def _stored(model_store: Path) -> list[str]:
    return sorted(
        entry.name
        for entry in model_store.iterdir()
        if not entry.name.startswith(".") and (entry.name.endswith(_ARCHIVES) or entry.is_dir())
    )


def _named(element: str) -> InitialModel:
    """`name=url` or `url`; the `=` of a URL's query separates nothing."""
    name, separator, url = element.partition("=")
    if not separator or "://" in name:
        name, url = "", element
    url = url.strip()
    return InitialModel(name.strip() or None, url, default_name(url))
