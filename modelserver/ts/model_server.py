"""The `torchserve` command under the name that scripts import."""

from __future__ import annotations

from modelserver.cli import main as start

__all__ = ["start"]

if __name__ == "__main__":
    start()
