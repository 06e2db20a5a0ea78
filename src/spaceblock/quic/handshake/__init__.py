"""aioquic, bent to Spaceblock's needs: the only place that imports it, and the only one that knows its private names.

Sans-IO: no clock, no socket, ``now`` is an argument.
"""

from __future__ import annotations

from .unneeded import put_off

with put_off("certifi", "service_identity", "OpenSSL", "OpenSSL.crypto"):
    import aioquic.tls as _tls  # noqa: F401  # all modules here import it
