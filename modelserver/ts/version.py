"""The version of the server, read from the one file that holds it."""

from __future__ import annotations

from pathlib import Path

version_path = str(Path(__file__).with_name("version.txt"))
__version__ = Path(version_path).read_text(encoding="utf-8").strip()
