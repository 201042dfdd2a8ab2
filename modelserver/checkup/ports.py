"""Addresses that are to be bound: free, or who has them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from modelserver.checkup.finding import Finding, error, warning
from modelserver.pidfile import MARKER
from modelserver.settings.table import Settings

_REST = ("inference_address", "management_address", "metrics_address")


@dataclass(frozen=True, slots=True)
class Place:
    """One address: a host and a port, or the path of a Unix socket."""

    key: str
    shown: str
    host: str = ""
    port: int = 0
    path: str = ""


def examine_ports(settings: Settings) -> Iterator[Finding]:
    """Those that the server could not bind now."""
    for place in places_of(settings):
        if (failure := why_not_free(place)) is not None:
            source = settings.source(place.key)
            yield _taken(place, place.key if source == "default" else source, failure)


def places_of(settings: Settings) -> list[Place]:
    """What is bound, every address once."""
    places: dict[str, Place] = {}
    for key in _REST if settings.enable_metrics_api else _REST[:2]:
        address = getattr(settings, key)
        places.setdefault(str(address), Place(key, str(address), address.host, address.port, address.path))
    for api in ("inference", "management"):
        host, port = getattr(settings, f"grpc_{api}_address"), getattr(settings, f"grpc_{api}_port")
        path = host.removeprefix("unix:") if host.startswith("unix:") else ""
        shown = host if path else f"{host}:{port}"
        places.setdefault(shown, Place(f"grpc_{api}_port", shown, host, 0 if path else port, path))
    return list(places.values())


def why_not_free(place: Place) -> OSError | None:
    """What binding it fails with; None if it can be bound. Nothing stays bound, and no file behind."""
    try:
        if place.path:
            _try_path(place.path)
        elif place.port:
            _try_port(place.host, place.port)
    except OSError as failure:
        return failure
    return None


def _try_port(host: str, port: int) -> None:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        trial.bind(address)


def _try_path(path: str) -> None:
    """A socket without a listener gives way to the server's; one with a listener, or any other file, does not."""
    folder = Path(path).parent
    if not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise OSError(errno.EACCES, f"{folder} is no directory that can be written to")
    if not os.path.lexists(path):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        try:
            trial.connect(path)
        except ConnectionRefusedError:
            if Path(path).is_socket():
                return
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _taken(place: Place, where: str, failure: OSError) -> Finding:
    text = f"Failed to bind to address: {place.shown}: {failure.strerror or failure}"
    if failure.errno != errno.EADDRINUSE:
        return error(where, text, "Choose an address that the server's user may bind.")
    owner = _owner(place.port)
    if owner is None:
        return error(where, text, "End the program that listens there, or choose another port.")
    text = f"{text}: process {owner.pid}, {owner.name}"
    if owner.server:  # what this deployment is to take the place of
        return warning(where, text, "It is a model server: stop it first, by torchserve --stop.")
    return error(where, text, "End that program, or choose another port.")


@dataclass(frozen=True, slots=True)
class _Owner:
    pid: int
    name: str
    server: bool  # ours, or TorchServe


def _owner(port: int) -> _Owner | None:
    """Who listens on a port, as far as this user can see."""
    try:
        listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        pid = next(one.pid for one in listening if one.pid and one.laddr and one.laddr.port == port)
        process = psutil.Process(pid)
        return _Owner(pid, process.name(), MARKER in process.cmdline())
    except (psutil.Error, StopIteration):
        return None
