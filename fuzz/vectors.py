"""What corpora begin with: the golden vectors of the protocol's specification, and a certificate."""

from __future__ import annotations

import re
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from spaceblock.trust.identity import ADMISSION_OID

from . import ROOT

_DUMP = re.compile(r"```hex ([^\n]+)\n(.*?)```", re.DOTALL)


def wire_vectors() -> dict[str, bytes]:
    """Each hex dump of a whole message in ``docs/protocol.md``, by its name in lower case with dashes."""
    document = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    found = {}
    for name, dump in _DUMP.findall(document):
        if name[0].isupper():
            lines = (line.partition("#")[0] for line in dump.splitlines())
            found[name.lower().replace(" ", "-")] = bytes.fromhex(" ".join(lines))
    return found


def certificate_of(key: Ed25519PrivateKey, extension: bytes) -> x509.Certificate:
    """A certificate, always the same, with these bytes where a proof belongs."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "spaceblock")])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2000, 1, 1))
        .not_valid_after(datetime(2100, 1, 1))
        .add_extension(x509.UnrecognizedExtension(ADMISSION_OID, extension), critical=False)
        .sign(key, None)
    )
