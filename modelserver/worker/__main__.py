"""Where the interpreters of the nursery and of exec'd workers begin.

`__main__.py nursery <control descriptor> [<descriptor limit> [<run directory> [<module to import>...]]]`, or a worker
whose order is in the environment.
"""

import sys
from pathlib import Path


def complete_search_path() -> None:
    """Make modelserver and `ts` importable in every interpreter, and nothing of theirs under a bare name.

    Runs before any import of ours: launchers start a script with its own directory in front of the search path.
    """
    here = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != here]
    root = here.parent.parent
    for directory in (root, root if (root / "ts").is_dir() else here.parent):
        if str(directory) not in sys.path:
            sys.path.append(str(directory))


def start() -> int:
    """Run the nursery or one worker; returns its exit status."""
    if sys.argv[1:2] == ["nursery"]:
        from modelserver.worker.nursery import main as nursery

        return nursery(*sys.argv[2:])
    from modelserver.worker.main import main as worker

    return worker()


if __name__ == "__main__":
    complete_search_path()
    sys.exit(start())
