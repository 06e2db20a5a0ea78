"""What every stack must be able to do with ours, in both roles; each case runs on both of our engines."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from sides import THEIRS, Side, pattern, soon

from foreign import STACKS, build, start
from quic_pair import KIB, MIB, Reader, Streams
from spaceblock.quic import CloseReason, HandshakeConfig, TransportOptions


@dataclass(frozen=True, slots=True)
class Known:
    """A case that is known to fail for some sides, or to do so now and then, and why."""

    case: str
    """Its name without variants; empty for all of them."""

    reason: str
    applies: Callable[[Side], bool]


KNOWN: tuple[Known, ...] = ()

SIDES = [(stack, role, engine) for engine in ("native", "aioquic") for role in ("client", "server") for stack in STACKS]


@pytest.fixture(params=SIDES, ids=lambda words: "-".join(map(str, words)))
def side(request: pytest.FixtureRequest, tmp_path: Path, record_property: Callable[[str, object], None]) -> Side:
    """Each of our engines in each role, with each stack; skipped if the stack's program cannot be built."""
    stack, role, engine = request.param
    case = request.node.originalname.removeprefix("test_").replace("_", " ")
    variant = request.node.callspec.params.get("variant")
    record_property("case", case if variant is None else f"{case}: {variant}")
    record_property("side", (engine, role, str(stack)))
    if why_not := build(stack):
        pytest.skip(f"no {stack}: {why_not}")
    if case in dict(stack.lacks):
        pytest.skip(dict(stack.lacks)[case])
    side = Side(stack, role == "client", engine == "native", tmp_path)
    for known in KNOWN:
        if known.case in ("", case) and known.applies(side):
            request.applymarker(pytest.mark.xfail(reason=known.reason, strict=False))
            break
    return side


# Bytes.


async def test_bytes_both_ways(side: Side) -> None:
    async with side.meet() as both:
        for kind in ("uni", "bidi"):
            theirs = await both.peer.open(kind, MIB)
            reader = await soon(both.streams.next())
            assert reader.stream.stream_id == theirs
            assert await soon(reader.read_all()) == pattern(MIB)
            ours = both.send(MIB, kind=kind)
            await both.arrived(ours.stream.stream_id, MIB)
            await soon(ours.stream.drain(0))
            if kind == "bidi":
                reader.stream.write(pattern(MIB), fin=True)
                await both.arrived(theirs, MIB)
                both.peer.tell("answer", ours.stream.stream_id, MIB, "fin")
                assert await soon(ours.read_all()) == pattern(MIB)
        assert both.engine == ("SharedEngine" if side.native else "Engine")


async def test_64_MiB_to_the_peer(side: Side) -> None:
    async with side.meet() as both:
        stream = both.ours.open_stream(unidirectional=True)
        data = pattern(64 * MIB)
        for start_of_piece in range(0, len(data), MIB):
            stream.write(data[start_of_piece : start_of_piece + MIB], fin=start_of_piece + MIB == len(data))
            await soon(stream.drain(4 * MIB))
        await both.arrived(stream.stream_id, len(data))


async def test_64_MiB_from_the_peer(side: Side) -> None:
    async with side.meet() as both:
        await both.peer.open("uni", 64 * MIB)
        assert await soon((await soon(both.streams.next())).read_all()) == pattern(64 * MIB)


async def test_an_empty_stream(side: Side) -> None:
    async with side.meet() as both:
        await both.arrived(both.send(0).stream.stream_id, 0)
        await both.peer.open("uni", 0)
        assert await soon((await soon(both.streams.next())).read_all()) == b""


async def test_many_streams_at_once(side: Side) -> None:
    count, size = 40, 100 * KIB
    async with side.meet() as both:
        ours = [both.send(size, kind=kind) for kind in ("uni", "bidi") for _ in range(count)]
        for kind in ("uni", "bidi"):
            for _ in range(count):
                both.peer.tell("open", kind, size, "fin")
        for reader in [await soon(both.streams.next()) for _ in range(2 * count)]:
            assert await soon(reader.read_all()) == pattern(size)
        for reader in ours:
            await both.arrived(reader.stream.stream_id, size)


async def test_more_streams_than_the_peer_allows_at_once(side: Side) -> None:
    async with side.meet(streams=4) as both:
        for reader in [both.send(KIB) for _ in range(50)]:
            await both.arrived(reader.stream.stream_id, KIB)


async def test_more_streams_than_we_allow_at_once(side: Side) -> None:
    async with side.meet(TransportOptions(max_streams_uni=4, max_streams_bidi=4)) as both:
        for _ in range(50):
            both.peer.tell("open", "uni", KIB, "fin")
        for _ in range(50):
            assert await soon((await soon(both.streams.next())).read_all()) == pattern(KIB)


async def test_small_windows_of_the_peer(side: Side) -> None:
    async with side.meet(stream_window=4 * KIB, window=6 * KIB) as both:
        for reader in [both.send(200 * KIB) for _ in range(3)]:
            await both.arrived(reader.stream.stream_id, 200 * KIB)


async def test_a_reader_of_ours_that_takes_its_time(side: Side) -> None:
    options = TransportOptions(stream_window=16 * KIB, max_streams_uni=2, connection_reserve=16 * KIB)
    async with side.meet(options) as both:
        streams = Streams(both.ours, consume=False)
        await both.peer.open("uni", 100 * KIB)
        reader = await soon(streams.next())
        await soon(reader.until(partial(_has, 16 * KIB)))
        assert len(reader.data) == 16 * KIB
        taken = 0
        while not reader.fin:
            # The window of a reader that uses it up at once may grow from here on.
            arrived = len(reader.data)
            reader.stream.consume(arrived - taken)
            taken = arrived
            await soon(reader.until(partial(_has, taken + 1)))
        assert bytes(reader.data) == pattern(100 * KIB)


async def test_ten_connections_one_after_another(side: Side) -> None:
    for _ in range(10):
        async with side.meet() as both:
            ours = both.send(50 * KIB)
            both.peer.tell("open", "uni", 50 * KIB, "fin")
            assert await soon((await soon(both.streams.next())).read_all()) == pattern(50 * KIB)
            await both.arrived(ours.stream.stream_id, 50 * KIB)


# Ends of streams and connections.


async def test_the_peer_resets_and_stops(side: Side) -> None:
    async with side.meet() as both:
        theirs = await both.peer.open("bidi", 10, "hold")
        reader = await soon(both.streams.next())
        reader.stream.write(b"so far")
        await soon(reader.until(lambda reader: len(reader.data) == 10))
        both.peer.tell("reset", theirs, 77)
        await soon(reader.until(lambda reader: reader.reset_code == 77))
        both.peer.tell("stop", theirs, 78)
        await soon(reader.until(lambda reader: reader.stop_code == 78))
        await both.arrived(both.send(KIB).stream.stream_id, KIB)


async def test_we_reset_and_stop(side: Side) -> None:
    async with side.meet() as both:
        theirs = await both.peer.open("bidi", 10, "hold")
        reader = await soon(both.streams.next())
        await soon(reader.until(lambda reader: len(reader.data) == 10))
        reader.stream.stop(2**62 - 1)
        await both.peer.heard("stopped", theirs, 2**62 - 1)
        reader.stream.write(b"so far")
        reader.stream.reset(2**40)
        await both.peer.heard("reset", theirs, 2**40)
        await both.arrived(both.send(KIB).stream.stream_id, KIB)


async def test_a_reset_in_the_middle_of_many_bytes(side: Side) -> None:
    async with side.meet() as both:
        ours = both.ours.open_stream(unidirectional=True)
        ours.write(pattern(8 * MIB))
        while ours.backlog > 7 * MIB:
            await soon(ours.drain(ours.backlog - 1))
        ours.reset(5)
        await both.peer.heard("reset", ours.stream_id, 5)
        theirs = await both.peer.open("uni", 64 * MIB)
        reader = await soon(both.streams.next())
        await soon(reader.until(lambda reader: len(reader.data) > MIB))
        both.peer.tell("reset", theirs, 6)
        await soon(reader.until(lambda reader: reader.reset_code == 6))
        await both.arrived(both.send(MIB).stream.stream_id, MIB)


async def test_we_close(side: Side) -> None:
    for code, reason in ((0, ""), (0x1234, "enough for today"), (2**62 - 1, "x" * 400)):
        async with side.meet() as both:
            both.ours.close(code, reason)
            assert " ".join(await both.peer.heard("closed", "application", "remote", code)) == reason


async def test_the_peer_closes(side: Side) -> None:
    for code, reason in ((0, ""), (0x1234, "enough for today"), (2**62 - 1, "x" * 400)):
        async with side.meet() as both:
            both.peer.tell("close", code, reason)
            assert await soon(both.ours.wait_closed()) == CloseReason(code, reason, by_peer=True)


async def test_the_peers_shorter_patience(side: Side) -> None:
    async with side.meet(idle="1s") as both:
        assert (await soon(both.ours.wait_closed())).timed_out


# Handshakes.


@pytest.mark.parametrize("variant", ["AES_128_GCM_SHA256", "AES_256_GCM_SHA384", "CHACHA20_POLY1305_SHA256"])
async def test_suite(side: Side, variant: str) -> None:
    async with side.meet(TransportOptions(cipher_suites=(variant,))) as both:
        await both.peer.open("uni", MIB)
        assert await soon((await soon(both.streams.next())).read_all()) == pattern(MIB)
        await both.arrived(both.send(MIB).stream.stream_id, MIB)


async def test_certificates(side: Side) -> None:
    async with side.meet() as both:
        assert both.ours.peer_certificate == THEIRS.certificate


async def test_no_certificate_of_the_client(side: Side) -> None:
    if side.is_client:
        async with side.meet(ours=HandshakeConfig(), ask=False) as both:
            await both.arrived(both.send(KIB).stream.stream_id, KIB)
    else:
        async with side.meet(certificate="", key="") as both:
            assert both.ours.peer_certificate is None


async def test_retry(side: Side) -> None:
    async with side.meet(TransportOptions(retry_above=0), retry=side.is_client) as both:
        await both.arrived(both.send(KIB).stream.stream_id, KIB)


async def test_every_extension(side: Side) -> None:
    async with side.meet(extensions=True) as both:
        await both.peer.open("uni", MIB)
        assert await soon((await soon(both.streams.next())).read_all()) == pattern(MIB)
        await both.arrived(both.send(MIB).stream.stream_id, MIB)


# Keys.


async def test_key_updates_of_the_peer(side: Side) -> None:
    if side.stack.name in ("quinn", "qh3"):
        async with side.meet() as both:
            for _ in range(5):
                both.peer.tell("update-keys")
                await both.arrived(both.send(MIB).stream.stream_id, MIB)
                await both.peer.open("uni", MIB)
                assert await soon((await soon(both.streams.next())).read_all()) == pattern(MIB)
    else:
        async with side.meet(key_update=300) as both:
            ours = both.send(4 * MIB)
            await both.peer.open("uni", 4 * MIB)
            assert await soon((await soon(both.streams.next())).read_all()) == pattern(4 * MIB)
            await both.arrived(ours.stream.stream_id, 4 * MIB)


async def test_the_peers_own_interval_of_keys(side: Side) -> None:
    async with side.meet(key_update=0) as both:
        await both.arrived(both.send(16 * MIB).stream.stream_id, 16 * MIB)
        await both.peer.open("uni", 16 * MIB)
        assert await soon((await soon(both.streams.next())).read_all()) == pattern(16 * MIB)


async def test_our_own_interval_of_keys(side: Side) -> None:
    """Within the time that old keys are kept, and beside the peer's own updates where it has any."""
    if not side.native:
        pytest.skip("aioquic's engine does not update by itself")
    async with side.meet(TransportOptions(key_update_packets=500)) as both:
        await both.peer.open("uni", 4 * MIB)
        await both.arrived(both.send(16 * MIB).stream.stream_id, 16 * MIB)
        assert await soon((await soon(both.streams.next())).read_all()) == pattern(4 * MIB)
        assert both.key_updates > 1


# Paths.


@pytest.mark.parametrize("variant", [1200, 1452])
async def test_datagrams(side: Side, variant: int) -> None:
    async with side.meet(TransportOptions(datagram_size=variant), datagram=variant) as both:
        await both.peer.open("uni", MIB)
        assert await soon((await soon(both.streams.next())).read_all()) == pattern(MIB)
        await both.arrived(both.send(MIB).stream.stream_id, MIB)


async def test_IPv6(side: Side) -> None:
    async with side.meet(host="::1") as both:
        await both.peer.open("uni", KIB)
        assert await soon((await soon(both.streams.next())).read_all()) == pattern(KIB)
        await both.arrived(both.send(KIB).stream.stream_id, KIB)


async def test_loss(side: Side) -> None:
    async with side.meet(loss=0.02) as both:
        ours = both.send(2 * MIB)
        await both.peer.open("uni", 2 * MIB)
        assert await soon((await soon(both.streams.next())).read_all()) == pattern(2 * MIB)
        await both.arrived(ours.stream.stream_id, 2 * MIB)


@pytest.mark.parametrize("variant", ["to us", "from us"])
async def test_a_nat_that_rebinds(side: Side, variant: str) -> None:
    """The client has to say something then: until it does, nobody knows where it is."""
    async with side.meet(boxed=True) as both:

        async def rebind() -> None:
            assert both.box is not None
            await both.box.rebind()
            if side.is_client:
                both.ours.keep_alive()
            else:
                both.peer.tell("open", "uni", 1, "fin")

        if variant == "to us":
            await both.peer.open("uni", 16 * MIB)
            reader = await soon(both.streams.next())
            for share in (1, 2, 3):
                await soon(reader.until(partial(_has, share * 4 * MIB)))
                await rebind()
            assert await soon(reader.read_all()) == pattern(16 * MIB)
        else:
            ours = both.send(16 * MIB)
            for share in (3, 2, 1):
                await soon(ours.stream.drain(share * 4 * MIB))
                await rebind()
            await both.arrived(ours.stream.stream_id, 16 * MIB)


@pytest.mark.parametrize("variant", ["to us", "from us"])
async def test_a_client_that_moves(side: Side, variant: str) -> None:
    if side.is_client:
        pytest.skip("our client stays where it is")
    async with side.meet() as both:
        before = both.ours.peer_address
        if variant == "to us":
            await both.peer.open("uni", 16 * MIB)
            reader = await soon(both.streams.next())
            await soon(reader.until(lambda reader: len(reader.data) > 4 * MIB))
            both.peer.tell("migrate")
            assert await soon(reader.read_all()) == pattern(16 * MIB)
        else:
            ours = both.send(16 * MIB)
            await soon(ours.stream.drain(12 * MIB))
            both.peer.tell("migrate")
            await both.arrived(ours.stream.stream_id, 16 * MIB)
        port = int((await both.peer.heard("migrated"))[0])
        await both.peer.open("uni", KIB)
        await soon(both.streams.next())
        assert both.ours.peer_address == (before[0], port) != before


# Stateless reset.


async def test_a_peer_that_forgot_us(side: Side) -> None:
    if not side.is_client:
        pytest.skip("a client's first connection ID has no token, so its server cannot know the reset")
    secret = secrets.token_hex(32)
    async with side.meet(reset_key=secret) as both:
        await both.arrived(both.send(KIB).stream.stream_id, KIB)
        port = both.ours.peer_address[1]
        await both.peer.kill()
        async with start(side.stack, listen=f"127.0.0.1:{port}", reset_key=secret, **side.shown()) as again:
            await again.listening()
            both.ours.open_stream(unidirectional=True).write(bytes(KIB))
            reason = await soon(both.ours.wait_closed())
            assert reason.by_peer


async def test_we_forgot_the_peer(side: Side) -> None:
    if side.is_client:
        pytest.skip("a client's first connection ID has no token, so its server cannot know the reset")
    if side.stack.name == "qh3":
        pytest.skip("qh3 recognises no stateless resets")
    async with side.meet() as both:
        await both.arrived(both.send(KIB).stream.stream_id, KIB)
        both.ours.drop()  # type: ignore[attr-defined]
        both.peer.tell("open", "uni", KIB, "fin")
        await both.peer.heard("closed", "stateless-reset")


def _has(size: int, reader: Reader) -> bool:
    return reader.fin or len(reader.data) >= size
