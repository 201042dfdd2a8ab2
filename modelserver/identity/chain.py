"""The order of certificates in a chain."""

from __future__ import annotations

from collections.abc import Iterable

from cryptography import x509


def in_order(leaf: x509.Certificate, others: Iterable[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """The leaf, its issuer, the issuer of that and so on, as far as they are there; others are left out."""
    by_name = {certificate.subject: certificate for certificate in others}
    chain = [leaf]
    while (issuer := by_name.pop(chain[-1].issuer, None)) is not None:
        chain.append(issuer)
    return tuple(chain)
