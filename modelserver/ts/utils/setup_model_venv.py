"""Script: makes a virtual environment that also sees the packages of the one it is run with."""

from __future__ import annotations

import argparse
import sysconfig
import venv
from pathlib import Path


def create_venv(path: str | Path) -> None:
    """Make the environment, or make it anew. Its own packages win over those that it inherits."""
    venv.create(path, clear=True, with_pip=True, symlinks=True)
    own = sysconfig.get_path("purelib", "venv", {"base": str(path), "platbase": str(path)})
    inherited = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    Path(own, "inherited.pth").write_text("\n".join(inherited) + "\n", encoding="utf-8")


def main() -> None:
    """Make the environment that the argument names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("venv_path", help="folder of the environment")
    create_venv(parser.parse_args().venv_path)


if __name__ == "__main__":
    main()
