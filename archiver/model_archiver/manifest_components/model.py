"""The `model` member of a manifest."""

from __future__ import annotations

import json
from typing import Any


class Model:
    """A model in a manifest: file names without their folders; what is not given is left out of `model_dict`."""

    def __init__(
        self,
        model_name: str,
        serialized_file: str | None,
        handler: str,
        model_file: str | None = None,
        model_version: str | None = None,
        extensions: Any = None,
        requirements_file: str | None = None,
        config_file: str | None = None,
    ) -> None:
        self.model_name = model_name
        self.serialized_file = _file_name(serialized_file)
        self.handler = _file_name(handler)
        self.model_file = _file_name(model_file)
        self.model_version = model_version
        self.extensions = extensions
        self.requirements_file = _file_name(requirements_file)
        self.config_file = _file_name(config_file)

    @property
    def model_dict(self) -> dict[str, Any]:
        """The members in the order of the file."""
        optional = {
            "serializedFile": self.serialized_file,
            "handler": self.handler,
            "modelFile": self.model_file,
            "modelVersion": self.model_version,
            "extensions": self.extensions,
            "requirementsFile": self.requirements_file,
            "configFile": self.config_file,
        }
        return {"modelName": self.model_name} | {name: value for name, value in optional.items() if value}

    def __str__(self) -> str:
        return json.dumps(self.model_dict)

    __repr__ = __str__


def _file_name(path: str | None) -> str | None:
    return path.rpartition("/")[2] if path else None
