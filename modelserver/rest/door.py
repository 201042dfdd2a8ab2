"""Closing a listening socket without hurting a client that has connected.

Whoever waits in the kernel's queue when a listening socket is closed is reset, although the client believes to be
connected and may have sent a request. So newcomers are kept out first, then the queue is emptied, then the socket may
be closed.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import sys
from typing import Final

_SO_ATTACH_FILTER: Final = 26  # Linux; `socket` does not name it
_TCP_FLAGS, _SYN = 13, 0x02  # offset in the TCP header, and the bit of a first packet
# Classic BPF: (code, jump if true, jump if false, operand). Drops first packets, so that no connection begins: their
# clients try again a second later and are refused then. The last packets of connections that have begun get through.
_KEEP_OUT: Final = (
    (0x30, 0, 0, _TCP_FLAGS),  # load that byte
    (0x45, 0, 1, _SYN),  # skip the next one unless the bit is set
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # let through
)


def keep_out(listening: socket.socket) -> bool:
    """Let no new connection begin on a socket that still listens; False where the system cannot do that.

    Then a client that connects between the last `let_in` and the close is reset.
    """
    try:
        if listening.family == getattr(socket, "AF_UNIX", None):
            listening.shutdown(socket.SHUT_RD)  # refuses from now on, and keeps the queue
        elif sys.platform == "linux":
            _attach(listening, _KEEP_OUT)
        else:
            return False
    except OSError:
        return False
    return True


def let_in(listening: socket.socket) -> list[socket.socket]:
    """Every connection that waits to be accepted on a non-blocking socket."""
    guests: list[socket.socket] = []
    while True:
        try:
            guest, _ = listening.accept()
        except ConnectionAbortedError:
            continue  # it left while it waited
        except OSError:
            return guests  # nobody waits; or no descriptor is left for those who do
        guests.append(guest)


def _attach(listening: socket.socket, program: tuple[tuple[int, int, int, int], ...]) -> None:
    """Attach a socket filter; every descriptor of the socket is filtered. Raises OSError."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    listening.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))
