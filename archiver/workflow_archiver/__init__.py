"""Packs workflows into the archives that `POST /workflows` registers: `torch-workflow-archiver` and its Python API."""

from workflow_archiver.version import __version__

__all__ = ["__version__"]
