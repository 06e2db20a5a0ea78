"""A bidirectional stream as a sequence of messages: the session's stream, and each transfer's control stream."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..core import Deframer, parse_digests
from ..errors import RemoteProtocolError, SpaceblockError
from ..limits import MESSAGE_PAYLOAD_MAX
from ..quic.interface import Stream
from ..wire import MessageType
from ..wire.messages import ItemDigests, Message, decode_message

_DIGEST = int(MessageType.ITEM_DIGEST)


class MessageStream:
    """Messages over ``stream``.

    ``on_message(message, payload_size)`` is called for each message that is known; ``on_end()`` when the peer finished
    or reset its direction; ``on_error(error)`` once, when something malformed came, after which nothing more is read.
    With ``on_digests(digests)`` many ``ItemDigest`` that come together are told of at once.
    """

    def __init__(
        self,
        stream: Stream,
        on_message: Callable[[Message, int], None],
        on_end: Callable[[], None],
        on_error: Callable[[SpaceblockError], None],
        on_digests: Callable[[ItemDigests], None] | None = None,
    ) -> None:
        self.stream = stream
        self._on_message = on_message
        self._on_end = on_end
        self._on_error = on_error
        self._on_digests = on_digests
        self._deframer = Deframer(MESSAGE_PAYLOAD_MAX, 0)
        self._reading = True
        self.ended: bool = False

    def start(self, first: bytes = b"", fin: bool = False) -> None:
        """Begin to read; ``first`` is what was read of the stream before."""
        self.stream.set_handlers(on_data=self._receive, on_reset=self._receive_reset)
        if first or fin:
            self._read(first, fin)

    def send(self, messages: Iterable[Message], fin: bool = False) -> None:
        """Queue messages, and with ``fin`` the end of this side's direction; nothing after that is sent."""
        data = b"".join(message.encode() for message in messages)
        if self.ended or not (data or fin):
            return
        self.ended = fin
        self.stream.write(data, fin)

    def stop_reading(self) -> None:
        """What still comes is credited and dropped."""
        self._reading = False

    def _receive(self, data: bytes, fin: bool) -> None:
        self.stream.consume(len(data))
        self._read(data, fin)

    def _receive_reset(self, code: int) -> None:
        if self._reading:
            self._reading = False
            self._on_end()

    def _read(self, data: bytes, fin: bool) -> None:
        position = 0
        try:
            while self._reading and position < len(data):
                if self._on_digests is not None and data[position] == _DIGEST and self._deframer.at_boundary:
                    digests, position = parse_digests(_DIGEST, data, position)
                    if digests:
                        self._on_digests(ItemDigests(tuple(digests)))
                        continue
                position = self._deframer.feed(data, position)
                if self._deframer.event == Deframer.MESSAGE:
                    payload = self._deframer.payload
                    message = decode_message(self._deframer.message_type, payload)
                    if message is not None:
                        self._on_message(message, len(payload))
            if fin and self._reading and not self._deframer.at_boundary:
                raise RemoteProtocolError("the peer ended a stream in the middle of a message")
        except SpaceblockError as error:
            self._reading = False
            self._on_error(error)
            return
        if fin and self._reading:
            self._reading = False
            self._on_end()
