"""Deletes the environments that no model uses: `python -m modelserver.archives.prune --help`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from modelserver.archives.environments import Environments, folders_for

_DAY = 24 * 3600


def main(arguments: Sequence[str] | None = None) -> int:
    """Delete, and say what; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m modelserver.archives.prune",
        description="Delete the environments that no model uses. Safe beside servers that run on this machine.",
    )
    parser.add_argument("--cache", type=Path, metavar="DIR", help="setting environment_cache of the servers")
    parser.add_argument("--unused-for", type=float, default=0.0, metavar="DAYS", help="keep what was used later")
    options = parser.parse_args(arguments)
    folders = folders_for(options.cache, Path(os.environ.get("TEMP") or tempfile.gettempdir()), os.environ)
    deleted = Environments(folders).prune(options.unused_for * _DAY)
    for place in deleted:
        print(f"Deleted {place}")
    if not deleted:
        print("Nothing to delete: every environment is in use.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
