"""TLS as a configuration asks for it; everything that needs the library for certificates is imported only then."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from modelserver.settings.notices import Notice
from modelserver.settings.table import Settings


@dataclass(frozen=True, slots=True)
class Tls:
    """The context of all https listeners, and what is to be said about it."""

    context: ssl.SSLContext
    notices: tuple[Notice, ...]


def prepare_tls(settings: Settings, folder: Path) -> Tls | None:
    """None where no address is https. `folder` is private. Raises ConfigurationError."""
    addresses = [settings.inference_address, settings.management_address]
    if settings.enable_metrics_api:
        addresses.append(settings.metrics_address)
    return _prepare(settings, folder) if any(address.tls for address in addresses) else None


def _prepare(settings: Settings, folder: Path) -> Tls:
    from modelserver.identity.context import server_context
    from modelserver.identity.sources import client_authorities, find_identity
    from modelserver.settings.validation import refusal

    identity, notices = find_identity(settings, datetime.now(UTC))
    authorities = client_authorities(settings)
    try:
        return Tls(server_context(identity, authorities, folder), tuple(notices))
    except ssl.SSLError as error:
        name = "keystore" if settings.keystore else "certificate_file"
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise refusal(settings, name, f"TLS cannot use {getattr(settings, name)}: {reason}") from None
