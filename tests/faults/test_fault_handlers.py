"""Handlers that go wrong from the inside: how they end, what they write where, and what they do to their process."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from fault_stage import PATIENCE, Victim, stage, unharmed

from harness.leaks import Census, assert_settles
from harness.server import ServerProcess, ended, eventually

# The descriptor of the worker's connection: the handler finds it as anybody could.
CONNECTION = """
def is_socket(descriptor):
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket")
    except OSError:
        return False

connection = next(int(name) for name in os.listdir("/proc/self/fd") if is_socket(name))
"""

STACK = """
sys.setrecursionlimit(1 << 30)
def descend(_):
    return list(map(descend, [0]))
descend(0)
"""

DEADLOCK = """
lock = threading.Lock()
lock.acquire()
lock.acquire()
"""

INITIALIZE = "exception in initialize"

CROWD = """
for _ in range(300):
    threading.Thread(target=time.sleep, args=[600]).start()
"""

# Twenty processes in the worker's group, and two that leave it: the second one with an end of its parent between.
SLEEPERS = """
for _ in range(20):
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
"""

DAEMONS = """
pids = []
for twice in (False, True):
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if twice and os.fork():
            os._exit(0)
        os.write(writer, str(os.getpid()).encode())
        time.sleep(600)
    pids.append(os.read(reader, 20).decode())
    os.close(reader), os.close(writer)
    if twice:
        os.wait()
result = " ".join(pids)
"""

THREADS = """
limits = resource.getrlimit(resource.RLIMIT_AS)
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
over = threading.Event()
threads = []
resource.setrlimit(resource.RLIMIT_AS, (size + (256 << 20), limits[1]))
try:
    while True:
        threads.append(threading.Thread(target=over.wait, daemon=True))
        threads[-1].start()
finally:
    resource.setrlimit(resource.RLIMIT_AS, limits)
    over.set()
    for thread in threads[:-1]:
        thread.join()
"""

HUNGRY = """
limits = resource.getrlimit(resource.RLIMIT_AS)
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + (64 << 20), limits[1]))
try:
    hoard = []
    while True:
        hoard.append(bytearray(1 << 20))
finally:
    hoard = None
    resource.setrlimit(resource.RLIMIT_AS, limits)
"""


@pytest.fixture(scope="module")
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as threads:
        yield threads


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with stage(tmp_path_factory.mktemp("handlers")) as running:
        yield running


@pytest.fixture(scope="module")
def victim(server: ServerProcess, clients: ThreadPoolExecutor) -> Victim:
    model = Victim(server, "victim", clients=clients)
    assert model.register(response_timeout=PATIENCE).status_code == 200
    return model


@pytest.fixture(scope="module")
def hasty(server: ServerProcess, clients: ThreadPoolExecutor) -> Victim:
    """A victim with a short response timeout."""
    model = Victim(server, "hasty", clients=clients)
    assert model.register(response_timeout=1).status_code == 200
    return model


@pytest.fixture(autouse=True)
def others_are_unharmed(server: ServerProcess, victim: Victim, hasty: Victim) -> Iterator[None]:
    with unharmed(server):
        yield


DEATHS: dict[str, tuple[str, dict[str, Any]]] = {
    "segmentation fault": ("ctypes.string_at(0)", {"reason": "killed by a signal", "signal": "SIGSEGV"}),
    "stack overflow": (STACK, {"reason": "killed by a signal", "signal": "SIGSEGV"}),
    "abort": ("os.abort()", {"reason": "killed by a signal", "signal": "SIGABRT"}),
    "bus error": ("signal.raise_signal(signal.SIGBUS)", {"reason": "killed by a signal", "signal": "SIGBUS"}),
    "alarm": ("signal.alarm(1); time.sleep(600)", {"reason": "killed by a signal", "signal": "SIGALRM"}),
    "keyboard interrupt": ("raise KeyboardInterrupt", {"reason": "process exited", "exitCode": 1}),
    "generator exit": ("raise GeneratorExit", {"reason": "process exited", "exitCode": 1}),
    "system exit": ("raise SystemExit(5)", {"reason": "process exited", "exitCode": 5}),
    "exit": ("sys.exit()", {"reason": "process exited", "exitCode": 0}),
    "exit with a text": ("sys.exit('no more')", {"reason": "process exited", "exitCode": 1}),
    "immediate exit": ("os._exit(0)", {"reason": "process exited", "exitCode": 0}),
    "immediate exit with a status": ("os._exit(3)", {"reason": "process exited", "exitCode": 3}),
    "no files": ("os.closerange(3, 1000)", {"reason": "process exited", "exitCode": 1}),
    "no files and no streams": ("os.closerange(0, 1000)", {"reason": "process exited"}),
    "many threads": (CROWD + "os._exit(1)", {"reason": "process exited", "exitCode": 1}),
    "many processes": (SLEEPERS + "os._exit(1)", {"reason": "process exited", "exitCode": 1}),
    "noise for the frontend": (CONNECTION + "os.write(connection, b'\\xff' * 1000)", {"reason": "protocol violation"}),
    "a frame of noise": (CONNECTION + "os.write(connection, b'\\x04\\0\\0\\0junk')", {"reason": "protocol violation"}),
}


@pytest.mark.parametrize("name", DEATHS)
def test_the_end_of_the_process(victim: Victim, name: str) -> None:
    code, cause = DEATHS[name]
    fall = victim.strike(code)
    assert fall.answer.status_code == 500
    assert fall.cause | cause == fall.cause
    assert fall.cause["detail"]


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "GeneratorExit", "SystemExit"])
def test_exceptions_that_nobody_catches_are_the_detail(victim: Victim, error: str) -> None:
    cause = victim.strike(f"raise {error}('by hand')").cause
    assert (cause["reason"], cause["detail"], cause["exitCode"]) == ("process exited", f"{error}: by hand", 1)
    assert "handler.py" in cause["traceback"][1]
    assert cause["traceback"][-1] == f"{error}: by hand"


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "GeneratorExit"])
def test_exceptions_that_nobody_catches_are_in_the_last_output(victim: Victim, error: str) -> None:
    output = victim.strike(f"raise {error}('by hand')").cause["lastOutput"]
    assert any(f"{error}: by hand" in line for line in output)
    assert any("handler.py" in line for line in output)


HANGS = {
    "deadlock": DEADLOCK,
    "busy loop": "while True: pass",
    "pause": "signal.pause()",
    "exit that waits for a function": "import atexit; atexit.register(time.sleep, 600); sys.exit()",
    "exit that waits for a thread": "threading.Thread(target=time.sleep, args=[600]).start(); sys.exit()",
    "a reply that becomes part of a forged frame": CONNECTION + "os.write(connection, b'\\0\\0\\x10\\0')",
}


@pytest.mark.parametrize("name", HANGS)
def test_a_handler_that_never_returns_is_overdue(hasty: Victim, name: str) -> None:
    fall = hasty.strike(HANGS[name])
    assert (fall.answer.status_code, fall.cause["reason"]) == (500, "response timeout")
    assert "responseTimeout of 1 s" in fall.cause["detail"]


def test_a_handler_that_catches_every_signal_is_ended_all_the_same(hasty: Victim) -> None:
    deaf = """
for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
    signal.signal(number, signal.SIG_IGN)
while True:
    time.sleep(1)
"""
    assert hasty.strike(deaf).cause["reason"] == "response timeout"


SURVIVED: dict[str, tuple[str, int, str]] = {
    "5 MB without a line end": ("os.write(1, b'x' * 5_000_000)", 200, "fine"),
    "50,000 empty lines": ("os.write(2, b'\\n' * 50_000)", 200, "fine"),
    "broken UTF-8": ("os.write(1, b'\\xff\\xfe\\xc3\\x28' * 1000 + b'\\n')", 200, "fine"),
    "zeros": ("os.write(1, bytes(100_000) + b'\\n')", 200, "fine"),
    "a broken metric": ("print('[METRICS]PredictionTime.Milliseconds:nonsense|#:,|#', '[METRICS]')", 200, "fine"),
    "many broken metrics": ("print('[METRICS]' * 10_000)", 200, "fine"),
    "terminal codes": ("print(chr(27) + '[2J' + chr(27) + ']0;title' + chr(7) + chr(0x2028))", 200, "fine"),
    "other streams": ("sys.stdout = None; sys.stderr = object()", 200, "fine"),
    "no environment": ("os.environ.clear()", 200, "fine"),
    "a SIGTERM handler": ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))", 200, "fine"),
    "another directory": ("os.chdir('/')", 200, "fine"),
    "an exception in a thread": ("threading.Thread(target=lambda: 1 / 0).start()", 200, "fine"),
    "endless recursion": ("def fall(): return fall()\nfall()", 503, "Prediction failed"),
    "no room for threads": (THREADS, 503, "Prediction failed"),
    "no room for objects": (HUNGRY, 507, "Out of resources"),
    "a memory error": ("raise MemoryError", 507, "Out of resources"),
    "an exception whose text is no Unicode": ("raise ValueError(chr(0xDC80))", 503, "Prediction failed"),
}


@pytest.mark.parametrize("name", SURVIVED)
def test_what_a_worker_survives(victim: Victim, name: str) -> None:
    code, status, text = SURVIVED[name]
    answer = victim.endure(code)
    assert answer.status_code == status
    assert (answer.text if status == 200 else answer.json()["message"]) == text


@pytest.mark.parametrize("code", ["os.close(1); os.close(2)", "os.close(1)", "sys.stdout.close(); sys.stderr.close()"])
def test_a_worker_without_standard_streams_serves_on(victim: Victim, code: str) -> None:
    assert victim.endure(code).text == "fine"
    assert victim.endure("raise ValueError('its traceback finds no stream')").status_code == 503
    assert victim.strike("os._exit(7)").cause["exitCode"] == 7, "and another one follows it, with streams"


def test_a_frame_for_another_batch_changes_nothing(victim: Victim) -> None:
    forged = """
from modelserver.wire.frames import Replies, Reply, encode
os.write(connection, encode(Replies(1 << 40, 200, "", [Reply(0, b"forged")])))
result = "real"
"""
    assert victim.endure(CONNECTION + forged).text == "real"


def test_replies_to_requests_that_were_not_in_the_batch(victim: Victim) -> None:
    forged = """
import gc
from modelserver.wire.frames import Batch, Replies, Reply, encode
from modelserver.worker.service import Service
frame = sys._getframe()
while not isinstance(frame.f_locals.get("batch"), Batch):
    frame = frame.f_back
os.write(connection, encode(Replies(frame.f_locals["batch"].id, 200, "", [Reply(7, b"forged")])))
time.sleep(600)
"""
    fall = victim.strike(CONNECTION + forged)
    assert fall.cause["reason"] == "protocol violation"
    assert fall.cause["detail"] == "answered a batch of 1 with replies to other requests"


def test_a_worker_that_ends_its_connection_and_lives_on_is_ended(victim: Victim) -> None:
    code = "socket.socket(fileno=os.dup(connection)).shutdown(socket.SHUT_RDWR); time.sleep(600)"
    fall = victim.strike(CONNECTION + code)
    assert fall.cause["reason"] == "process exited"
    assert fall.cause["detail"] == "closed its connection, but did not exit"


def test_a_fork_that_returns_from_both_sides_is_answered_once(victim: Victim) -> None:
    assert victim.endure("result = 'parent' if os.fork() else 'child'").text == "parent"
    victim.strike("os._exit(1)")  # a child that nobody waits for stays a zombie as long as its parent lives


def test_daemons_of_a_handler_do_not_delay_its_successor_and_end_with_the_server(
    tmp_path: Path, clients: ThreadPoolExecutor
) -> None:
    with stage(tmp_path) as other:
        model = Victim(other, "daemonic", clients=clients)
        assert model.register().status_code == 200
        daemons = [psutil.Process(int(pid)) for pid in model.endure(DAEMONS).text.split()]
        assert model.strike("os._exit(1)").cause["exitCode"] == 1
        model.unregister()
    eventually(lambda: all(map(ended, daemons)))


def test_a_model_directory_that_a_handler_deletes(server: ServerProcess, clients: ThreadPoolExecutor) -> None:
    model = Victim(server, "homeless", clients=clients)
    before = Census.of(server)
    assert model.register().status_code == 200
    assert model.endure("shutil.rmtree(os.getcwd()); os.chdir('/')").text == "fine"
    os.kill(model.ready()["pid"], signal.SIGKILL)
    slot = eventually(lambda: slot if "FileNotFoundError" in str(slot := model.slot()) else {})
    assert slot["cause"]["reason"] == "process exited"
    assert "nextRetryInSec" in slot
    model.unregister()
    assert_settles(server, before)


FAILED_LOADS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "exit": ("sys.exit(6)", 500, {"reason": "process exited", "exitCode": 6}),
    "immediate-exit": ("os._exit(0)", 500, {"reason": "process exited", "exitCode": 0}),
    "interrupt": ("raise KeyboardInterrupt", 500, {"reason": "process exited", "detail": "KeyboardInterrupt"}),
    "generator-exit": ("raise GeneratorExit('x')", 500, {"reason": INITIALIZE, "detail": "GeneratorExit: x"}),
    "segmentation-fault": ("ctypes.string_at(0)", 500, {"reason": "killed by a signal", "signal": "SIGSEGV"}),
    "stack-overflow": (STACK, 500, {"reason": "killed by a signal", "signal": "SIGSEGV"}),
    "no-memory": (HUNGRY, 507, {"reason": "out of memory"}),
    "no-files": ("os.closerange(3, 1000)", 500, {"reason": "process exited", "exitCode": 1}),
    "noise": (CONNECTION + "os.write(connection, b'\\xff' * 1000)", 500, {"reason": "protocol violation"}),
    "deadlock": (DEADLOCK, 500, {"reason": "load timeout"}),
}


@pytest.mark.parametrize("name", FAILED_LOADS)
def test_the_end_of_the_process_in_initialize(server: ServerProcess, clients: ThreadPoolExecutor, name: str) -> None:
    """A registration that waits for the worker is told why, and nothing of the model stays."""
    code, status, cause = FAILED_LOADS[name]
    model = Victim(server, f"failing-{name}", clients=clients)
    model.order_initialize(code)
    answer = model.register(startup_timeout=1 if code is DEADLOCK else PATIENCE)
    assert answer.status_code == status
    assert answer.json()["cause"] | cause == answer.json()["cause"]
    assert server.request("GET", f"/models/{model.name}", "Management").status_code == 404


def test_a_restart_that_fails_is_told_of_and_tried_again(victim: Victim) -> None:
    before = victim.ready()
    victim.order_initialize("raise ValueError('not today')")
    os.kill(before["pid"], signal.SIGKILL)
    slot = eventually(lambda: slot if "nextRetryInSec" in (slot := victim.slot()) else {})
    waiting = victim.ask()
    victim.order_initialize("")
    assert (slot["cause"]["reason"], slot["cause"]["detail"]) == (INITIALIZE, "ValueError: not today")
    assert any("not today" in line for line in slot["cause"]["traceback"])
    assert 0 <= slot["nextRetryInSec"] <= 1
    assert waiting.result(PATIENCE).text == "fine"
    assert victim.ready()["id"] == before["id"]
