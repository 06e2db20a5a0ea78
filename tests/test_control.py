"""A bidirectional stream as messages: whole, byte by byte, ended, reset, and malformed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from spaceblock.errors import RemoteProtocolError, SpaceblockError, TransferCancelled
from spaceblock.limits import MESSAGE_PAYLOAD_MAX
from spaceblock.quic.interface import Intake, Stream
from spaceblock.transfers.control import MessageStream
from spaceblock.wire.messages import Done, Error, ItemDigest, Message

DIGEST = ItemDigest(1, 2, bytes(32))


class Wire(Stream):
    """One end of a stream in memory: what is written to it is kept, and :meth:`arrive` plays the peer."""

    stream_id = 0
    is_unidirectional = False
    is_local = True
    backlog = 0
    finished = False

    def __init__(self) -> None:
        self.written = b""
        self.fins = 0
        self.consumed = 0
        self.arrive: Callable[[bytes, bool], None] = lambda data, fin: None
        self.reset_arrives: Callable[[int], None] = lambda code: None

    def set_handlers(
        self,
        *,
        on_data: Callable[[bytes, bool], None] | None,
        on_reset: Callable[[int], None] | None = None,
        on_stop: Callable[[int], None] | None = None,
    ) -> None:
        assert on_data is not None
        assert on_reset is not None
        self.arrive, self.reset_arrives = on_data, on_reset

    def set_intake(self, intake: Intake, **handlers: Any) -> None:
        raise AssertionError("control messages are read on the event loop")

    def resume(self) -> bool:
        raise AssertionError("control messages are read on the event loop")

    def write(self, data: Any, fin: bool = False, release: Callable[[], None] | None = None) -> None:
        assert self.fins == 0, "nothing follows the end"
        self.written += bytes(data)
        self.fins += fin
        if release is not None:
            release()

    def consume(self, count: int) -> None:
        self.consumed += count

    async def drain(self, limit: int) -> None:
        return

    def reset(self, code: int) -> None:
        return

    def stop(self, code: int) -> None:
        return


class Reader:
    """A message stream over a wire, and everything that it reported."""

    def __init__(self, first: bytes = b"", fin: bool = False) -> None:
        self.wire = Wire()
        self.messages: list[Message] = []
        self.sizes: list[int] = []
        self.ends = 0
        self.errors: list[SpaceblockError] = []
        self.stream = MessageStream(self.wire, self.receive, self.end, self.errors.append)
        self.stream.start(first, fin)

    def receive(self, message: Message, payload_size: int) -> None:
        self.messages.append(message)
        self.sizes.append(payload_size)

    def end(self) -> None:
        self.ends += 1


@pytest.mark.parametrize("step", [1, 2, 7, 1_000])
def test_messages_arrive_in_pieces_of_any_size(step: int) -> None:
    reader = Reader()
    data = DIGEST.encode() + Done().encode() + DIGEST.encode()
    for start in range(0, len(data), step):
        reader.wire.arrive(data[start : start + step], False)
    assert reader.messages == [DIGEST, Done(), DIGEST]
    assert reader.sizes == [len(DIGEST.encode()) - 2, 0, len(DIGEST.encode()) - 2]
    assert reader.wire.consumed == len(data), "control streams are always credited"
    assert reader.ends == 0


def test_the_end_is_told_after_the_last_message() -> None:
    reader = Reader()
    reader.wire.arrive(Done().encode(), True)
    assert (reader.messages, reader.ends) == ([Done()], 1)


def test_an_end_by_itself_is_told_too() -> None:
    reader = Reader()
    reader.wire.arrive(b"", True)
    assert (reader.messages, reader.ends) == ([], 1)


def test_what_was_read_of_the_stream_before_comes_first() -> None:
    data = DIGEST.encode()
    reader = Reader(data[:5])
    reader.wire.arrive(data[5:], False)
    assert reader.messages == [DIGEST]
    assert Reader(data, fin=True).ends == 1


def test_messages_that_are_ignorable_and_unknown_are_skipped() -> None:
    reader = Reader()
    reader.wire.arrive(b"\x3b\x02\xca\xfe" + Done().encode(), False)
    assert reader.messages == [Done()]


@pytest.mark.parametrize(
    "data",
    [
        b"\x3c\x00",
        b"\x1a\x01\x00",
        b"\x0e\x01\x00",
        b"\x20\x03\x00\x00x",
        b"\x00\x80\x01\x00\x01",
        b"\x1c\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
    ids=["unknown", "too long", "too short", "a block", "above the limit", "far above the limit"],
)
@pytest.mark.parametrize("step", [1, 100])
def test_what_is_malformed_is_told_once_and_nothing_is_read_after_it(data: bytes, step: int) -> None:
    reader = Reader()
    data += Done().encode()
    for start in range(0, len(data), step):
        reader.wire.arrive(data[start : start + step], False)
    reader.wire.arrive(b"", True)
    (error,) = reader.errors
    assert isinstance(error, RemoteProtocolError)
    assert (reader.messages, reader.ends) == ([], 0)
    assert reader.wire.consumed == len(data), "what is not read is credited nevertheless"


def test_a_payload_of_the_limit_is_read() -> None:
    reader = Reader()
    size = MESSAGE_PAYLOAD_MAX
    reader.wire.arrive(b"\x3b\x80" + size.to_bytes(3, "big") + bytes(size) + Done().encode(), False)
    assert reader.messages == [Done()]


def test_an_end_in_the_middle_of_a_message_is_malformed() -> None:
    reader = Reader()
    reader.wire.arrive(DIGEST.encode()[:-1], True)
    assert "in the middle of a message" in str(reader.errors[0])
    assert reader.ends == 0


def test_a_reset_is_an_end() -> None:
    reader = Reader()
    reader.wire.arrive(DIGEST.encode()[:-1], False)
    reader.wire.reset_arrives(6)
    reader.wire.reset_arrives(6)
    assert (reader.ends, reader.errors) == (1, [])


def test_an_error_of_whoever_takes_the_messages_ends_the_reading() -> None:
    errors: list[SpaceblockError] = []
    wire = Wire()

    def refuse(message: Message, payload_size: int) -> None:
        raise TransferCancelled("stop")

    MessageStream(wire, refuse, lambda: None, errors.append).start()
    wire.arrive(Done().encode() * 3, True)
    assert [str(error) for error in errors] == ["stop"]


def test_who_stops_reading_in_the_middle_of_a_packet_hears_no_more() -> None:
    wire = Wire()
    seen: list[Message] = []

    def once(message: Message, payload_size: int) -> None:
        seen.append(message)
        stream.stop_reading()

    stream = MessageStream(wire, once, lambda: seen.append(Done()), lambda error: None)
    stream.start()
    wire.arrive(DIGEST.encode() * 3, True)
    assert seen == [DIGEST]
    assert wire.consumed == 3 * len(DIGEST.encode())


def test_messages_are_sent_together_and_nothing_after_the_end() -> None:
    reader = Reader()
    reader.stream.send([DIGEST, Done()])
    reader.stream.send([])
    assert reader.wire.written == DIGEST.encode() + Done().encode()
    error = Error(6, None, "", 0, "stop")
    reader.stream.send([error], fin=True)
    reader.stream.send([Done()], fin=True)
    assert reader.wire.written.endswith(error.encode())
    assert reader.wire.fins == 1


def test_the_end_can_be_sent_by_itself() -> None:
    reader = Reader()
    reader.stream.send([], fin=True)
    assert (reader.wire.written, reader.wire.fins) == (b"", 1)
