"""Private keys and certificates in PEM text."""

from __future__ import annotations

import re
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from modelserver.identity.identity import Key, WrongPassword, usable_key

_KEY: Final = re.compile(rb"-----BEGIN ((?:[A-Z]+ )?PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)


def read_key(data: bytes, password: str) -> Key:
    """The first private key, of any common form; other blocks may stand around it.

    Raises ValueError, and WrongPassword for a key that another password protects, or one at all if this is empty.
    """
    found = _KEY.search(data)
    if found is None:
        raise ValueError("no PEM private key")
    encrypted = b"ENCRYPTED" in found[0]
    if encrypted and not password:
        raise WrongPassword
    try:
        return usable_key(load_pem_private_key(found[0], password.encode() if encrypted else None))
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        if encrypted:
            raise WrongPassword from error
        raise ValueError(f"unusable private key: {error}") from error


def read_certificates(data: bytes) -> tuple[x509.Certificate, ...]:
    """All certificates, in their order. Raises ValueError."""
    try:
        return tuple(x509.load_pem_x509_certificates(data))
    except ValueError as error:
        raise ValueError("no PEM certificate, or a damaged one") from error
