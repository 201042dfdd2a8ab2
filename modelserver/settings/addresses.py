"""Where a REST listener binds: `http://HOST[:PORT]`, `https://HOST[:PORT]` or `unix:/absolute/path`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv6Address
from typing import Final

_TCP: Final = re.compile(r"(https?)://(\[[^\[\]/]*\]|[^:/^\s\[\]]+)(?::([0-9]+))?/?", re.IGNORECASE)
_UNIX: Final = re.compile(r"unix:(/[^\0]+)", re.IGNORECASE)
_LONGEST_PATH: Final = 107  # bytes of a Unix socket's path that every kernel takes


@dataclass(frozen=True, slots=True)
class Address:
    """A bind address. `str()` gives the form that logs show; port 0 asks the kernel for a free port."""

    scheme: str  # http, https, unix
    host: str = ""  # without the brackets of an IPv6 literal; "" for unix
    port: int = 0
    path: str = ""  # of a unix socket

    @property
    def tls(self) -> bool:
        """True for https."""
        return self.scheme == "https"

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def parse_address(text: str, http_port: int, https_port: int) -> Address:
    """Read an address; the ports are the defaults of the two schemes. Raises ValueError."""
    value = text.strip()
    if unix := _UNIX.fullmatch(value):
        if len(os.fsencode(unix[1])) > _LONGEST_PATH:
            raise ValueError(f"Invalid binding address: {value}: a path of more than {_LONGEST_PATH} bytes")
        return Address("unix", path=unix[1])
    if not (tcp := _TCP.fullmatch(value)):
        raise ValueError(f"Invalid binding address: {value}")
    scheme, host, port = tcp[1].lower(), tcp[2], tcp[3]
    if host.startswith("["):
        host = _ipv6(host[1:-1], value)
    if port is None:
        return Address(scheme, host, https_port if scheme == "https" else http_port)
    if len(port) > 5 or int(port) > 65535:
        raise ValueError(f"Invalid port number: {value}")
    return Address(scheme, host, int(port))


def _ipv6(literal: str, value: str) -> str:
    try:
        IPv6Address(literal)
    except AddressValueError:
        raise ValueError(f"Invalid binding address: {value}") from None
    return literal
