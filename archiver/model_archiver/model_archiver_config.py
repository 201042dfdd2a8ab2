"""What is packed, and how: the arguments of the command line as a dataclass."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self


@dataclass
class ModelArchiverConfig:
    """One archive to be made. Paths are relative to the working directory; `extra_files` is a comma-separated list."""

    model_name: str
    handler: str
    version: str
    serialized_file: str | None = None
    model_file: str | None = None
    extra_files: str | None = None
    runtime: str = "python"  # python, python3, LSP
    export_path: str = str(Path.cwd())  # the directory at import, as callers expect
    archive_format: str = "default"  # default, tgz, zip-store, no-archive
    force: bool = False
    requirements_file: str | None = None
    config_file: str | None = None

    @classmethod
    def from_args(cls, args: argparse.Namespace) -> Self:
        """Take the attributes of the same names."""
        return cls(**{field.name: getattr(args, field.name) for field in fields(cls)})
