"""Checks that need more than the text of one key; all of them run before anything binds."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from modelserver.errors import ConfigurationError
from modelserver.settings.faults import Fault
from modelserver.settings.notices import printable
from modelserver.settings.table import Settings

_REST = ("inference_address", "management_address", "metrics_address")
_GRPC = ("grpc_inference_address", "grpc_management_address")


def faults(settings: Settings) -> Iterator[Fault]:
    """Everything the server could not start with, in the order in which it looks."""
    unbindable = [fault for name in (*_REST, *_GRPC) for fault in _address_faults(settings, name)]
    yield from unbindable
    if not unbindable:
        yield from _port_faults(settings)
    yield from _tls_faults(settings)


def _address_faults(settings: Settings, name: str) -> list[Fault]:
    address = getattr(settings, name)
    host, unix = (address, address.startswith("unix:")) if name in _GRPC else (address.host, address.scheme == "unix")
    if unix:
        text = "unix domain socket requires use_native_io set to true."
        return [] if settings.use_native_io else [_fault(settings, name, text)]
    return [] if _is_known(host) else [_fault(settings, name, f"Unknown host: {address}")]


@dataclass(frozen=True, slots=True)
class _Claim:
    """A port that is going to be bound."""

    key: str
    shown: str
    host: str
    port: int
    rest: bool

    def shares(self, other: _Claim) -> bool:
        """REST listeners with equal addresses are one."""
        return self.rest and self.shown == other.shown

    def collides(self, other: _Claim) -> bool:
        """Whether only one of the two can have its port."""
        return (
            self.port == other.port != 0 and not self.shares(other) and _overlap(_bound(self.host), _bound(other.host))
        )


def _port_faults(settings: Settings) -> Iterator[Fault]:
    """Listeners that cannot be bound side by side; the system would only name one of them."""
    for first, second in combinations(_claims(settings), 2):
        if first.collides(second):
            text = f"{second.shown} takes the port of {first.key}={first.shown}: only equal REST addresses share one"
            yield _fault(settings, second.key, text)


def _claims(settings: Settings) -> list[_Claim]:
    """Port 0 stands for sockets that have none, too."""
    rest = {name: getattr(settings, name) for name in (_REST if settings.enable_metrics_api else _REST[:2])}
    grpc = [(f"grpc_{api}_port", getattr(settings, f"grpc_{api}_address")) for api in ("inference", "management")]
    claims = [_Claim(name, str(address), address.host, address.port, True) for name, address in rest.items()]
    for key, host in grpc:
        port = 0 if host.startswith("unix:") else getattr(settings, key)
        claims.append(_Claim(key, f"{host}:{port}", host, port, False))
    return claims


def _bound(host: str) -> set[str]:
    """The IP addresses that a listener of this host binds."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return {str(entry[4][0]) for entry in found}


def _overlap(first: set[str], second: set[str]) -> bool:
    """Whether both hold an address, or one holds the wildcard of a family that the other has an address of."""
    both = first | second
    if "0.0.0.0" in both and all(any("." in ip for ip in ips) for ips in (first, second)):
        return True
    if "::" in both and all(any(":" in ip for ip in ips) for ips in (first, second)):
        return True
    return bool(first & second)


def _is_known(host: str) -> bool:
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        return False
    return True


def _tls_faults(settings: Settings) -> Iterator[Fault]:
    """Named key material must exist; gRPC cannot do without any, REST then makes a certificate of its own."""
    if not (settings.enable_grpc_ssl or any(getattr(settings, name).tls for name in _REST)):
        return
    pair = ("certificate_file", "private_key_file")
    names = ("keystore",) if settings.keystore else tuple(name for name in pair if getattr(settings, name))
    for name in (*names, "client_ca_file") if settings.client_ca_file else names:
        if not getattr(settings, name).is_file():
            yield _fault(settings, name, f"NoSuchFileException: {getattr(settings, name)}")
    if settings.enable_grpc_ssl and names != ("keystore",) and names != pair:
        text = "TLS needs keystore, or both certificate_file and private_key_file"
        yield _fault(settings, "enable_grpc_ssl", text)


def refusal(settings: Settings, name: str, text: str) -> ConfigurationError:
    """The error that names a setting and where it was set."""
    return _fault(settings, name, text).error()


def _fault(settings: Settings, name: str, text: str) -> Fault:
    return Fault(name, settings.source(name), printable(text))
