"""What is said first on a connection, and whom each stream is for."""

from __future__ import annotations

import pytest

from spaceblock.errors import RemoteProtocolError, VersionMismatch
from spaceblock.names import local_rules
from spaceblock.protocol.session import StreamOpening, check_hello, local_hello
from spaceblock.wire.messages import (
    VERSION,
    Done,
    Feature,
    Hello,
    StreamType,
    decode_message,
    encode_stream_header,
)

UUID = bytes(range(16))


def opened(data: bytes, step: int, unidirectional: bool) -> StreamOpening:
    """A stream of which ``step`` bytes come at a time, until its opening is read."""
    opening = StreamOpening(unidirectional)
    for start in range(0, len(data), step):
        opening.feed(data[start : start + step])
        if opening.finished:
            opening.rest += data[start + step :]
            break
    return opening


def test_each_side_greets_with_its_version_and_the_limits_of_its_names() -> None:
    hello = local_hello("spaceblock/test")
    rules = local_rules()
    assert hello.version == VERSION
    features = Feature.RENAME | Feature.COMPARE | Feature.RESUME | Feature.REPAIR | Feature.QUERY
    assert hello.features == features
    assert hello.software == "spaceblock/test"
    assert (hello.system, hello.name_limit) == (rules.system, rules.name_limit)
    assert (hello.name_unit, hello.path_limit) == (rules.name_unit, rules.path_limit)


def test_a_greeting_survives_the_wire() -> None:
    hello = local_hello("spaceblock/test")
    data = hello.encode()
    assert check_hello(decode_message(Hello.TYPE, data[2:])) == hello


@pytest.mark.parametrize("message", [Done(), None])
def test_a_peer_that_does_not_greet_is_no_peer(message: Done | None) -> None:
    with pytest.raises(RemoteProtocolError, match="first message is not Hello"):
        check_hello(message)


@pytest.mark.parametrize("version", [0, 1, 3, 2**62 - 1])
def test_another_version_is_named_in_the_error(version: int) -> None:
    with pytest.raises(VersionMismatch, match=rf"version {version} and this side version {VERSION}: update"):
        check_hello(Hello(version))


def test_features_that_this_side_does_not_know_are_no_error() -> None:
    hello = Hello(VERSION, Feature(1 << 40))
    assert check_hello(hello) is hello


@pytest.mark.parametrize("step", [1, 2, 5, 100])
@pytest.mark.parametrize("stream_type", [StreamType.SESSION, StreamType.PUSH, StreamType.QUERY, StreamType.FETCH])
def test_a_control_stream_begins_with_its_type(stream_type: StreamType, step: int) -> None:
    opening = opened(encode_stream_header(stream_type) + b"what follows", step, unidirectional=False)
    assert opening.stream_type is stream_type
    assert opening.rest == b"what follows"


@pytest.mark.parametrize("step", [1, 2, 16, 17, 18, 100])
def test_a_data_stream_begins_with_its_transfer(step: int) -> None:
    opening = opened(encode_stream_header(StreamType.DATA, UUID) + b"blocks", step, unidirectional=True)
    assert opening.stream_type is StreamType.DATA
    assert opening.uuid == UUID
    assert opening.rest == b"blocks"


@pytest.mark.parametrize("form", ["01", "4001", "80000001", "c000000000000001"])
def test_a_type_may_be_written_in_any_of_the_four_lengths(form: str) -> None:
    opening = opened(bytes.fromhex(form) + b"x", 1, unidirectional=False)
    assert opening.stream_type is StreamType.PUSH
    assert opening.rest == b"x"


def test_a_stream_that_has_said_nothing_yet_is_for_nobody() -> None:
    opening = StreamOpening(unidirectional=True)
    for piece in (b"", b"\x10", UUID[:15]):
        opening.feed(piece)
        assert opening.stream_type is None
    opening.feed(UUID[15:])
    assert opening.uuid == UUID


@pytest.mark.parametrize("number", [0x04, 0x0F, 0x11, 0x3F, 2**62 - 1])
@pytest.mark.parametrize("unidirectional", [True, False])
def test_a_stream_of_an_unknown_type_is_refused(number: int, unidirectional: bool) -> None:
    data = number.to_bytes(1, "big") if number < 64 else b"\xff" * 8
    with pytest.raises(RemoteProtocolError, match=f"type {number:#x}, which does not exist there"):
        StreamOpening(unidirectional).feed(data)


@pytest.mark.parametrize("stream_type", list(StreamType))
def test_a_stream_in_the_wrong_direction_is_refused(stream_type: StreamType) -> None:
    with pytest.raises(RemoteProtocolError, match="does not exist there"):
        StreamOpening(stream_type is not StreamType.DATA).feed(bytes([stream_type]))
