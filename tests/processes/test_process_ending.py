"""How the server process ends: by signals at any time, and whatever its threads do. Each case is a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP")


def run(script: str) -> subprocess.CompletedProcess[str]:
    """Run a script that has `stop` and the module's imports."""
    head = """
import asyncio, os, signal, sys, threading, time
from modelserver.ending import StopSignals, Threads, leave
stop = StopSignals()
stop.install()
def send(name):
    os.kill(os.getpid(), getattr(signal, name))
"""
    return subprocess.run([sys.executable, "-c", head + script], capture_output=True, text=True, timeout=50)


@pytest.mark.parametrize("name", SIGNALS)
def test_before_the_server_runs_a_signal_just_ends_the_process(name: str) -> None:
    done = run(f"""
try:
    send("{name}")
    time.sleep(40)
finally:
    print("cleaned up")
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "cleaned up\n", "")


def test_a_hang_up_that_is_ignored_stays_ignored() -> None:
    """Servers are started with nohup."""
    done = run("""
signal.signal(signal.SIGHUP, signal.SIG_IGN)
stop.install()
send("SIGHUP")
print("still here", flush=True)
send("SIGTERM")
time.sleep(40)
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "still here\n", "")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_signals_are_counted_and_wake_an_idle_loop(loop: str) -> None:
    done = run(f"""
import {loop}
async def main():
    stop.attach(asyncio.get_running_loop())
    for name, event in (("SIGTERM", stop.asked), ("SIGINT", stop.hurried), ("SIGTERM", stop.forced)):
        assert not event.is_set()
        threading.Timer(0.05, send, [name]).start()
        await event.wait()
    send("SIGINT")  # one more changes nothing
{loop}.run(main())
for name in {SIGNALS}:
    send(name)  # neither does one after the loop
print("over")
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "over\n", "")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_thread_that_hangs_keeps_neither_the_loop_nor_the_process(loop: str) -> None:
    done = run(f"""
import {loop}
async def main():
    asyncio.get_running_loop().set_default_executor(Threads())
    hanging = asyncio.ensure_future(asyncio.to_thread(time.sleep, 1000))
    assert await asyncio.to_thread(int, "7") == 7
    hanging.cancel()
{loop}.run(main())
print("over", end="")
leave(3)
""")
    assert (done.returncode, done.stdout, done.stderr) == (3, "over", "")


def test_a_thread_that_is_about_to_finish_is_waited_for() -> None:
    done = run("""
async def main():
    asyncio.get_running_loop().set_default_executor(Threads())
    loop = asyncio.get_running_loop()
    loop.run_in_executor(None, lambda: (time.sleep(0.2), print("written")))
asyncio.run(main())
leave(0)
""")
    assert (done.returncode, done.stdout, done.stderr) == (0, "written\n", "")
