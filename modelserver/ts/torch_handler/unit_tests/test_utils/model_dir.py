"""Model directories for unit tests of handlers."""

from __future__ import annotations

import shutil
import urllib.request
from collections.abc import Mapping
from pathlib import Path


def download_model(model_url: str, model_dir: Path) -> None:
    """Fetch weights as `model.pt` of an existing directory."""
    urllib.request.urlretrieve(model_url, Path(model_dir) / "model.pt")


def copy_files(src_dir: Path, dst_dir: Path, files: Mapping[str, str]) -> None:
    """Copy files under other names: path below `src_dir` to path below `dst_dir`."""
    for source, target in files.items():
        shutil.copy(Path(src_dir) / source, Path(dst_dir) / target)
