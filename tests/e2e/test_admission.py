"""Who gets in: tickets that are wrong, spent, old or for somebody else, and listeners that are not where they were."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import spaceblock
from spaceblock.quic import Stream
from spaceblock.quic.connection import AioquicConnection
from spaceblock.trust.identity import Identity
from spaceblock.trust.tickets import Ticket

from .stages import receiver_prepares
from .support import QUICK, Pair, assert_helpful, deliver, failure, failures, pair, until, within


def somebody() -> spaceblock.Options:
    """Options of a peer that nobody has seen before."""
    return spaceblock.Options(identity=Identity.ephemeral(), timeouts=QUICK)


async def connect(ticket: str | Ticket, options: spaceblock.Options | None = None) -> None:
    async with spaceblock.connect(ticket, options=options or somebody()):
        pass


async def assert_unharmed(peers: Pair) -> None:
    """What others tried has not disturbed the peer that is here."""
    target = bytearray(8)
    await deliver(peers, b"unharmed", into=[target])
    assert target == b"unharmed"


@pytest.mark.parametrize("ticket", ["", "   ", "ticket", "sb2", "sb2" + "a" * 200, "sb3abc", "\x1b[31m", "x" * 100_000])
async def test_what_is_no_ticket_never_opens_a_socket(ticket: str) -> None:
    error = await failure(connect(ticket))
    assert isinstance(error, spaceblock.TicketMalformed)
    assert isinstance(error, ValueError)
    assert (error.code, error.exit_code) == ("ticket_malformed", 2)
    assert_helpful(error)
    assert "\x1b" not in str(error)


@pytest.mark.parametrize("position", [3, 20, 60, 100, -1])
async def test_a_ticket_with_one_wrong_letter_is_malformed_and_not_unreachable(position: int) -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        letter = "b" if listener.ticket[position] == "a" else "a"
        end = "" if position == -1 else listener.ticket[position + 1 :]
        error = await failure(connect(listener.ticket[:position] + letter + end))
        assert isinstance(error, spaceblock.TicketMalformed)


async def test_a_ticket_may_come_with_spaces_and_in_capitals() -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        ticket = listener.ticket.upper()
        await connect(f"  {ticket[:30]}\n{ticket[30:]} ")


@pytest.mark.parametrize("ticket", [None, 3, b"sb2"])
async def test_what_is_no_text_either_is_a_mistake_of_the_program(ticket: object) -> None:
    with pytest.raises(spaceblock.LocalProtocolError):
        await connect(ticket)  # type: ignore[arg-type]


async def test_a_ticket_is_good_for_one_peer_and_again_for_the_same() -> None:
    first, second = somebody(), somebody()
    async with pair(here=first) as peers:
        error = await failure(connect(peers.listener.ticket, second))
        assert isinstance(error, spaceblock.TicketUsed)
        assert isinstance(error, PermissionError)
        assert isinstance(error, ConnectionError)
        assert (error.code, error.exit_code, error.remote) == ("ticket_used", 3, True)
        assert_helpful(error)
        await connect(peers.listener.ticket, first)
        await assert_unharmed(peers)


async def test_many_at_once_with_one_ticket_are_one_that_gets_in() -> None:
    patient = spaceblock.Timeouts(connect=60.0)  # eight handshakes at once, on a machine that may be busy
    async with spaceblock.listen("127.0.0.1", options=spaceblock.Options(timeouts=patient)) as listener:
        entered = asyncio.Event()
        leave = asyncio.Event()

        async def stay() -> None:
            async with spaceblock.connect(listener.ticket, options=replace(somebody(), timeouts=patient)):
                entered.set()
                await leave.wait()

        tasks = [asyncio.create_task(stay()) for _ in range(8)]
        await until(lambda: sum(task.done() for task in tasks) == 7)
        await within(entered.wait())
        leave.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["NoneType"] + ["TicketUsed"] * 7


async def test_a_ticket_of_another_listener_finds_another_key_there() -> None:
    """The client notices before it shows its own certificate, so the wrong listener does not learn who it is."""
    async with (
        spaceblock.listen("127.0.0.1", options=somebody()) as right,
        pair(somebody()) as peers,
    ):
        wrong = replace(Ticket.parse(right.ticket), addresses=Ticket.parse(peers.listener.ticket).addresses)
        error = await failure(connect(wrong))
        assert isinstance(error, spaceblock.WrongPeer)
        assert isinstance(error, ConnectionError)
        assert (error.code, error.exit_code) == ("wrong_peer", 4)
        assert_helpful(error)
        await assert_unharmed(peers)
        assert len(peers.listener._peers) == 1


@pytest.mark.parametrize("what", ["ticket_id", "secret"])
async def test_a_ticket_that_the_listener_never_issued_is_unknown(what: str) -> None:
    async with pair() as peers:
        changes = {what: bytes(16 if what == "ticket_id" else 32)}
        forged = replace(Ticket.parse(peers.listener.invite(1)[0]), **changes)  # type: ignore[arg-type]
        error = await failure(connect(forged))
        assert isinstance(error, spaceblock.TicketUnknown)
        assert (error.code, error.exit_code, error.remote) == ("ticket_unknown", 3, True)
        assert_helpful(error)
        await assert_unharmed(peers)


async def test_a_ticket_that_is_too_old_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async with pair() as peers:
        ticket = peers.listener.invite(1, lifetime=60)[0]
        clock = time.time
        monkeypatch.setattr(time, "time", lambda: clock() + 120)
        error = await failure(connect(ticket))
        assert isinstance(error, spaceblock.TicketExpired)
        assert (error.code, error.exit_code, error.remote) == ("ticket_expired", 3, True)
        assert_helpful(error)
        await assert_unharmed(peers)


async def test_a_ticket_is_not_needed_by_who_is_trusted() -> None:
    friend = somebody()
    assert isinstance(friend.identity, Identity)
    options = spaceblock.Options(trust=[friend.identity.peer_id])
    async with spaceblock.listen("127.0.0.1", options=options) as listener:
        await connect(listener.ticket, somebody())
        await connect(listener.ticket, friend)
        assert isinstance(await failure(connect(listener.ticket, somebody())), spaceblock.TicketUsed)


@pytest.mark.parametrize("trust", [["nobody"], [""], ["a" * 52 + "a"]])
async def test_trust_in_what_is_no_peer_id_is_a_mistake_of_the_program(trust: list[str]) -> None:
    async def listen() -> None:
        async with spaceblock.listen("127.0.0.1", options=spaceblock.Options(trust=trust)):
            pass

    error = await failure(listen())
    assert isinstance(error, spaceblock.LocalProtocolError)
    assert_helpful(error)


async def test_many_at_once_are_no_more_than_the_limit() -> None:
    patient = spaceblock.Timeouts(connect=60.0)  # eight handshakes at once, on a machine that may be busy
    options = spaceblock.Options(limits=spaceblock.Limits(peers=2), timeouts=patient)
    async with spaceblock.listen("127.0.0.1", options=options) as listener:
        leave = asyncio.Event()
        entered = 0

        async def stay(ticket: str) -> None:
            nonlocal entered
            async with spaceblock.connect(ticket, options=replace(somebody(), timeouts=patient)):
                entered += 1
                await leave.wait()

        tasks = [asyncio.create_task(stay(ticket)) for ticket in listener.invite(8)]
        await until(lambda: sum(task.done() for task in tasks) == 6)
        await until(lambda: entered == 2)
        leave.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["LimitExceeded"] * 6 + ["NoneType"] * 2


# Reaching a listener.


async def test_where_nobody_listens_any_more_is_known_at_once() -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        ticket = listener.ticket
    patient = replace(somebody(), timeouts=spaceblock.Timeouts(connect=300.0))  # longer than this test waits
    error = await failure(connect(ticket, patient))
    assert isinstance(error, spaceblock.Unreachable)
    assert isinstance(error, ConnectionError)
    assert (error.code, error.exit_code) == ("unreachable", 4)
    assert error.phase == str(spaceblock.Phase.CONNECTING)
    assert_helpful(error)


async def test_without_memory_for_a_connection_the_error_has_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(connection: AioquicConnection, *, unidirectional: bool) -> Stream:
        raise MemoryError

    async with spaceblock.listen("127.0.0.1") as listener:
        with monkeypatch.context() as patch:
            patch.setattr(AioquicConnection, "open_stream", no_memory)
            error = await failure(connect(listener.ticket))
        assert isinstance(error, spaceblock.ConnectionFailed)
        assert (error.errno, error.phase) == (errno.ENOMEM, str(spaceblock.Phase.CONNECTING))
        assert_helpful(error)
        await connect(listener.invite(1)[0])


async def test_a_socket_that_never_answers_is_unreachable_after_a_while() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        ticket = Ticket(bytes(32), (silent.getsockname(),), bytes(16), bytes(32), 2_000_000_000)
        hurried = spaceblock.Options(timeouts=spaceblock.Timeouts(connect=0.4))
        error = await failure(connect(ticket, hurried))
        assert isinstance(error, spaceblock.Unreachable)
        assert error.phase == str(spaceblock.Phase.CONNECTING)
        assert_helpful(error)


async def test_a_name_that_does_not_exist_is_unreachable() -> None:
    ticket = Ticket(bytes(32), (("no-such-host.invalid", 9),), bytes(16), bytes(32), 2_000_000_000)
    error = await failure(connect(ticket))
    assert isinstance(error, spaceblock.Unreachable)
    assert_helpful(error)


async def test_of_several_addresses_one_that_works_is_enough() -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        ticket = Ticket.parse(listener.ticket)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(("127.0.0.1", 0))
            addresses = (silent.getsockname(), ("no-such-host.invalid", 9), *ticket.addresses)
            await connect(replace(ticket, addresses=addresses))


async def test_of_several_failures_the_one_that_tells_most_is_raised() -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        await connect(listener.ticket)
        ticket = Ticket.parse(listener.ticket)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            address = closed.getsockname()
        error = await failure(connect(replace(ticket, addresses=(address, *ticket.addresses, address))))
        assert isinstance(error, spaceblock.TicketUsed)


# Listening.


async def test_a_port_that_is_taken_is_told_so() -> None:
    async def listen(port: int) -> None:
        async with spaceblock.listen("127.0.0.1", port, options=somebody()):
            pass

    async with spaceblock.listen("127.0.0.1") as listener:
        error = await failure(listen(listener.addresses[0][1]))
        assert isinstance(error, spaceblock.ConnectionFailed)
        assert_helpful(error)


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
async def test_an_address_that_is_not_this_machines_is_told_so(host: str) -> None:
    async def listen() -> None:
        async with spaceblock.listen(host):
            pass

    error = await failure(listen())
    assert isinstance(error, spaceblock.ConnectionFailed)
    assert_helpful(error)


async def test_two_listeners_of_one_name_do_not_share_their_tickets(tmp_path: Path) -> None:
    options = spaceblock.Options(identity=tmp_path / "me", name="inbox")

    async def listen() -> None:
        async with spaceblock.listen("127.0.0.1", options=options):
            pass

    async with spaceblock.listen("127.0.0.1", options=options):
        error = await failure(listen())
        assert isinstance(error, spaceblock.ListenerBusy)
        assert_helpful(error)
    await listen()


async def test_listeners_share_a_range_of_ports() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        first = min(probe.getsockname()[1], 65_000)
    ports = range(first, first + 20)
    async with spaceblock.listen("127.0.0.1", ports) as one, spaceblock.listen("127.0.0.1", ports) as other:
        assert one.addresses[0][1] != other.addresses[0][1]
        assert {one.addresses[0][1], other.addresses[0][1]} <= set(ports)


@pytest.mark.parametrize("ports", [range(0), range(0, 10), range(65_530, 65_540), range(4_000, 4_010, 2)])
async def test_a_range_that_is_none_is_refused(ports: range) -> None:
    with pytest.raises(spaceblock.LocalProtocolError, match="not a range of ports"):
        async with spaceblock.listen("127.0.0.1", ports):
            pass


@pytest.mark.parametrize("port", [-1, 65_536, 1.5, "4000", None])
async def test_a_port_that_is_none_is_refused(port: Any) -> None:
    with pytest.raises(spaceblock.LocalProtocolError, match="choose 0 to 65535, or a range of ports"):
        async with spaceblock.listen("127.0.0.1", port):
            pass


async def test_tickets_and_port_of_a_named_listener_survive_a_restart(tmp_path: Path) -> None:
    options = spaceblock.Options(identity=tmp_path / "me", name="inbox")
    spent, unspent = somebody(), somebody()
    async with spaceblock.listen("127.0.0.1", options=options) as listener:
        port = listener.addresses[0][1]
        tickets = listener.invite(2)
        await connect(tickets[0], spent)
    async with spaceblock.listen("127.0.0.1", options=options) as listener:
        assert listener.addresses[0][1] == port
        await connect(tickets[1], unspent)
        await connect(tickets[0], spent)
        assert isinstance(await failure(connect(tickets[0])), spaceblock.TicketUsed)


async def test_a_listener_on_any_port_comes_back_to_it_and_its_tickets_are_over(tmp_path: Path) -> None:
    """Within one program, where the next listener may be about something else."""
    options = spaceblock.Options(identity=tmp_path / "me")
    async with spaceblock.listen("127.0.0.1", options=options) as listener:
        address, ticket = listener.addresses[0], listener.ticket
        async with spaceblock.listen("127.0.0.1", options=options) as other:
            assert other.addresses[0] != address
    async with spaceblock.listen("127.0.0.1", options=options) as listener:
        assert listener.addresses[0] == address
        assert isinstance(await failure(connect(ticket)), spaceblock.TicketExpired)
        await connect(listener.ticket)


async def test_a_port_that_somebody_has_taken_meanwhile_is_not_waited_for(tmp_path: Path) -> None:
    options = spaceblock.Options(identity=tmp_path / "me")
    async with spaceblock.listen("127.0.0.1", options=options) as listener:
        address = listener.addresses[0]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(address)
        async with spaceblock.listen("127.0.0.1", options=options) as listener:
            assert listener.addresses[0] != address
            await connect(listener.ticket)


async def test_a_listener_that_is_closing_takes_nobody_and_says_so(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it waits for a transfer to end, somebody else knocks."""
    async with pair() as peers:
        ticket = peers.listener.invite(1)[0]
        with receiver_prepares(monkeypatch):
            sending = peers.here.send(b"data")
            receiving = (await peers.offer()).accept(inbox)
            closing = asyncio.create_task(peers.listener.close())
            await asyncio.sleep(0)
            error = await failure(connect(ticket))
        assert isinstance(error, spaceblock.ConnectionFailed)
        assert_helpful(error)
        await within(asyncio.gather(sending, receiving, closing))


async def test_an_offer_to_a_side_that_is_closing_is_refused_with_that_reason(
    inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pair() as peers:
        with receiver_prepares(monkeypatch):
            running = peers.here.send(b"data")
            receiving = (await peers.offer()).accept(inbox)
            closing = asyncio.create_task(peers.there.close())
            await asyncio.sleep(0)
            (error,) = await failures(peers.here.send(b"late"))
        assert isinstance(error, spaceblock.TransferRefused)
        assert error.remote
        assert_helpful(error)
        await within(asyncio.gather(running, receiving, closing))


@pytest.mark.parametrize("engine", ["unknown", "native "])
async def test_an_engine_that_does_not_exist_is_told_so(engine: str) -> None:
    options = spaceblock.Options(engine=engine)  # type: ignore[arg-type]
    async with spaceblock.listen("127.0.0.1") as listener:
        error = await failure(connect(listener.ticket, options))
        assert isinstance(error, spaceblock.EngineUnavailable)
        assert_helpful(error)
