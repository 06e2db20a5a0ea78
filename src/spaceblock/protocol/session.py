"""The session: what both sides say first on a connection, and which stream is for whom.

Rules: the client opens the one session stream and greets; the server answers on it after it has admitted the client,
and until then reads nothing and opens nothing.
"""

from __future__ import annotations

from ..core import decode_uint_var
from ..errors import RemoteProtocolError, VersionMismatch
from ..names import local_rules
from ..wire import UUID_SIZE
from ..wire.messages import VERSION, Feature, Hello, Message, StreamType

FEATURES = Feature.RENAME | Feature.COMPARE | Feature.RESUME | Feature.REPAIR | Feature.QUERY
"""The optional features that are announced; fetching is reserved."""


def local_hello(software: str) -> Hello:
    """The greeting of this side."""
    rules = local_rules()
    return Hello(
        version=VERSION,
        features=FEATURES,
        software=software,
        system=rules.system,
        name_limit=rules.name_limit,
        name_unit=rules.name_unit,
        path_limit=rules.path_limit,
    )


def check_hello(message: Message | None) -> Hello:
    """Return the peer's greeting; raises :class:`RemoteProtocolError` or :class:`VersionMismatch`."""
    if not isinstance(message, Hello):
        raise RemoteProtocolError("the peer's first message is not Hello: check that it runs Spaceblock")
    if message.version != VERSION:
        raise VersionMismatch(
            f"the peer speaks version {message.version} and this side version {VERSION}: update the older one"
        )
    return message


class StreamOpening:
    """Reads the first bytes of a stream that the peer opened: its type and, for a data stream, the transfer's UUID.

    Feed it until ``stream_type`` is set; ``rest`` is then what follows.
    """

    __slots__ = ("_buffer", "_unidirectional", "rest", "stream_type", "uuid")

    def __init__(self, unidirectional: bool) -> None:
        self._unidirectional = unidirectional
        self._buffer = b""
        self.stream_type: StreamType | None = None
        self.uuid: bytes = b""
        self.rest: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take bytes; raises :class:`RemoteProtocolError` for a type that is unknown or of the other direction."""
        self._buffer += data
        try:
            number, position = decode_uint_var(self._buffer)
        except ValueError:
            return
        try:
            stream_type = StreamType(number)
        except ValueError:
            stream_type = None
        if stream_type is None or (stream_type is StreamType.DATA) != self._unidirectional:
            raise RemoteProtocolError(f"the peer opened a stream of type {number:#x}, which does not exist there")
        if stream_type is StreamType.DATA:
            if len(self._buffer) - position < UUID_SIZE:
                return
            self.uuid = self._buffer[position : position + UUID_SIZE]
            position += UUID_SIZE
        self.stream_type = stream_type
        self.rest = self._buffer[position:]
        self._buffer = b""

    @property
    def finished(self) -> bool:
        return self.stream_type is not None
