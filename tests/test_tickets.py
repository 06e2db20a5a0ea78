"""Tickets as text, and the proof of holding one."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import string

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from spaceblock.errors import LocalProtocolError, TicketMalformed
from spaceblock.trust import identity, tickets
from spaceblock.trust.identity import Identity
from spaceblock.trust.tickets import Ticket

PEER_ID = bytes(range(32))
TICKET_ID = bytes(range(100, 116))
SECRET = bytes(range(200, 232))


def make_ticket(*addresses: tuple[str, int], expires: int = 2_000_000_000) -> Ticket:
    return Ticket(PEER_ID, addresses or (("192.0.2.7", 4433),), TICKET_ID, SECRET, expires)


def test_a_ticket_is_one_word_that_says_where_to_go() -> None:
    ticket = make_ticket(("192.0.2.7", 4433), ("2001:db8::7", 4433), ("files.example.org", 443))
    text = ticket.encode()

    assert text.startswith("sb2")
    assert set(text) <= set(string.ascii_lowercase + string.digits)
    assert Ticket.parse(text) == ticket


def test_every_byte_of_a_ticket_has_its_place() -> None:
    body = bytes.fromhex(
        "01"  # version
        + PEER_ID.hex()
        + TICKET_ID.hex()
        + SECRET.hex()
        + "0000000077359400"  # expiry: 2 000 000 000
        + "03"  # addresses
        + "04 c0000207 1151"  # 192.0.2.7, port 4433
        + "06 20010db8000000000000000000000007 1151"  # 2001:db8::7
        + "00 09 6c6f63616c686f7374 01bb"  # "localhost", port 443
    )
    text = "sb2" + identity.to_base32(body + blake3(body).digest(4))

    assert make_ticket(("192.0.2.7", 4433), ("2001:db8::7", 4433), ("localhost", 443)).encode() == text


def test_white_space_and_upper_case_are_forgiven() -> None:
    ticket = make_ticket()
    text = ticket.encode()
    wrapped = f"{text[:60]}\n  {text[60:]}"

    assert Ticket.parse(f"\r\n\t {text} \n") == ticket
    assert Ticket.parse(text.upper()) == ticket
    assert Ticket.parse(wrapped) == ticket


def test_addresses_are_brought_to_their_usual_spelling() -> None:
    ticket = make_ticket(("2001:0DB8::0:7", 1), ("Files.Example.ORG", 2))

    assert ticket.addresses == (("2001:db8::7", 1), ("files.example.org", 2))


def test_the_longest_ticket_fits() -> None:
    ticket = make_ticket(*[("n" * 253, port) for port in range(1, 17)])

    assert len(ticket.encode()) == 6733
    assert Ticket.parse(ticket.encode()) == ticket


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (("192.0.2.7", 0), "port"),
        (("192.0.2.7", 65_536), "port"),
        (("", 1), "host name"),
        (("n" * 254, 1), "host name"),
        (("bücher.example", 1), "plain ASCII"),
        (("a b", 1), "host name"),
        (("fe80::1%eth0", 1), "zone"),
    ],
)
def test_addresses_that_no_ticket_can_hold(address: tuple[str, int], words: str) -> None:
    with pytest.raises(LocalProtocolError, match=words):
        make_ticket(address)


def test_other_values_that_no_ticket_can_hold() -> None:
    here = (("192.0.2.7", 1),)
    with pytest.raises(LocalProtocolError, match="1 to 16 addresses, not 0"):
        Ticket(PEER_ID, (), TICKET_ID, SECRET, 0)
    with pytest.raises(LocalProtocolError, match="1 to 16 addresses, not 17"):
        Ticket(PEER_ID, here * 17, TICKET_ID, SECRET, 0)
    with pytest.raises(LocalProtocolError, match="another lifetime"):
        Ticket(PEER_ID, here, TICKET_ID, SECRET, tickets.EXPIRY_MAX + 1)
    with pytest.raises(LocalProtocolError, match="32, 16 and 32 bytes"):
        Ticket(PEER_ID, here, TICKET_ID, SECRET[:31], 0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \n\t", "empty"),
        ("https://example.org/", "begins with sb2"),
        ("sb", "begins with sb2"),
        ("sb2", "damaged"),
        ("sb2" + "a" * 160, "damaged"),
        ("sb2" + "a" * 161, "damaged"),
        ("sb2not-base32!", "damaged"),
        ("sb2é", "damaged"),
        ("sb3" + "a" * 160, "newer version"),
        ("sb2" + "a" * 9000, "too long"),
        (make_ticket().encode()[:-1], "damaged"),
        (make_ticket().encode() * 2, "damaged"),
    ],
)
def test_what_is_not_a_ticket_says_why(text: str, words: str) -> None:
    with pytest.raises(TicketMalformed, match=words):
        Ticket.parse(text)


def test_every_wrong_character_is_noticed() -> None:
    text = make_ticket().encode()
    wrong = [
        text[:index] + character + text[index + 1 :]
        for index in range(len(text))
        for character in string.ascii_lowercase + string.digits + "-=\N{KELVIN SIGN}"
        if character != text[index]
    ]

    assert len(wrong) > 6_000
    for candidate in wrong:
        with pytest.raises(TicketMalformed):
            Ticket.parse(candidate)


def with_checksum(body: bytes) -> str:
    return "sb2" + identity.to_base32(body + blake3(body).digest(4))


BODY = identity.from_base32(make_ticket(("a", 1)).encode()[3:])[:-4]
HEAD = BODY[:89]


@pytest.mark.parametrize(
    "body",
    [
        b"\x00" + BODY[1:],
        b"\x01",
        BODY[:-1],
        BODY + b"\x00",
        HEAD + b"\x00",
        HEAD + b"\x11" + b"\x04\x7f\x00\x00\x01\x00\x01" * 17,
        HEAD + b"\x01\x05\x7f\x00\x00\x01\x00\x01",
        HEAD + b"\x01\x04\x7f\x00\x00\x01\x00\x00",
        HEAD + b"\x01\x00\x01A\x00\x01",
        HEAD + b"\x01\x00\x00\x00\x01",
        HEAD + b"\x01\x00\x07\x31.2.3.4\x00\x01",
        HEAD + b"\x01\x00\x02\xc3\xa9\x00\x01",
        HEAD[:81] + b"\xff" * 8 + BODY[89:],
    ],
    ids=[
        "version 0",
        "nothing after the version",
        "truncated",
        "trailing byte",
        "no address",
        "too many addresses",
        "unknown kind of address",
        "port 0",
        "upper case name",
        "empty name",
        "address spelt as a name",
        "name that is not ASCII",
        "expiry out of range",
    ],
)
def test_a_true_checksum_does_not_make_a_ticket(body: bytes) -> None:
    with pytest.raises(TicketMalformed, match="ask for a new one"):
        Ticket.parse(with_checksum(body))


def test_a_ticket_from_a_newer_version_is_told_from_a_damaged_one() -> None:
    with pytest.raises(TicketMalformed, match="newer version"):
        Ticket.parse(with_checksum(b"\x02 whatever it may hold"))


hosts = st.one_of(
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.from_regex(r"[a-z0-9._-]{1,253}", fullmatch=True),
)
some_tickets = st.builds(
    Ticket,
    peer_id=st.binary(min_size=32, max_size=32),
    addresses=st.lists(st.tuples(hosts, st.integers(1, 65_535)), min_size=1, max_size=16).map(tuple),
    ticket_id=st.binary(min_size=16, max_size=16),
    secret=st.binary(min_size=32, max_size=32),
    expires=st.integers(0, tickets.EXPIRY_MAX),
)


@given(some_tickets)
def test_what_is_encoded_is_parsed_again(ticket: Ticket) -> None:
    assert Ticket.parse(ticket.encode()) == ticket


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    for candidate in (text, "sb2" + text):
        with pytest.raises(TicketMalformed):
            Ticket.parse(candidate)


@given(st.binary(max_size=80))
def test_no_bytes_break_the_parser(tail: bytes) -> None:
    for body in (b"\x01" + tail, HEAD + tail):
        text = with_checksum(body)
        with contextlib.suppress(TicketMalformed):
            assert Ticket.parse(text).encode() == text


def test_the_secret_is_never_shown() -> None:
    ticket = make_ticket(("192.0.2.7", 4433), ("2001:db8::7", 4433))

    for text in (repr(ticket), str(ticket), f"{ticket}"):
        assert "at 192.0.2.7:4433, [2001:db8::7]:4433, expires 2000000000" in text
        for form in (repr(SECRET), SECRET.hex(), identity.to_base32(SECRET), ticket.encode()):
            assert form not in text


def test_error_messages_do_not_quote_the_ticket() -> None:
    text = make_ticket().encode()
    with pytest.raises(TicketMalformed) as caught:
        Ticket.parse(text[:-1] + ("a" if text[-1] != "a" else "b"))

    assert text[10:30] not in str(caught.value)


def test_a_proof_is_an_hmac_under_the_secret() -> None:
    ticket = make_ticket()
    client = Identity.ephemeral()
    value = tickets.proof(ticket, client.public_key)
    message = b"spaceblock admission v1" + TICKET_ID + client.public_key + PEER_ID

    assert value == b"\x01" + TICKET_ID + hmac.new(SECRET, message, hashlib.sha256).digest()
    assert tickets.read_proof(value) == (TICKET_ID, value[17:])
    assert SECRET not in value


@pytest.mark.parametrize(
    "value", [b"", b"\x01", bytes(49), b"\x02" + bytes(48), b"\x01" + bytes(47), b"\x01" + bytes(49)]
)
def test_other_bytes_are_not_a_proof(value: bytes) -> None:
    assert tickets.read_proof(value) is None


def test_a_proof_wants_a_raw_key() -> None:
    with pytest.raises(LocalProtocolError, match="32 bytes, not 44"):
        tickets.proof(make_ticket(), bytes(44))
