"""Options: the defaults work, and what cannot be is refused when it is said."""

from __future__ import annotations

import dataclasses
import sys
from importlib.util import find_spec
from typing import Any

import pytest

from spaceblock.api import connect, listen
from spaceblock.core import HEADER_ROOM, MESSAGE_DATA_MAX
from spaceblock.errors import EngineUnavailable, LocalProtocolError
from spaceblock.limits import (
    DATA_STREAMS,
    DATAGRAM_MAX,
    DATAGRAM_MIN,
    HEARTBEAT,
    MESSAGE_PAYLOAD_MAX,
    PHASE_MAX,
    RING_SLOTS,
    SLOT_SIZE,
    TEXT_MAX,
    Limits,
    Timeouts,
)
from spaceblock.options import Options, Reports

HAS_NATIVE = sys.version_info >= (3, 11) and find_spec("spaceblock.quic.native.engine") is not None


def test_the_defaults_are_those_of_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SPACEBLOCK_ENGINE", raising=False)
    options = Options()
    assert options.datagram_size is None
    assert options.chosen_engine() == ("native" if HAS_NATIVE else "aioquic")
    assert options.reports == Reports(interval=HEARTBEAT, blocks=None)
    assert (options.limits, options.timeouts) == (Limits(), Timeouts())


@pytest.mark.parametrize("size", [DATAGRAM_MIN, 1_452, DATAGRAM_MAX])
def test_a_datagram_has_what_quic_and_udp_allow(size: int) -> None:
    assert Options(datagram_size=size).datagram_size == size


@pytest.mark.parametrize("size", [-1, 0, DATAGRAM_MIN - 1, DATAGRAM_MAX + 1])
def test_any_other_datagram_is_refused(size: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"datagram_size is {size}: choose 1200 to 65507 bytes"):
        Options(datagram_size=size)


@pytest.mark.parametrize("name", ["trust", "advertise"])
def test_a_single_peer_or_address_must_still_be_in_a_list(name: str) -> None:
    with pytest.raises(LocalProtocolError, match=rf"write {name}=\[\.\.\.\]"):
        Options(**{name: "only-one"})  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [Timeouts, Limits, Reports, Options])
@pytest.mark.parametrize("value", [-1, float("nan"), "3", [3], b"ab"])
def test_what_cannot_be_is_refused_when_it_is_said(make: Any, value: object) -> None:
    """It would be noticed by a callback in the middle of a handshake or transfer, and look like a peer that is gone."""
    free = {"engine", "identity"}  # looked at by whoever uses them
    for field in dataclasses.fields(make):
        if field.name not in free and not (field.name == "name" and isinstance(value, str)):
            with pytest.raises(LocalProtocolError, match=field.name):
                make(**{field.name: value})


def test_time_outs_may_be_infinite_but_for_the_one_that_the_peer_is_told() -> None:
    for field in dataclasses.fields(Timeouts):
        if field.name == "idle":
            with pytest.raises(LocalProtocolError, match=r"Timeouts\.idle is inf: choose a number of seconds above 0"):
                Timeouts(idle=float("inf"))
        else:
            assert getattr(Timeouts(**{field.name: float("inf")}), field.name) == float("inf")


def test_a_list_of_peers_is_not_used_up_by_looking_at_it() -> None:
    with pytest.raises(LocalProtocolError, match=r"trust is <generator .*: choose a list of strings"):
        Options(trust=(peer for peer in ["peer-id"]))  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, Timeouts(), Options])
async def test_what_are_no_options_is_refused(options: Any) -> None:
    for made in (listen("127.0.0.1", options=options), connect("sb2", options=options)):
        with pytest.raises(LocalProtocolError, match=r"^options is a \w+: give a spaceblock\.Options$"):
            async with made:
                pass


def test_the_engine_can_be_chosen_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEBLOCK_ENGINE", "aioquic")
    assert Options().chosen_engine() == "aioquic"
    monkeypatch.setenv("SPACEBLOCK_ENGINE", "warp")
    with pytest.raises(EngineUnavailable, match="no QUIC engine named 'warp'"):
        Options().chosen_engine()
    assert Options(engine="aioquic").chosen_engine() == "aioquic", "what the program says comes first"


def test_a_build_without_the_native_engine_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SPACEBLOCK_ENGINE", raising=False)
    monkeypatch.setattr("spaceblock.options.why_not_native", lambda: "is on holiday")
    for _ in range(2):
        assert Options().chosen_engine() == "aioquic"
    assert caplog.messages == ["the native engine is on holiday; transfers run on aioquic, more slowly"]
    with pytest.raises(EngineUnavailable, match="the native engine is on holiday; choose 'aioquic'"):
        Options(engine="native").chosen_engine()


def test_options_are_values() -> None:
    assert Options(name="a") == Options(name="a") != Options(name="b")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Options().name = "c"  # type: ignore[misc]
    assert dataclasses.replace(Options(), ticket_lifetime=1.0).ticket_lifetime == 1.0


def test_a_slot_holds_the_largest_message_of_each_kind() -> None:
    assert SLOT_SIZE >= MESSAGE_DATA_MAX + HEADER_ROOM
    assert SLOT_SIZE > MESSAGE_PAYLOAD_MAX > TEXT_MAX > PHASE_MAX


def test_a_ring_has_two_slots_for_each_data_stream() -> None:
    assert RING_SLOTS >= 2 * DATA_STREAMS
