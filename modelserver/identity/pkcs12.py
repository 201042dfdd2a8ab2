"""Key stores in the format PKCS#12."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from modelserver.identity.chain import in_order
from modelserver.identity.identity import Identity, WrongPassword, usable_key


def read_pkcs12(data: bytes, password: str) -> Identity:
    """The key entry with its chain. Raises ValueError, WrongPassword."""
    try:
        store = load_pkcs12(data, password.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(f"unsupported PKCS12 key store: {error}") from error
    except ValueError as error:
        if "password" in str(error).lower():
            raise WrongPassword from error
        raise ValueError(f"damaged key store: {error}") from error
    if store.key is None or store.cert is None:
        raise ValueError("the key store has no private key with a certificate")
    others = [entry.certificate for entry in store.additional_certs]
    return Identity(usable_key(store.key), in_order(store.cert.certificate, others))
