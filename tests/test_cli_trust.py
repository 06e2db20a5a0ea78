"""Peers that need no ticket: ``spaceblock trust``, and sending to one by its name."""

from __future__ import annotations

import errno
import json
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
from spaceblock.cli import lan, main
from spaceblock.cli.trusted import FILE, TrustedPeers
from spaceblock.trust.contacts import split_address
from spaceblock.trust.tickets import Ticket

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
        with pytest.raises(spaceblock.WrongPeer, match="check the address and the peer ID"):
            async with spaceblock.connect(spaceblock.Contact(B, [f"{host}:{port}"])):
                pass


def test_whoever_else_answers_at_a_trusted_peers_address_is_told_in_one_sentence(
    commands: Commands, inbox: Path, report: Path
) -> None:
    receiver = commands.start("receive", "--listen", "127.0.0.1", "--dir", inbox, "--json")
    ticket = Ticket.parse(json.loads(receiver.read_line())["ticket"])
    commands.run("trust", B, "--name", "desk", "--address", f"127.0.0.1:{ticket.addresses[0][1]}", home="send")
    ended = commands.run("send", "--to", "desk", report)
    assert ended.code == 4
    assert ended.err.startswith("spaceblock: whoever listens at the peer's address has another key")
    assert ended.err.count("\n") == 1


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


def test_trusted_peers_that_cannot_be_read_or_kept_are_told(commands: Commands, tmp_path: Path) -> None:
    home = tmp_path / "home-trust"
    assert commands.run("trust", A, "--name", "laptop").code == 0
    (home / FILE).unlink()
    (home / FILE).mkdir()
    for words in (["trust"], ["trust", B], ["send", "--to", "laptop", FILE]):
        ended = commands.run(*words, home="trust")
        assert ended.code == 6, ended
        assert f"the trusted peers in {home / FILE} cannot be read: is a directory" in ended.err
    asked = commands.run(
        home="trust", _SPACEBLOCK_COMPLETE="bash_complete", COMP_WORDS="spaceblock send --to l", COMP_CWORD="3"
    )
    assert (asked.out.strip(), asked.err) == ("", ""), "Tab finds nobody, and says nothing"


def test_trusted_peers_that_cannot_be_written_stay_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peers = TrustedPeers(tmp_path / FILE)
    peers.add(A, "laptop")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(spaceblock.StorageError, match=r"cannot be kept in .*: no space left"):
        peers.add(B, "desk")
    monkeypatch.undo()
    assert TrustedPeers(tmp_path / FILE).names == {A: "laptop"}
    assert os.listdir(tmp_path) == [FILE], "nothing unfinished is left"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("host:0", "host", 0), ("host", "host", 7), ("::1", "::1", 7), ("[::1]:65535", "::1", 65_535), ("[::]", "::", 7)],
)
def test_addresses_as_people_write_them(text: str, host: str, port: int) -> None:
    assert split_address(text, 7) == (host, port)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not an address"),
        (":5", "is not an address"),
        ("host:", "is not an address"),
        ("host:x", "is not an address"),
        ("host:-1", "is not an address"),
        ("host:1]", "is not an IPv6 address"),
        ("host:65536", "has no valid port"),
        ("[1:2]:5", "is not an IPv6 address"),
    ],
)
def test_what_is_no_address(text: str, reason: str) -> None:
    with pytest.raises(spaceblock.LocalProtocolError, match=reason):
        split_address(text, 7)


def test_without_the_package_nobody_is_found_by_a_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "zeroconf", None)
    for words in (["peers"], ["receive", "--announce", "desk"]):
        assert main(words) == 2
        assert "run pip install 'spaceblock[lan]'" in capsys.readouterr().err


def test_who_announces_itself_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("zeroconf")
    monkeypatch.setenv("SPACEBLOCK_HOME", str(tmp_path))
    found = [lan.Announced("My desk", A, ("192.0.2.7:4000", "[2001:db8::7]:4000")), lan.Announced("x", B, ("[::1]:1",))]

    async def browse(_: float) -> list[lan.Announced]:
        return found

    monkeypatch.setattr(lan, "browse", browse)
    assert main(["trust", A, "--name", "desk"]) == 0
    capsys.readouterr()
    assert main(["peers"]) == 0
    listed = f"My desk  {A}  192.0.2.7:4000 [2001:db8::7]:4000  trusted as desk\nx  {B}  [::1]:1\n"
    assert capsys.readouterr().out == listed
    found.clear()
    assert main(["peers"]) == 0
    assert capsys.readouterr().err.startswith("nobody announces itself on this network")


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
