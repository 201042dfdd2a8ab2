"""How TLS is spoken: versions, ciphers, the server's identity, and what clients have to show."""

from __future__ import annotations

import os
import secrets
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from modelserver.identity.identity import Identity

# For TLS 1.2; the last one is for old clients of TorchServe, which offers no better one but AES128-GCM.
_CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE-RSA-AES128-SHA"


def server_context(identity: Identity, authorities: Sequence[x509.Certificate], folder: Path) -> ssl.SSLContext:
    """A context for listeners; with authorities, clients have to show a certificate of one of them.

    `folder` is private and written to for a moment. Raises ssl.SSLError for an identity that is too weak.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_CIPHERS)
    _load(context, identity, folder)
    if authorities:
        context.load_verify_locations(cadata="".join(_pem(authority) for authority in authorities))
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load(context: ssl.SSLContext, identity: Identity, folder: Path) -> None:
    """By way of a file, which `ssl` wants: private, and its key is locked by a password of the moment."""
    password = secrets.token_hex(32)
    path = folder / f"identity-{secrets.token_hex(8)}"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(identity.key_pem(password.encode()) + identity.chain_pem())
        context.load_cert_chain(path, password=password)
    finally:
        path.unlink()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode("ascii")
