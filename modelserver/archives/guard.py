"""Runs one program for a process that may die at any time: `python guard.py <command>...`, in a session of its own.

Standard input is a pipe whose other end the starter holds: when that end closes, the whole process group is killed.
The exit status of the program goes to standard output as text, what the program prints to standard error. The guard
itself stays: its number is that of the group, by which the starter kills what the program has left behind. Stands
alone: it is started as a script, without site-packages.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading


def main(command: list[str]) -> None:
    """Run the command, report its status (128 + n if signal n killed it), and wait for the end of the starter."""
    watch = threading.Thread(target=end_with_starter, daemon=True)
    watch.start()
    try:
        status = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=sys.stderr.fileno())
    except OSError as error:
        print(f"ERROR: {error}", file=sys.stderr, flush=True)
        status = 127
    os.write(sys.stdout.fileno(), b"%d" % (status if status >= 0 else 128 - status))
    os.close(sys.stdout.fileno())
    watch.join()


def end_with_starter() -> None:
    """Kill the process group when nobody holds the other end of standard input any more."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1:])
