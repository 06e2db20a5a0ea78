"""What all messages are made of: their types, the frame around them, and cursors over a payload.

What does not fit raises a plain ``ValueError`` here, whose text is the reason in words that can follow "because". Which
side is to blame is known one level up: :meth:`Message.encode` and :func:`spaceblock.wire.messages.decode_message` make
it a :class:`LocalProtocolError` and a :class:`RemoteProtocolError`.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from ..core import UINT_VAR_MAX, decode_uint_var, encode_uint_var
from ..errors import LocalProtocolError
from ..limits import MESSAGE_PAYLOAD_MAX

DIGEST_SIZE = 32
"""Bytes of a BLAKE3 digest."""

UUID_SIZE = 16
"""Bytes of a transfer's UUID (RFC 9562), in network order."""

NAME_MAX = 16_384
"""UTF-8 bytes of a name or of a link's target: four times Linux's longest path, and any two fit into one page."""

ERRNO_MAX = 4_095
"""The largest error number that Linux returns; the wire uses Linux's numbers."""


class StreamType(IntEnum):
    """The first byte of every stream, which says what the stream is for."""

    SESSION = 0x00
    PUSH = 0x01
    QUERY = 0x02
    FETCH = 0x03
    DATA = 0x10


class MessageType(IntEnum):
    """What a message is; one with its lowest bit set may be skipped by who does not know it."""

    HELLO = 0x00
    REQUESTS = 0x02
    MANIFEST = 0x04
    ANSWER = 0x06
    NAME_PROBLEMS = 0x08
    AMEND = 0x0A
    HAVE_REPLY = 0x0C
    ITEM_DIGEST = 0x0E
    PROGRESS = 0x11
    ITEM_FAILED = 0x12
    WAITING = 0x13
    BLOCK_DIGESTS = 0x14
    HASHED = 0x15
    RESEND = 0x16
    VERIFIED = 0x18
    DONE = 0x1A
    ERROR = 0x1C
    QUERY = 0x1E
    BLOCK = 0x20
    HOLE = 0x22
    ITEM_END = 0x24
    ITEM_ABORT = 0x26
    UNKNOWN = 0x3A

    @property
    def wire_name(self) -> str:
        """The name in the specification, such as ``ItemEnd``."""
        return "".join(word.capitalize() for word in self.name.split("_"))


class Message:
    """A value with a place on the wire. Two are equal when all their fields are."""

    __slots__ = ()
    TYPE: ClassVar[MessageType]

    def encode(self) -> bytes:
        """The whole message: type, length, payload.

        Raises :class:`LocalProtocolError` for a value that the protocol forbids or a payload above
        :data:`~spaceblock.limits.MESSAGE_PAYLOAD_MAX`.
        """
        out = Writer()
        try:
            self._write(out)
            if len(out.out) > MESSAGE_PAYLOAD_MAX:
                raise ValueError(f"its {len(out.out)} bytes pass the limit of {MESSAGE_PAYLOAD_MAX}")
        except ValueError as error:
            name = self.TYPE.wire_name
            raise LocalProtocolError(
                f"this {name} message cannot be sent because {reason_of(error)}: correct its values"
            ) from error
        return encode_uint_var(self.TYPE) + encode_uint_var(len(out.out)) + out.out

    def _write(self, out: Writer) -> None:
        raise NotImplementedError


class Reader:
    """Reads one payload from its start to its end; every method moves ``pos`` behind what it returns."""

    __slots__ = ("data", "pos")

    def __init__(self, data: bytes) -> None:
        self.data: bytes = data
        self.pos: int = 0

    def uint(self) -> int:
        """A variable-length integer (RFC 9000, section 16), of any of its four lengths."""
        value, self.pos = decode_uint_var(self.data, self.pos)
        return value

    def flags(self, known: int) -> int:
        """A set of bits, none of them outside ``known``."""
        value = self.uint()
        if value & ~known:
            raise ValueError(f"its flags {value:#x} have bits that mean nothing")
        return value

    def count(self, smallest: int) -> int:
        """A number of elements of at least ``smallest`` bytes each, so that a lie is found before anything is built."""
        value = self.uint()
        left = len(self.data) - self.pos
        if value > left // smallest:
            raise ValueError(f"it announces {value} elements in {left} bytes")
        return value

    def take(self, size: int) -> bytes:
        """Exactly ``size`` bytes."""
        data, self.pos = take(self.data, self.pos, size)
        return data

    def string(self, limit: int) -> str:
        """A length and that many bytes of UTF-8, at most ``limit``."""
        text, self.pos = take_string(self.data, self.pos, limit)
        return text

    def finish(self) -> None:
        """Check that nothing is left."""
        left = len(self.data) - self.pos
        if left:
            raise ValueError(f"{left} bytes follow its end")


class Writer:
    """Collects one payload in ``out``."""

    __slots__ = ("out",)

    def __init__(self) -> None:
        self.out: bytearray = bytearray()

    def uint(self, value: int) -> None:
        """A variable-length integer in its shortest form."""
        self.out += encode_uint_var(value)

    def fixed(self, data: bytes, size: int) -> None:
        """Bytes whose number both sides know."""
        if len(data) != size:
            raise ValueError(f"it holds {len(data)} bytes where {size} belong")
        self.out += data

    def string(self, text: str, limit: int) -> None:
        """A name: refused rather than changed when it is no Unicode text or longer than ``limit`` bytes."""
        data = text.encode()
        if len(data) > limit:
            raise ValueError(f"a string of {len(data)} bytes passes its limit of {limit}")
        self.out += encode_uint_var(len(data))
        self.out += data

    def prose(self, text: str, limit: int) -> None:
        """Words for people: cut to ``limit`` bytes on a character's boundary; what is no Unicode text is escaped."""
        data = text.encode("utf-8", "backslashreplace")
        if len(data) > limit:
            data = data[:limit].decode("utf-8", "ignore").encode()
        self.out += encode_uint_var(len(data))
        self.out += data


def reason_of(error: Exception) -> str:
    """The reason alone; what the core says behind a semicolon is advice for a local caller."""
    return str(error).partition(";")[0]


def take(data: bytes, pos: int, size: int) -> tuple[bytes, int]:
    """``size`` bytes of ``data`` from ``pos`` on, and the position behind them."""
    end = pos + size
    if end > len(data):
        raise ValueError(f"it ends {end - len(data)} bytes too early")
    return data[pos:end], end


def take_string(data: bytes, pos: int, limit: int) -> tuple[str, int]:
    """The string that starts at ``pos``, and the position behind it."""
    size, pos = decode_uint_var(data, pos)
    end = pos + size
    if size > limit:
        raise ValueError(f"a string of {size} bytes passes its limit of {limit}")
    if end > len(data):
        raise ValueError(f"it ends {end - len(data)} bytes too early")
    return data[pos:end].decode(), end


def zigzag(value: int) -> int:
    """Fold a signed number into an unsigned one: 0, -1, 1, -2 become 0, 1, 2, 3."""
    return value * 2 if value >= 0 else -value * 2 - 1


def unzigzag(value: int) -> int:
    """Undo :func:`zigzag`."""
    return -(value + 1 >> 1) if value & 1 else value >> 1


def check_span(start: int, length: int) -> None:
    """Check that ``start + length`` is still a number of the wire, with ``length`` 0 or more."""
    if length < 0 or start > UINT_VAR_MAX - length:
        raise ValueError(f"{start} + {length} passes the largest number of the wire")


def check_name(name: str) -> str:
    """Check that a name is not empty."""
    if not name:
        raise ValueError("a name is empty")
    return name


def check_code(code: int) -> int:
    """Check that a code says what went wrong; codes from the future are welcome."""
    if code == 0:
        raise ValueError("the error code 0 means that nothing went wrong")
    return code


def check_errno(errno: int) -> int:
    """Check that an error number is one of Linux's, or 0 for none."""
    if errno > ERRNO_MAX:
        raise ValueError(f"the errno {errno} is above {ERRNO_MAX}")
    return errno
