"""Where the interpreters of the nursery and of exec'd workers begin.

`__main__.py nursery <control descriptor> [<descriptor limit> [<run directory> [<module to import>...]]]`, or a worker
whose order is in the environment. `__main__.py rehearsal <folder>`: no more than the import of a handler.
"""

import sys
from pathlib import Path

NEEDS = ("msgspec", "packaging", "psutil", "pyyaml", "setproctitle")  # of modelserver's own packages, in a worker


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
    if sys.argv[1:2] == ["rehearsal"]:
        from modelserver.worker.rehearsal import main as rehearsal

        return rehearsal(*sys.argv[2:])
    try:
        from modelserver.worker.main import main as worker
    except Exception as error:  # old interpreters stumble over more than imports
        print(complaint(error), file=sys.stderr)
        return 1
    return worker()


def complaint(error: Exception) -> str:
    """What an interpreter lacks that a model has brought, or that its runtime means."""
    version = ".".join(map(str, sys.version_info[:3]))
    return (
        f"{sys.executable} (Python {version}) cannot run workers: {error}. It needs Python 3.11 or newer, and: "
        f"{sys.executable} -m pip install {' '.join(NEEDS)}"
    )


if __name__ == "__main__":
    complete_search_path()
    sys.exit(start())
