"""Packet protection (RFC 9001, sections 5.3 and 5.4): payloads sealed and opened, headers masked in batches.

``suite`` is a :class:`~spaceblock.quic.native.keys.Suite`, keys and IVs are what ``keys.derive`` returns, ``pn`` is a
full packet number, 0 to 2^62-1, and ``header`` the packet's unprotected bytes before its payload. No packet is longer
than 65535 bytes. A number or size outside its range is a ``ValueError``, as is an input that overlaps the output. No
object here is safe for concurrent use.
"""

from typing import final

from _typeshed import ReadableBuffer, WriteableBuffer

@final
class PacketKey:
    """Seals and opens the packets of one direction and key phase.

    ``backend`` is one of :func:`backends`, or None for :func:`backend`; ChaCha20-Poly1305 is always OpenSSL's.
    EngineUnavailable where the back-end or its cipher cannot be used.
    """

    def __new__(cls, suite: int, key: bytes, iv: bytes, backend: str | None = None) -> PacketKey: ...
    @property
    def suite(self) -> int: ...
    @property
    def backend(self) -> str:
        """What this key uses: ``"evp"`` or ``"ipsec-mb"``."""

    def seal_packet(self, pn: int, header: ReadableBuffer, payload: ReadableBuffer) -> bytes:
        """The payload encrypted, and behind it the 16 bytes of its tag; a packet number must not be used twice."""

    def open_packet(self, pn: int, header: ReadableBuffer, sealed: ReadableBuffer) -> bytes | None:
        """The payload, or None when this is no packet of this key, number and header."""

    def seal_into(
        self,
        out: WriteableBuffer,
        pos: int,
        pn: int,
        header: ReadableBuffer,
        head: ReadableBuffer,
        data: ReadableBuffer,
    ) -> int:
        """Seal the payload ``head + data`` into ``out`` at ``pos`` and return the position behind the tag."""

    def open_into(
        self, out: WriteableBuffer, pos: int, pn: int, header: ReadableBuffer, sealed: ReadableBuffer
    ) -> int | None:
        """Open into ``out`` at ``pos`` and return the position behind the payload, or None where that fails.

        After a failure these bytes of ``out`` hold nothing of use. ``sealed`` may begin at that very position of the
        same memory.
        """

@final
class HeaderKey:
    """Makes the masks that hide the first byte and the packet number of one direction's headers (section 5.4.1)."""

    def __new__(cls, suite: int, key: bytes) -> HeaderKey: ...
    @property
    def suite(self) -> int: ...
    def mask(self, sample: ReadableBuffer) -> bytes:
        """The 5 bytes of mask for a sample of 16 bytes."""

    def mask_all(self, samples: ReadableBuffer) -> bytes:
        """A mask of 16 bytes for each sample of 16 bytes; the first 5 of each count."""

def backend() -> str:
    """What new keys use.

    ``SPACEBLOCK_AEAD`` in the environment when this module was imported, ``evp`` or ``ipsec-mb``; unset, the fastest
    that can be used.
    """

def backends() -> tuple[str, ...]:
    """What can be used here: ``evp`` always, ``ipsec-mb`` where the build has it and it passed its comparison."""
