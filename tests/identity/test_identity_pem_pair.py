"""The identity that gRPC speaks TLS with: the same as that of REST, whatever form it is kept in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from modelserver.identity.identity import Identity
from modelserver.identity.pem import read_certificates, read_key
from modelserver.identity.pem_pair import prepare_pem_pair
from modelserver.identity.self_signed import self_signed
from modelserver.settings.table import Settings


@pytest.fixture(scope="module")
def identity() -> Identity:
    return self_signed(["models.example"], datetime.now(UTC))


def test_without_tls_nothing_is_read() -> None:
    assert prepare_pem_pair(Settings(private_key_file=Path("gone"), certificate_file=Path("gone"))) is None


def test_keys_of_other_forms(tmp_path: Path, identity: Identity) -> None:
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    encryption = BestAvailableEncryption(b"secret")
    key.write_bytes(identity.key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, encryption))
    chain.write_bytes(identity.chain_pem())
    settings = Settings(
        enable_grpc_ssl=True,
        private_key_file=key,
        private_key_pass="secret",
        certificate_file=chain,
        client_ca_file=chain,
    )
    pair = prepare_pem_pair(settings)
    assert pair is not None and pair.key.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert read_key(pair.key, "").public_key() == identity.key.public_key()
    assert read_certificates(pair.chain) == read_certificates(pair.authorities) == identity.chain


def test_key_stores(tmp_path: Path, identity: Identity) -> None:
    store = tmp_path / "store.p12"
    encryption = BestAvailableEncryption(b"changeit")
    store.write_bytes(serialize_key_and_certificates(b"x", identity.key, identity.leaf, None, encryption))
    pair = prepare_pem_pair(Settings(enable_grpc_ssl=True, keystore=store))
    assert pair is not None and pair.authorities == b"" and pair.notices == ()
    assert read_certificates(pair.chain) == identity.chain
