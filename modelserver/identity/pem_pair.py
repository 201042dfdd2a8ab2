"""The server's identity for gRPC, whose library wants it as PEM text."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from modelserver.settings.notices import Notice
from modelserver.settings.table import Settings


@dataclass(frozen=True, slots=True)
class PemPair:
    """Key and chain, the authorities of clients (b"": none need to show a certificate), what is to be said about it."""

    key: bytes
    chain: bytes
    authorities: bytes
    notices: tuple[Notice, ...]


def prepare_pem_pair(settings: Settings) -> PemPair | None:
    """None where gRPC is served without TLS. Raises ConfigurationError."""
    return _prepare(settings) if settings.enable_grpc_ssl else None


def _prepare(settings: Settings) -> PemPair:
    from cryptography.hazmat.primitives.serialization import Encoding

    from modelserver.identity.sources import client_authorities, find_identity

    identity, notices = find_identity(settings, datetime.now(UTC))
    authorities = [authority.public_bytes(Encoding.PEM) for authority in client_authorities(settings)]
    return PemPair(identity.key_pem(), identity.chain_pem(), b"".join(authorities), tuple(notices))
