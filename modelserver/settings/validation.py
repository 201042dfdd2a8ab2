"""Checks that need more than the text of one key; all of them run before anything binds."""

from __future__ import annotations

import socket

from modelserver.errors import ConfigurationError
from modelserver.settings.table import Settings

_REST = ("inference_address", "management_address", "metrics_address")
_GRPC = ("grpc_inference_address", "grpc_management_address")


def check(settings: Settings) -> None:
    """Raises ConfigurationError for the first thing the server could not start with."""
    _check_rest_addresses(settings)
    for name in _GRPC:
        _check_host(settings, name, getattr(settings, name))
    _check_tls(settings)


def _check_rest_addresses(settings: Settings) -> None:
    for name in _REST:
        address = getattr(settings, name)
        if address.scheme != "unix":
            _check_host(settings, name, address.host)
        elif not settings.use_native_io:
            raise _refusal(settings, name, "unix domain socket requires use_native_io set to true.")


def _check_host(settings: Settings, name: str, host: str) -> None:
    try:
        socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise _refusal(settings, name, f"Unknown host: {getattr(settings, name)}") from None


def _check_tls(settings: Settings) -> None:
    """Named key material must exist; gRPC cannot do without any, REST then makes a certificate of its own."""
    if not (settings.enable_grpc_ssl or any(getattr(settings, name).tls for name in _REST)):
        return
    pair = ("certificate_file", "private_key_file")
    names = ("keystore",) if settings.keystore else tuple(name for name in pair if getattr(settings, name))
    for name in names:
        if not getattr(settings, name).is_file():
            raise _refusal(settings, name, f"NoSuchFileException: {getattr(settings, name)}")
    if settings.enable_grpc_ssl and names != ("keystore",) and names != pair:
        text = "TLS needs keystore, or both certificate_file and private_key_file"
        raise _refusal(settings, "enable_grpc_ssl", text)


def _refusal(settings: Settings, name: str, text: str) -> ConfigurationError:
    message = f"{text} ({name}, {settings.source(name)})"
    return ConfigurationError(message.encode("utf-8", "backslashreplace").decode("utf-8"))
