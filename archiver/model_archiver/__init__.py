"""Packs model artifacts into the archives that modelserver loads: `torch-model-archiver` and its Python API."""

from importlib import import_module
from types import ModuleType

from model_archiver.model_archiver import ModelArchiver
from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.version import __version__

__all__ = ["ModelArchiver", "ModelArchiverConfig", "__version__"]

_MODULES = ("arg_parser", "model_archiver_error", "model_packaging", "model_packaging_utils")


def __getattr__(name: str) -> ModuleType:
    """Modules that scripts use without importing them; `python -m` would warn of one that is imported already."""
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
