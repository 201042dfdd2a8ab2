"""Disks that are nearly full: tiny file systems in memory, mounted for one test."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest


@contextmanager
def tiny_disk(directory: Path, size: int) -> Iterator[Path]:
    """Mount a file system of `size` bytes on a directory; unmounted whatever happens. Raises CalledProcessError."""
    directory.mkdir(exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(directory)], check=True, capture_output=True
    )
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True, capture_output=True)


def fill(directory: Path, *, leave: int = 0) -> Path:
    """A file that takes all the room of a disk but about `leave` bytes."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file:
        for chunk in (1 << 16, 1 << 12, 1):
            try:
                while shutil.disk_usage(directory).free > leave:
                    file.write(bytes(chunk))
            except OSError:
                continue  # full for pieces of this size
    return filler


@cache
def can_mount() -> bool:
    """Whether this process may mount file systems: it takes root, and a container that lets it."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    with tempfile.TemporaryDirectory() as directory:
        try:
            with tiny_disk(Path(directory) / "trial", 1 << 16):
                return True
        except subprocess.CalledProcessError:
            return False


def needs_mounts() -> pytest.MarkDecorator:
    """Skip where nothing can be mounted."""
    return pytest.mark.skipif(not can_mount(), reason="needs the right to mount file systems, which root has")
