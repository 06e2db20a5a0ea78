# Invariant: a certificate of any content is admitted or refused with an AdmissionRefused, never anything else; by
# ticket it is admitted exactly when its extension holds the proof for its own key; one that was refused leaves the
# ticket unspent.
"""Whom a listener lets in, by certificates made of any bytes."""

from __future__ import annotations

import atexit
import functools
import warnings
from collections.abc import Hashable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from spaceblock.errors import AdmissionRefused
from spaceblock.trust.admission import AdmissionBook
from spaceblock.trust.identity import Identity
from spaceblock.trust.tickets import Ticket, proof

from .choices import Choices
from .vectors import certificate_of

NOW = 1_800_000_000.0
LIFETIME = 1_000.0
SERVER = Identity(Ed25519PrivateKey.from_private_bytes(b"server".ljust(32)))
CLIENT = Identity(Ed25519PrivateKey.from_private_bytes(b"client".ljust(32)))
PROOF = b"\4\x31"
"""What the DER octet string of a proof begins with."""


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    kind = choices.below(3)
    if kind == 2:
        return _whole(choices.rest())
    _, ticket = _book()
    good = PROOF + proof(ticket, CLIENT.public_key)
    # The ticket is another one in every process: an input says where its extension differs from the right one.
    flips = choices.piece() if kind else b""
    tail = choices.rest()
    extension = bytes(a ^ b for a, b in zip(good, flips.ljust(len(good), b"\0"), strict=False)) + tail if kind else tail
    verdict = _judge(certificate_of(CLIENT.private_key, extension), is_holder=extension == good)
    assert _judge(CLIENT.certificate(proof(ticket, CLIENT.public_key)), is_holder=True) == "admitted"
    return verdict


def seeds() -> dict[str, bytes]:
    return {
        "good": b"\1",
        "other-version": b"\1\0\3\0\0\1",
        "other-ticket": b"\1\0\4\0\0\0\1",
        "other-tag": b"\1\0\x33" + bytes(50) + b"\1",
        "longer": b"\1\0\0more",
        "empty": b"\0",
        "octets": b"\0\4\3abc",
        "long-octets": b"\0\4\x81\x80" + bytes(128),
        "certificate": b"\2" + certificate_of(CLIENT.private_key, b"\4\3abc").public_bytes(Encoding.DER),
    }


@functools.cache
def _book() -> tuple[AdmissionBook, Ticket]:
    book = AdmissionBook.open(None, SERVER)
    atexit.register(book.close)
    return book, book.issue([("192.0.2.1", 4433)], LIFETIME, NOW)


def _whole(der: bytes) -> Hashable:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what a future release will refuse
            certificate = x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion):  # as TLS would refuse it
        return "no certificate"
    return _judge(certificate, is_holder=False)


def _judge(certificate: x509.Certificate, *, is_holder: bool) -> str:
    book, _ = _book()
    try:
        admitted = book.admit(certificate, NOW)
    except AdmissionRefused as error:
        assert not is_holder
        return type(error).__name__
    assert is_holder
    assert admitted.via == "ticket"
    assert not admitted.finish_only
    return "admitted"
