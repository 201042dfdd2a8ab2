"""A private key and the certificates that vouch for it."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)

Key = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey


class WrongPassword(Exception):
    """What is read is protected by another password."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A key and its chain of certificates, leaf first."""

    key: Key
    chain: tuple[x509.Certificate, ...]

    @property
    def leaf(self) -> x509.Certificate:
        """The certificate of the key itself."""
        return self.chain[0]

    def key_pem(self, password: bytes | None = None) -> bytes:
        """The key as PKCS#8, encrypted if there is a password."""
        encryption = BestAvailableEncryption(password) if password else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def chain_pem(self) -> bytes:
        """The certificates one after the other."""
        return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in self.chain)


def usable_key(key: object) -> Key:
    """The same key. Raises ValueError if TLS has no use for its kind."""
    if not isinstance(key, Key):
        raise ValueError("no RSA, ECDSA or EdDSA private key")
    return key
