"""Key stores in the format JKS, which Java used up to version 8.

Read here because no library does it for every Python: `pyjks` needs a module that Python 3.12 has removed, and a
compiler. All numbers are big-endian; the store ends with a digest over password and content.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from hashlib import sha1
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key

from modelserver.identity.identity import Identity, WrongPassword, usable_key

MAGIC: Final = b"\xfe\xed\xfe\xed"
_KEY_ENTRY: Final = 1
_DIGEST: Final = 20  # bytes of SHA-1, also of the salt
_PEPPER: Final = b"Mighty Aphrodite"  # part of the format
_PROTECTION: Final = bytes.fromhex("060a2b060104012a02110101")  # the object identifier of Sun's key protection


def read_jks(data: bytes, password: str) -> Identity:
    """The first key entry with its chain. Raises ValueError, WrongPassword."""
    secret = password.encode("utf-16-be")
    content, digest = data[:-_DIGEST], data[-_DIGEST:]
    if not hmac.compare_digest(sha1(secret + _PEPPER + content).digest(), digest):
        raise WrongPassword
    try:
        key, certificates = _first_key(_Cursor(content, len(MAGIC)))
        chain = tuple(map(x509.load_der_x509_certificate, certificates))
        return Identity(usable_key(load_der_private_key(_unlock(key, secret), None)), chain)
    except (IndexError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"damaged key store: {error}") from error


@dataclass(slots=True)
class _Cursor:
    """A place in a sequence of bytes."""

    data: bytes
    at: int

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def take(self, size: int) -> bytes:
        """Raises IndexError at the end of the data."""
        self.at += size
        if self.at > len(self.data):
            raise IndexError("it ends too early")
        return self.data[self.at - size : self.at]

    def block(self, width: int) -> bytes:
        """Bytes that stand behind their number."""
        return self.take(self.number(width))


def _first_key(cursor: _Cursor) -> tuple[bytes, list[bytes]]:
    """A locked key and its certificates."""
    version, entries = cursor.number(4), cursor.number(4)
    for _ in range(entries):
        kind = cursor.number(4)
        cursor.block(2)  # alias
        cursor.take(8)  # time of its making
        if kind == _KEY_ENTRY:
            key = cursor.block(4)
            certificates = [_certificate(cursor, version) for _ in range(cursor.number(4))]
            if certificates:
                return key, certificates
        else:
            _certificate(cursor, version)
    raise ValueError("the key store has no private key with a certificate")


def _certificate(cursor: _Cursor, version: int) -> bytes:
    if version == 2:
        cursor.block(2)  # its type, "X.509"
    return cursor.block(4)


def _unlock(locked: bytes, secret: bytes) -> bytes:
    """The key as PKCS#8: salt, text and digest are the last field of the DER structure around them.

    Raises ValueError, WrongPassword.
    """
    _, found, field = locked.partition(_PROTECTION)
    if not found:
        raise ValueError("the key is not protected as in a JKS store")
    field = field.removeprefix(b"\x05\x00")  # no parameters
    octets = _octets(field)
    salt, text, digest = octets[:_DIGEST], octets[_DIGEST:-_DIGEST], octets[-_DIGEST:]
    key = bytearray()
    while len(key) < len(text):
        salt = sha1(secret + salt).digest()
        key += bytes(a ^ b for a, b in zip(text[len(key) : len(key) + _DIGEST], salt, strict=False))
    if not hmac.compare_digest(sha1(secret + bytes(key)).digest(), digest):
        raise WrongPassword
    return bytes(key)


def _octets(field: bytes) -> bytes:
    """The content of a DER octet string."""
    cursor = _Cursor(field, 1)
    length = cursor.number(1)
    return cursor.take(cursor.number(length & 0x7F) if length & 0x80 else length)
