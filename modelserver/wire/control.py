"""Messages between the frontend and the nursery, over a `SOCK_SEQPACKET` pair: one message a packet, msgpack, no
length prefix.
"""

from __future__ import annotations

from typing import Final

import msgspec

# Carries the order to an exec'd worker: the environment passes launchers, and unlike argv other users cannot read it.
ORDER_VARIABLE: Final = "MODELSERVER_WORKER"


class Spawn(msgspec.Struct, array_like=True, tag=1):
    """Start a worker process. Two descriptors travel with it (SCM_RIGHTS): the write ends for its stdout and stderr."""

    slot: int
    generation: int
    rank: int
    socket: str  # path the worker connects to
    token: str
    title: str  # process title prefix, `W-9000-digits_1.0`
    cwd: str  # the model directory
    python_path: list[str]  # goes in front of sys.path, and into PYTHONPATH
    environment: dict[str, str]  # set in the worker
    hidden: list[str]  # names removed from the worker's environment
    threads: int  # torch intra-op threads; 0 leaves torch's default
    executable: str = ""  # another interpreter: implies exec
    launcher: list[str] = []  # argv put between interpreter and worker entry: implies exec
    fork: bool = True  # False: exec a fresh interpreter
    concurrent: bool = False  # serve an asynchronous handler
    ranks: int = 1  # processes that the launcher makes; of several, each learns its number from LOCAL_RANK


class Kill(msgspec.Struct, array_like=True, tag=2):
    """SIGKILL a worker's process group; its caretakers get a little time."""

    pid: int


class Adopt(msgspec.Struct, array_like=True, tag=4):
    """A process that the worker `launcher` has made has connected: its end is the launcher's end, and is reported."""

    pid: int
    launcher: int


class Dismiss(msgspec.Struct, array_like=True, tag=3):
    """The control socket is about to end on purpose: the frontend lives on, and cleans up after itself."""


class Probe(msgspec.Struct, array_like=True, tag=5):
    """Say that the orders before this one have been taken."""


class Ready(msgspec.Struct, array_like=True, tag=16):
    """The nursery has imported what it shares and can fork."""

    pid: int
    python: str
    torch: str  # version, "" where torch is not installed


class Spawned(msgspec.Struct, array_like=True, tag=17):
    """A worker process exists. `why` says why it was exec'd rather than forked, "" when forked."""

    slot: int
    generation: int
    rank: int
    pid: int
    command: list[str]
    why: str


class SpawnFailed(msgspec.Struct, array_like=True, tag=18):
    """No process came of a `Spawn`."""

    slot: int
    generation: int
    rank: int
    reason: str


class Exited(msgspec.Struct, array_like=True, tag=19):
    """A worker process was reaped. `status` is the raw wait status, None if the launcher of the process has reaped it.

    `after` is the adopted process whose end made the nursery kill this launcher, 0 if none did.
    """

    pid: int
    status: int | None
    max_rss: int  # bytes
    after: int = 0


class Alive(msgspec.Struct, array_like=True, tag=20):
    """Answer to a `Probe`."""


ToNursery = Spawn | Kill | Adopt | Dismiss | Probe
FromNursery = Ready | Spawned | SpawnFailed | Exited | Alive

PACKET_LIMIT = 1 << 18  # bytes; more than any environment a kernel accepts in one packet

encode = msgspec.msgpack.Encoder().encode
decode_to_nursery = msgspec.msgpack.Decoder(ToNursery).decode
decode_from_nursery = msgspec.msgpack.Decoder(FromNursery).decode
