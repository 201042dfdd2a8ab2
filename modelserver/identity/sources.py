"""Which identity a configuration names: the key store, else the PEM pair, else one that is made up.

Whatever is wrong is told by a ConfigurationError that names the file, the key of the setting, and where that was set.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from modelserver.identity import jks
from modelserver.identity.identity import Identity, WrongPassword
from modelserver.identity.jks import read_jks
from modelserver.identity.pem import read_certificates, read_key
from modelserver.identity.pkcs12 import read_pkcs12
from modelserver.identity.self_signed import self_signed
from modelserver.settings.notices import Notice
from modelserver.settings.table import Settings
from modelserver.settings.validation import refusal

_JCEKS: Final = b"\xce\xce\xce\xce"
_CONVERT: Final = (
    "a JCEKS key store cannot be read; convert it: "
    "keytool -importkeystore -srckeystore OLD -srcstoretype JCEKS -destkeystore NEW -deststoretype PKCS12"
)


def find_identity(settings: Settings, now: datetime) -> tuple[Identity, list[Notice]]:
    """The identity, and what is to be said about it. Raises ConfigurationError."""
    if settings.keystore is not None:
        identity = _from_keystore(settings, settings.keystore)
        return identity, _doubts(identity, settings.keystore, now)
    if settings.private_key_file is not None and settings.certificate_file is not None:
        identity = _from_pem(settings, settings.private_key_file, settings.certificate_file)
        return identity, _doubts(identity, settings.certificate_file, now)
    for name, other in (("private_key_file", "certificate_file"), ("certificate_file", "private_key_file")):
        if getattr(settings, name) is not None:
            raise refusal(settings, name, f"{name} is of no use without {other}")
    return _made_up(settings, now)


def client_authorities(settings: Settings) -> tuple[x509.Certificate, ...]:
    """Who vouches for clients; nobody where no client has to show a certificate. Raises ConfigurationError."""
    if settings.client_ca_file is None:
        return ()
    return _read_certificates(settings, "client_ca_file", settings.client_ca_file)


def _from_keystore(settings: Settings, path: Path) -> Identity:
    data = _read(settings, "keystore", path)
    if data.startswith(_JCEKS):
        raise refusal(settings, "keystore", f"{path}: {_CONVERT}")
    read_store = read_jks if data.startswith(jks.MAGIC) else read_pkcs12  # whatever type is said to be in it
    try:
        identity = read_store(data, settings.keystore_pass)
    except WrongPassword:
        raise refusal(settings, "keystore_pass", f"keystore password was incorrect: {path}") from None
    except ValueError as error:
        raise refusal(settings, "keystore", f"{path}: {error}") from None
    _check_match(settings, "keystore", identity, path)
    return identity


def _from_pem(settings: Settings, key_file: Path, certificate_file: Path) -> Identity:
    try:
        key = read_key(_read(settings, "private_key_file", key_file), settings.private_key_pass)
    except WrongPassword:
        problem = "is wrong" if settings.private_key_pass else "is needed"
        raise refusal(settings, "private_key_pass", f"{key_file} is encrypted: the password {problem}") from None
    except ValueError as error:
        raise refusal(settings, "private_key_file", f"{key_file}: {error}") from None
    identity = Identity(key, _read_certificates(settings, "certificate_file", certificate_file))
    _check_match(settings, "certificate_file", identity, certificate_file)
    return identity


def _made_up(settings: Settings, now: datetime) -> tuple[Identity, list[Notice]]:
    addresses = (settings.inference_address, settings.management_address, settings.metrics_address)
    identity = self_signed({address.host for address in addresses if address.tls}, now)
    fingerprint = identity.leaf.fingerprint(SHA256()).hex()
    text = "https without keystore, or private_key_file and certificate_file: "
    text += f"serving a certificate of its own, which no client trusts. SHA-256 fingerprint: {fingerprint}"
    return identity, [_warning(text)]


def _read_certificates(settings: Settings, name: str, path: Path) -> tuple[x509.Certificate, ...]:
    try:
        return read_certificates(_read(settings, name, path))
    except ValueError as error:
        raise refusal(settings, name, f"{path}: {error}") from None


def _read(settings: Settings, name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise refusal(settings, name, f"NoSuchFileException: {path}") from None
    except OSError as error:
        raise refusal(settings, name, f"cannot read {path}: {error.strerror}") from None


def _check_match(settings: Settings, name: str, identity: Identity, path: Path) -> None:
    if identity.key.public_key() != identity.leaf.public_key():
        raise refusal(settings, name, f"the first certificate of {path} does not belong to the private key")


def _doubts(identity: Identity, path: Path, now: datetime) -> list[Notice]:
    """Certificates that clients will not accept are served all the same: some do not look."""
    notices = []
    for certificate in identity.chain:
        subject = certificate.subject.rfc4514_string()
        if now > certificate.not_valid_after_utc:
            notices.append(_warning(f"Certificate {subject} of {path} expired at {certificate.not_valid_after_utc}"))
        elif now < certificate.not_valid_before_utc:
            text = f"Certificate {subject} of {path} is not valid before {certificate.not_valid_before_utc}"
            notices.append(_warning(text))
    return notices


def _warning(text: str) -> Notice:
    return Notice("WARN", "util.ConfigManager", text)
