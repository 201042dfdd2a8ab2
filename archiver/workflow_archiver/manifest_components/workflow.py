"""The `workflow` member of a manifest."""

from __future__ import annotations

import json


class Workflow:
    """A workflow in a manifest: file names without their folders. Without a handler, all its nodes are models."""

    def __init__(self, workflow_name: str, spec_file: str, handler: str | None) -> None:
        self.workflow_name = workflow_name
        self.spec_file = _file_name(spec_file)
        self.handler = _file_name(handler or "")

    @property
    def workflow_dict(self) -> dict[str, str]:
        """The members in the order of the file. Servers accept an empty handler, but none that is missing."""
        return {"workflowName": self.workflow_name, "specFile": self.spec_file, "handler": self.handler}

    def __str__(self) -> str:
        return json.dumps(self.workflow_dict)

    __repr__ = __str__


def _file_name(path: str) -> str:
    return path.rpartition("/")[2]
