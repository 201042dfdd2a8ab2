"""Wheels written by hand: one package of one module, so that pip has something to install without a network."""

from __future__ import annotations

import zipfile
from pathlib import Path


def make_wheel(folder: Path, name: str, version: str = "1.0", source: str = "", requires: str = "") -> Path:
    """Write `<name>-<version>-py3-none-any.whl`, whose package `<name>` has `source` for its `__init__.py`."""
    facts = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    members = {
        f"{name}/__init__.py": source or f"VERSION = {version!r}\n",
        f"{facts}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{facts}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = [f"{member},," for member in [*members, f"{facts}/RECORD"]]
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, text in members.items():
            wheel.writestr(member, text)
        wheel.writestr(f"{facts}/RECORD", "\n".join(record) + "\n")
    return path
