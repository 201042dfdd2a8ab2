"""Keys and certificates made for one test, in every form that a server may be given them."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509.oid import NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
DAY = timedelta(days=1)


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def ecdsa_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@dataclass(frozen=True)
class Certified:
    """A key and the certificate for it, signed by an authority or by itself."""

    key: Key
    certificate: x509.Certificate
    issuers: tuple[x509.Certificate, ...] = ()

    @classmethod
    def make(
        cls,
        key: Key | None = None,
        name: str = "test",
        *,
        by: Certified | None = None,
        authority: bool = False,
        begin: datetime | None = None,
        end: datetime | None = None,
    ) -> Self:
        """Valid for localhost from yesterday to tomorrow, if nothing else is said."""
        key = key or ecdsa_key()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        signer = by.key if by else key
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(by.certificate.subject if by else subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin or datetime.now(UTC) - DAY)
            .not_valid_after(end or datetime.now(UTC) + DAY)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .sign(signer, None if isinstance(signer, ed25519.Ed25519PrivateKey) else SHA256())
        )
        return cls(key, certificate, (by.certificate, *by.issuers) if by else ())

    def key_pem(self, form: PrivateFormat = PrivateFormat.PKCS8, password: str = "") -> bytes:
        """The private key."""
        return self.key.private_bytes(Encoding.PEM, form, _encryption(password))

    def chain_pem(self) -> bytes:
        """The certificate and its issuers."""
        return b"".join(entry.public_bytes(Encoding.PEM) for entry in (self.certificate, *self.issuers))

    def pkcs12(self, password: str) -> bytes:
        """A key store."""
        encryption = BestAvailableEncryption(password.encode())
        return pkcs12.serialize_key_and_certificates(b"1", self.key, self.certificate, self.issuers, encryption)

    def write_pair(self, folder: Path) -> dict[str, str]:
        """Write PEM files; the settings that name them."""
        (folder / "key.pem").write_bytes(self.key_pem())
        (folder / "cert.pem").write_bytes(self.chain_pem())
        return {"private_key_file": str(folder / "key.pem"), "certificate_file": str(folder / "cert.pem")}

    def trusting(self) -> ssl.SSLContext:
        """A client that trusts this certificate and those it signs."""
        context = ssl.create_default_context(cadata=self.certificate.public_bytes(Encoding.PEM).decode())
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        return context


def _encryption(password: str) -> KeySerializationEncryption:
    return BestAvailableEncryption(password.encode()) if password else NoEncryption()
