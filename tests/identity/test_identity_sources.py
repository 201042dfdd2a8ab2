"""Which identity a configuration names, in every form, and what is said when it cannot be used."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import dsa, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from harness.certificates import DAY, Certified, Key, ecdsa_key, rsa_key
from modelserver.errors import ConfigurationError
from modelserver.identity.chain import in_order
from modelserver.identity.identity import Identity
from modelserver.identity.sources import client_authorities, find_identity
from modelserver.identity.tls import prepare_tls
from modelserver.settings.command_line import parse
from modelserver.settings.loading import load
from modelserver.settings.table import Settings

KEYS: dict[str, Callable[[], Key]] = {
    "RSA": rsa_key,
    "ECDSA": ecdsa_key,
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}
needs_keytool = pytest.mark.skipif(shutil.which("keytool") is None, reason="needs keytool")


def settings_of(folder: Path, **keys: str) -> Settings:
    """As from a file with these keys, and one address of https."""
    lines = {"management_address": "https://127.0.0.1", **keys}
    (folder / "config.properties").write_text("".join(f"{key}={value}\n" for key, value in lines.items()))
    return load(parse([]), {}, folder)


def found(folder: Path, **keys: str) -> Identity:
    identity, notices = find_identity(settings_of(folder, **keys), datetime.now(UTC))
    assert not notices
    return identity


def refused(folder: Path, **keys: str) -> str:
    with pytest.raises(ConfigurationError) as error:
        prepare_tls(settings_of(folder, **keys), folder)
    return str(error.value)


def certificates(identity: Identity) -> list[x509.Certificate]:
    return list(identity.chain)


@pytest.fixture(params=list(KEYS.values()), ids=list(KEYS))
def certified(request: pytest.FixtureRequest) -> Certified:
    """A leaf below an intermediate authority below a root."""
    root = Certified.make(name="root", authority=True)
    middle = Certified.make(name="middle", authority=True, by=root)
    return Certified.make(request.param(), "leaf", by=middle)


def served_by(certified: Certified) -> list[x509.Certificate]:
    return [certified.certificate, *certified.issuers]


class TestPem:
    def test_a_pair_with_its_chain(self, certified: Certified, tmp_path: Path) -> None:
        identity = found(tmp_path, **certified.write_pair(tmp_path))
        assert certificates(identity) == served_by(certified)
        assert identity.key.public_key() == certified.key.public_key()

    @pytest.mark.parametrize("make", [rsa_key, ecdsa_key])
    def test_the_form_that_openssl_calls_traditional(self, make: Callable[[], Key], tmp_path: Path) -> None:
        certified = Certified.make(make())
        pair = certified.write_pair(tmp_path)
        key = certified.key_pem(PrivateFormat.TraditionalOpenSSL)
        assert b"BEGIN PRIVATE KEY" not in key
        (tmp_path / "key.pem").write_bytes(key)
        assert found(tmp_path, **pair).key.public_key() == certified.key.public_key()

    def test_other_blocks_around_the_key(self, tmp_path: Path) -> None:
        certified = Certified.make()
        pair = certified.write_pair(tmp_path)
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        (tmp_path / "key.pem").write_bytes(b"Bag Attributes\n" + parameters + certified.key_pem())
        assert found(tmp_path, **pair).leaf == certified.certificate

    def test_one_file_with_both(self, tmp_path: Path) -> None:
        certified = Certified.make()
        both = tmp_path / "both.pem"
        both.write_bytes(certified.chain_pem() + certified.key_pem())
        assert found(tmp_path, private_key_file=str(both), certificate_file="both.pem").leaf == certified.certificate

    @pytest.mark.parametrize("form", [PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL])
    def test_an_encrypted_key(self, tmp_path: Path, form: PrivateFormat) -> None:
        certified = Certified.make()
        pair = certified.write_pair(tmp_path)
        (tmp_path / "key.pem").write_bytes(certified.key_pem(form, "secret"))
        assert found(tmp_path, **pair, private_key_pass="secret").leaf == certified.certificate
        path = tmp_path / "key.pem"
        assert refused(tmp_path, **pair) == f"{path} is encrypted: the password is needed (private_key_pass, default)"
        assert refused(tmp_path, **pair, private_key_pass="Secret") == (
            f"{path} is encrypted: the password is wrong (private_key_pass, config.properties:4)"
        )

    def test_a_password_that_no_key_needs_does_no_harm(self, tmp_path: Path) -> None:
        certified = Certified.make()
        assert found(tmp_path, **certified.write_pair(tmp_path), private_key_pass="x").leaf == certified.certificate

    def test_the_key_of_another_certificate(self, tmp_path: Path) -> None:
        pair = Certified.make().write_pair(tmp_path)
        (tmp_path / "key.pem").write_bytes(Certified.make().key_pem())
        assert refused(tmp_path, **pair) == (
            f"the first certificate of {tmp_path}/cert.pem does not belong to the private key "
            "(certificate_file, config.properties:3)"
        )

    @pytest.mark.parametrize(
        "text", [b"", b"\xff\x00", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
    )
    def test_files_that_hold_something_else(self, tmp_path: Path, text: bytes) -> None:
        pair = Certified.make().write_pair(tmp_path)
        (tmp_path / "cert.pem").write_bytes(text)
        assert refused(tmp_path, **pair) == (
            f"{tmp_path}/cert.pem: no PEM certificate, or a damaged one (certificate_file, config.properties:3)"
        )
        (tmp_path / "key.pem").write_bytes(text)
        assert refused(tmp_path, **pair).startswith(f"{tmp_path}/key.pem: ")
        assert refused(tmp_path, **pair).endswith(" (private_key_file, config.properties:2)")

    def test_a_kind_of_key_that_tls_has_no_use_for(self, tmp_path: Path) -> None:
        pair = Certified.make().write_pair(tmp_path)
        key = dsa.generate_private_key(1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / "key.pem").write_bytes(key)
        assert "no RSA, ECDSA or EdDSA private key" in refused(tmp_path, **pair)

    def test_a_key_that_is_too_short(self, tmp_path: Path) -> None:
        pair = Certified.make(rsa_key(1024)).write_pair(tmp_path)
        text = f"TLS cannot use {tmp_path}/cert.pem: ee key too small (certificate_file, config.properties:3)"
        assert refused(tmp_path, **pair) == text

    def test_files_that_are_missing_or_cannot_be_read(self, tmp_path: Path) -> None:
        pair = Certified.make().write_pair(tmp_path)
        assert refused(tmp_path, **pair | {"private_key_file": "gone.pem"}) == (
            f"NoSuchFileException: {tmp_path}/gone.pem (private_key_file, config.properties:2)"
        )
        assert refused(tmp_path, **pair | {"private_key_file": "/proc/self/mem"}) == (
            "cannot read /proc/self/mem: Input/output error (private_key_file, config.properties:2)"
        )

    @pytest.mark.parametrize(
        ("given", "needed"), [("private_key_file", "certificate_file"), ("certificate_file", "private_key_file")]
    )
    def test_half_a_pair(self, tmp_path: Path, given: str, needed: str) -> None:
        pair = Certified.make().write_pair(tmp_path)
        text = f"{given} is of no use without {needed} ({given}, config.properties:2)"
        assert refused(tmp_path, **{given: pair[given]}) == text


class TestKeyStores:
    def test_pkcs12_with_its_chain(self, certified: Certified, tmp_path: Path) -> None:
        (tmp_path / "store.p12").write_bytes(certified.pkcs12("changeit"))
        assert certificates(found(tmp_path, keystore="store.p12")) == served_by(certified)

    def test_it_wins_over_the_pair(self, tmp_path: Path) -> None:
        certified = Certified.make()
        (tmp_path / "store.p12").write_bytes(certified.pkcs12("secret"))
        pair = Certified.make().write_pair(tmp_path)
        assert found(tmp_path, keystore="store.p12", keystore_pass="secret", **pair).leaf == certified.certificate

    def test_a_wrong_password(self, tmp_path: Path) -> None:
        (tmp_path / "store.p12").write_bytes(Certified.make().pkcs12("secret"))
        path = tmp_path / "store.p12"
        text = f"keystore password was incorrect: {path} (keystore_pass, default)"
        assert refused(tmp_path, keystore="store.p12") == text
        assert refused(tmp_path, keystore="store.p12", keystore_pass="x").endswith(
            "(keystore_pass, config.properties:3)"
        )

    @pytest.mark.parametrize("text", [b"", b"nonsense", b"\xfe\xed\xfe\xed"])
    def test_a_file_that_is_none(self, tmp_path: Path, text: bytes) -> None:
        (tmp_path / "store").write_bytes(text)
        assert f"{tmp_path}/store" in refused(tmp_path, keystore="store")

    def test_one_of_another_kind(self, tmp_path: Path) -> None:
        (tmp_path / "store").write_bytes(b"\xce\xce\xce\xce")
        assert "-deststoretype PKCS12 (keystore, config.properties:2)" in refused(tmp_path, keystore="store")

    @needs_keytool
    @pytest.mark.parametrize("stated", ["JKS", "PKCS12"])
    @pytest.mark.parametrize("kind", ["JKS", "PKCS12"])
    @pytest.mark.parametrize("algorithm", ["RSA", "EC"])
    def test_what_keytool_makes(self, tmp_path: Path, kind: str, stated: str, algorithm: str) -> None:
        make_store(tmp_path / "store", kind, algorithm, "changeit")
        identity = found(tmp_path, keystore="store", keystore_type=stated)
        assert identity.leaf.subject.rfc4514_string() == "CN=localhost"
        assert refused(tmp_path, keystore="store", keystore_type=stated, keystore_pass="another") == (
            f"keystore password was incorrect: {tmp_path}/store (keystore_pass, config.properties:4)"
        )

    @needs_keytool
    def test_jks_of_which_a_piece_is_missing(self, tmp_path: Path) -> None:
        make_store(tmp_path / "whole", "JKS", "EC", "changeit")
        (tmp_path / "store").write_bytes((tmp_path / "whole").read_bytes()[:-30])
        assert "keystore password was incorrect" in refused(tmp_path, keystore="store")

    @needs_keytool
    def test_jks_without_a_key(self, tmp_path: Path) -> None:
        (tmp_path / "cert.pem").write_bytes(Certified.make().chain_pem())
        keytool(tmp_path / "store", "JKS", "-importcert", "-noprompt", "-file", str(tmp_path / "cert.pem"))
        assert refused(tmp_path, keystore="store") == (
            f"{tmp_path}/store: the key store has no private key with a certificate (keystore, config.properties:2)"
        )


def make_store(path: Path, kind: str, algorithm: str, password: str) -> None:
    """A key store with a trusted certificate in front and a key."""
    (path.parent / "other.pem").write_bytes(Certified.make(name="other").chain_pem())
    keytool(path, kind, "-importcert", "-noprompt", "-alias", "a", "-file", str(path.parent / "other.pem"))
    keytool(
        path, kind, "-genkeypair", "-alias", "b", "-keyalg", algorithm, "-dname", "CN=localhost", "-keypass", password
    )


def keytool(path: Path, kind: str, *arguments: str) -> None:
    command = ["keytool", *arguments, "-keystore", str(path), "-storetype", kind, "-storepass", "changeit"]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


class TestNone:
    def test_a_certificate_is_made_up(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, inference_address="https://localhost:9443")
        identity, (notice,) = find_identity(settings, datetime.now(UTC))
        assert notice.level == "WARN"
        assert "a certificate of its own, which no client trusts. SHA-256 fingerprint: " in notice.message
        names = identity.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["localhost"]
        assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]

    def test_without_https_nothing_is_read(self, tmp_path: Path) -> None:
        settings = settings_of(tmp_path, management_address="http://127.0.0.1", keystore="gone")
        assert prepare_tls(settings, tmp_path) is None

    def test_https_that_is_not_served_needs_nothing(self, tmp_path: Path) -> None:
        keys = {"management_address": "http://127.0.0.1", "metrics_address": "https://127.0.0.1"}
        assert prepare_tls(settings_of(tmp_path, **keys, enable_metrics_api="false"), tmp_path) is None
        assert prepare_tls(settings_of(tmp_path, **keys), tmp_path) is not None


class TestDoubts:
    def test_an_expired_certificate_is_served_and_warned_of(self, tmp_path: Path) -> None:
        now = datetime.now(UTC)
        pair = Certified.make(begin=now - 3 * DAY, end=now - DAY).write_pair(tmp_path)
        tls = prepare_tls(settings_of(tmp_path, **pair), tmp_path)
        assert tls is not None
        (notice,) = tls.notices
        assert notice.level == "WARN"
        assert notice.message.startswith(f"Certificate CN=test of {tmp_path}/cert.pem expired at ")

    def test_one_of_the_future_too(self, tmp_path: Path) -> None:
        now = datetime.now(UTC)
        pair = Certified.make(begin=now + DAY, end=now + 2 * DAY).write_pair(tmp_path)
        _, (notice,) = find_identity(settings_of(tmp_path, **pair), now)
        assert f"Certificate CN=test of {tmp_path}/cert.pem is not valid before " in notice.message


class TestClientAuthorities:
    def test_all_of_a_file(self, tmp_path: Path) -> None:
        first, second = Certified.make(authority=True), Certified.make(authority=True)
        (tmp_path / "ca.pem").write_bytes(first.chain_pem() + second.chain_pem())
        settings = settings_of(tmp_path, client_ca_file="ca.pem")
        assert client_authorities(settings) == (first.certificate, second.certificate)
        tls = prepare_tls(settings, tmp_path)
        assert tls is not None
        assert tls.context.verify_mode is ssl.CERT_REQUIRED

    def test_none_by_default(self, tmp_path: Path) -> None:
        tls = prepare_tls(settings_of(tmp_path), tmp_path)
        assert tls is not None
        assert tls.context.verify_mode is ssl.CERT_NONE

    def test_a_file_that_is_missing_or_holds_something_else(self, tmp_path: Path) -> None:
        text = f"NoSuchFileException: {tmp_path}/ca.pem (client_ca_file, config.properties:2)"
        assert refused(tmp_path, client_ca_file="ca.pem") == text
        (tmp_path / "ca.pem").write_text("nothing")
        assert refused(tmp_path, client_ca_file="ca.pem").startswith(f"{tmp_path}/ca.pem: no PEM certificate")


def test_no_key_material_is_left(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()
    pair = Certified.make().write_pair(tmp_path)
    assert prepare_tls(settings_of(tmp_path, **pair), private) is not None
    assert list(private.iterdir()) == []


def test_a_chain_goes_up_and_ends() -> None:
    root = Certified.make(name="root", authority=True)
    leaf = Certified.make(name="leaf", by=root)
    stranger = Certified.make(name="stranger").certificate
    assert in_order(leaf.certificate, [stranger, root.certificate]) == (leaf.certificate, root.certificate)
    assert in_order(leaf.certificate, []) == (leaf.certificate,)
