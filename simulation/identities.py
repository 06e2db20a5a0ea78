"""Self-signed certificates, as the sides of a test or simulation show them."""

from __future__ import annotations

import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import NameOID


def self_signed(name: str, key: Ed25519PrivateKey, padding: int = 0) -> x509.Certificate:
    """A certificate for ``key`` that has ``padding`` bytes more than it needs."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime.datetime(2020, 1, 1))
        .not_valid_after(datetime.datetime(2120, 1, 1))
    )
    if padding:
        unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.999"), bytes(padding))
        builder = builder.add_extension(unknown, critical=False)
    return builder.sign(key, None)
