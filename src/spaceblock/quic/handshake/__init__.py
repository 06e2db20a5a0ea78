"""aioquic, bent to Spaceblock's needs: the only place that imports it, and the only one that knows its private names.

Sans-IO: no clock, no socket, ``now`` is an argument.
"""

from __future__ import annotations

import logging

from ...process.unneeded import put_off, uncompiled

with (
    put_off("certifi", "service_identity", "OpenSSL", "OpenSSL.crypto"),
    put_off("ssl", CERT_NONE=0, CERT_REQUIRED=2),
    uncompiled("aioquic"),
):
    import aioquic.quic.connection as _connection  # noqa: F401  # all modules here import it, or what it imports

logging.getLogger("quic").addHandler(logging.NullHandler())
"""What aioquic logs is for who asks for it: what ends a connection is in the error that is raised."""
