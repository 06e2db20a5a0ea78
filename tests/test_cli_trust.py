"""Peers that need no ticket: ``spaceblock trust``, and sending to one by its name."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import spaceblock
from commands import Commands
from spaceblock.cli.trusted import FILE, TrustedPeers

A = "tvrqinl3jc33ghavk3ekxbq7rknyebrbdvwud6yft6wnzkvjws2a"
B = spaceblock.Identity.ephemeral().peer_id


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.pdf"
    path.write_bytes(b"%PDF" * 10_000)
    return path


def test_what_is_trusted_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "home" / FILE
    peers = TrustedPeers(path)
    peers.add(A.upper(), "laptop")
    peers.add(B)
    peers.add(A, addresses=["192.0.2.7:4000", "[2001:db8::7]:4000"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = TrustedPeers(path)
    assert [peer.peer for peer in again.all] == [A, B]
    assert again.names == {A: "laptop"}
    laptop = again.find("laptop")
    assert laptop is not None
    assert laptop == again.find(A)
    assert laptop.contact().endpoints == (("192.0.2.7", 4000), ("2001:db8::7", 4000))
    again.remove("laptop")
    assert [peer.peer for peer in TrustedPeers(path).all] == [B]


def test_a_name_is_kept_whatever_the_systems_own_letters_are(tmp_path: Path) -> None:
    code = f"import sys; from spaceblock.cli.trusted import *; TrustedPeers(Path(sys.argv[1])).add({A!r}, 'b\\xfcro')"
    path = tmp_path / FILE
    environment = {**os.environ, "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-X", "utf8=0", "-c", code, path], env=environment, check=True)
    assert TrustedPeers(path).names == {A: "b\u00fcro"}


@pytest.mark.parametrize("name", ["", "two words", "sb2word", "-x", "a/b", "#", "\x1b[2J", "x" * 65])
def test_a_name_that_would_be_mistaken_for_something_else(tmp_path: Path, name: str) -> None:
    peers = TrustedPeers(tmp_path / FILE)
    with pytest.raises(spaceblock.LocalProtocolError, match="cannot be a peer's name"):
        peers.add(A, name)
    assert peers.all == []


def test_one_name_is_one_peer(tmp_path: Path) -> None:
    peers = TrustedPeers(tmp_path / FILE)
    peers.add(A, "laptop")
    with pytest.raises(spaceblock.LocalProtocolError, match="another trusted peer"):
        peers.add(B, "laptop")


def test_a_line_that_is_no_peer_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(f"# mine\n\n{A} laptop\nsomebody else\n")
    with pytest.raises(spaceblock.StorageError, match="line 4 of"):
        TrustedPeers(tmp_path / FILE)


def test_contacts_are_checked() -> None:
    for peer, addresses in ((A, []), (A, "192.0.2.7:1"), (A, ["192.0.2.7"]), ("me", ["192.0.2.7:1"])):
        with pytest.raises(spaceblock.LocalProtocolError):
            spaceblock.Contact(peer, addresses)


async def test_whoever_else_answers_at_a_contacts_address_is_refused() -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        host, port = listener.addresses[0]
        with pytest.raises(spaceblock.WrongPeer):
            async with spaceblock.connect(spaceblock.Contact(B, [f"{host}:{port}"])):
                pass


def test_trusting_listing_and_forgetting(commands: Commands) -> None:
    assert "nobody is trusted" in commands.run("trust").err
    assert commands.run("trust", A, "--name", "laptop", "--address", "192.0.2.7:4000").code == 0
    assert commands.run("trust", B).out == f"{B}  -\n"
    assert commands.run("trust").out == f"{A}  laptop  192.0.2.7:4000\n{B}  -\n"
    (first, _) = commands.run("trust", "--json").objects
    assert (first["name"], first["addresses"]) == ("laptop", ["192.0.2.7:4000"])
    assert commands.run("trust", "--remove", "laptop").code == 0
    assert commands.run("trust").out == f"{B}  -\n"
    gone = commands.run("trust", "--remove", "laptop")
    assert gone.code == 2
    assert "no trusted peer is called 'laptop'" in gone.err
    assert commands.run("trust", "--name", "x").code == 2
    assert commands.run("trust", "somebody").code == 2


def test_two_that_trust_each_other_need_no_ticket(commands: Commands, inbox: Path, report: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    sender_id = commands.run("id", home="send").out.strip()
    receiver_id = commands.run("id", "--json", home="receive").objects[0]["peer"]
    words = ("receive", "--listen", "127.0.0.1", "--port", str(port), "--dir", inbox, "--yes", "--json")
    stranger = commands.start(*words)
    stranger.read_line()
    to = ("trust", receiver_id, "--name", "desk", "--address", f"127.0.0.1:{port}")
    assert commands.run(*to, home="send").code == 0
    refused = commands.run("send", "--to", "desk", report)
    assert refused.code == 3
    assert "no ticket and is not trusted" in refused.err
    assert stranger.end(signal.SIGINT).code == 130

    assert commands.run("trust", sender_id, "--name", "laptop", home="receive").code == 0
    receiver = commands.start(*words, "--once")
    receiver.read_line()
    sent = commands.run("send", "--to", "desk", report)
    offer = receiver.read_until(lambda found: found["type"] == "offer")
    assert (sent.code, receiver.end().code) == (0, 0), sent
    assert offer["peer_name"] == "laptop"
    assert (inbox / "report.pdf").read_bytes() == report.read_bytes()


def test_whoever_announces_itself_is_found_by_its_name(commands: Commands, inbox: Path, report: Path) -> None:
    pytest.importorskip("zeroconf")
    sender_id = commands.run("id", home="send").out.strip()
    receiver_id = commands.run("id", home="receive").out.strip()
    assert commands.run("trust", sender_id, home="receive").code == 0
    assert commands.run("trust", receiver_id, "--name", "desk", home="send").code == 0
    receiver = commands.start("receive", "--announce", "My desk.", "--dir", inbox, "--yes", "--once", terminal=True)
    receiver.read_line()
    receiver.terminal.wait_for("announced on this network as My desk-")
    found = commands.run("peers", "--json", "--seconds", "5", home="send").objects
    if not found:
        receiver.end(signal.SIGINT)
        pytest.skip("this network takes no multicast")
    (desk,) = [each for each in found if each["peer"] == receiver_id]
    assert desk["name"] == "My desk-"
    assert desk["peer_name"] == "desk"
    assert commands.run("send", "--to", "desk", report).code == 0
    assert receiver.end().code == 0
    assert (inbox / "report.pdf").read_bytes() == report.read_bytes()


def test_a_trusted_peer_that_is_not_there(commands: Commands, report: Path) -> None:
    pytest.importorskip("zeroconf")
    assert commands.run("trust", B, "--name", "ghost", home="send").code == 0
    ended = commands.run("send", "--to", "ghost", "--timeout", "0.5", report)
    assert ended.code == 4
    assert "ghost does not announce itself on this network" in ended.err
