"""The manifest of an archive."""

from __future__ import annotations

import json
from datetime import datetime
from enum import Enum
from typing import Any

from model_archiver.manifest_components.model import Model
from model_archiver.version import __version__


class RuntimeType(Enum):
    """Languages a handler may be written in."""

    PYTHON = "python"
    PYTHON3 = "python3"
    LSP = "LSP"


class Manifest:
    """A manifest made now. Raises ValueError for an unknown runtime. Its text is the content of the file."""

    def __init__(self, runtime: str, model: Model) -> None:
        self.creation_time = datetime.now().strftime("%d/%m/%Y %H:%M:%S")
        self.runtime = RuntimeType(runtime)
        self.model = model
        self.archiver_version = __version__

    @property
    def manifest_dict(self) -> dict[str, Any]:
        """The members in the order of the file."""
        return {
            "createdOn": self.creation_time,
            "runtime": self.runtime.value,
            "model": self.model.model_dict,
            "archiverVersion": self.archiver_version,
        }

    def __str__(self) -> str:
        return json.dumps(self.manifest_dict, indent=2)

    __repr__ = __str__
