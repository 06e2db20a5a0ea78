"""More of the command line: limits, ports, IPv6, verbose words, long lists, the doctor."""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path

import pytest

from commands import Commands
from records import assert_promised
from spaceblock.cli import main
from spaceblock.cli.doctor import cpu_flags, examine, text_of
from spaceblock.cli.quantities import parse_ports, parse_size
from spaceblock.options import why_not_native

LOCAL = ("--listen", "127.0.0.1:0")


@pytest.fixture
def report(tmp_path: Path) -> Path:
    path = tmp_path / "report.pdf"
    path.write_bytes(b"%PDF" * 100_000)
    return path


@pytest.mark.parametrize(("text", "size"), [("500K", 512_000), ("10M", 10_485_760), ("1G", 2**30), ("10MB", 10**7)])
def test_rates_are_sizes_a_second(text: str, size: int) -> None:
    assert parse_size(text) == size


def test_ports_and_ranges() -> None:
    assert parse_ports("4000") == 4000
    assert parse_ports("0") == 0
    assert parse_ports("4000-4010") == range(4000, 4011)
    assert parse_ports("65535-65535") == 65_535
    for text in ("", "x", "70000", "4010-4000", "0-10", "4000-", "-1", "4000-70000"):
        with pytest.raises(ValueError, match="is not a port"):
            parse_ports(text)


def test_a_limited_sender_sends_everything(commands: Commands, inbox: Path, report: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once")
    assert commands.run("send", "--limit", "2M", "--to", receiver.read_line(), report).code == 0
    assert receiver.end().code == 0
    assert (inbox / "report.pdf").read_bytes() == report.read_bytes()


@pytest.mark.parametrize("limit", ["fast", "12", "-1"])
def test_a_limit_that_is_none(commands: Commands, report: Path, limit: str) -> None:
    ended = commands.run("send", "--limit", limit, report)
    assert ended.code == 2
    assert "--limit" in ended.err


def test_a_range_of_ports_serves_two_at_once(commands: Commands, inbox: Path, report: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        first = min(probe.getsockname()[1], 65_000)
    words = ("receive", "--listen", "127.0.0.1", "--port", f"{first}-{first + 20}", "--dir", inbox, "--yes", "--once")
    receivers = [commands.start(*words), commands.start(*words)]
    for receiver in receivers:
        assert commands.run("send", "--to", receiver.read_line(), report).code == 0
        assert receiver.end().code == 0
    assert len(os.listdir(inbox)) == 2
    assert commands.run("receive", *LOCAL, "--port", "x").code == 2
    assert commands.run("receive", "--listen", "127.0.0.1:4000", "--port", "4000").code == 2


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="there is no IPv6 here")
@pytest.mark.parametrize("address", ["[::1]:0", None])
def test_ipv6_and_both(commands: Commands, inbox: Path, report: Path, address: str | None) -> None:
    where = () if address is None else ("--listen", address)
    receiver = commands.start("receive", *where, "--dir", inbox, "--yes", "--once")
    sent = commands.run("send", "--to", receiver.read_line(), report)
    assert (sent.code, receiver.end().code) == (0, 0), sent
    assert (inbox / "report.pdf").read_bytes() == report.read_bytes()


def test_verbose_tells_where_and_how(commands: Commands, inbox: Path, report: Path) -> None:
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--yes", "--once", "-v")
    sent = commands.run("send", "-v", "--to", receiver.read_line(), report)
    received = receiver.end()
    assert "listening at 127.0.0.1:" in received.err
    assert ", which runs spaceblock; " in sent.err
    assert f"{'aioquic' if why_not_native() else 'native'} engine" in sent.err


def test_a_long_offer_is_summed_up_and_listed_on_request(commands: Commands, inbox: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(60):
        (photos / f"{number:02}.jpg").write_bytes(bytes(1_000))
    note = tmp_path / "note.txt"
    note.write_text("look")
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", terminal=True)
    sender = commands.start("send", "--to", receiver.read_line(), photos, note)
    receiver.terminal.wait_for("Accept? [y/N, l: list all]")
    receiver.terminal.type("l\n")
    receiver.terminal.wait_for("photos/59.jpg")
    receiver.terminal.type("y\n")
    received = receiver.end()
    assert (sender.end().code, received.code) == (0, 0)
    before, _, after = received.err.partition("list all]")
    assert "  60.0 kB  photos/  60 items" in before
    assert "      4 B  note.txt" in before
    assert "photos/00.jpg" not in before
    assert after.count(".jpg") >= 60
    assert " free)" in before


def test_a_quiet_receiver_is_told_what_it_is_asked_about(commands: Commands, inbox: Path, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number:02}.txt" for number in range(25)]
    for path in paths:
        path.write_text("x")
    receiver = commands.start("receive", *LOCAL, "--dir", inbox, "--once", "--quiet", terminal=True)
    sender = commands.start("send", "--to", receiver.read_line(), *paths)
    receiver.terminal.wait_for("Accept? [y/N, l: list all]")
    receiver.terminal.type("L\n")
    receiver.terminal.wait_for("Accept?", times=2)
    receiver.terminal.type(" YES \n")
    received = receiver.end()
    assert (sender.end().code, received.code) == (0, 0)
    before, _, after = received.err.partition("list all]")
    assert "What  25 items, 25 B\r\nInto  " in before
    assert "      1 B  18.txt\r\n           ... and 6 more\r\n" in before
    assert "19.txt" not in before
    assert after.count(".txt") == 25
    assert received.err.count("Accept? ") == 2


# When it is our own fault.


def test_a_mistake_of_our_own_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("spaceblock.cli.spaceblock.main", lambda *_, **__: 1 // 0)
    assert main(["id", "--json"]) == 1
    written = capsys.readouterr()
    found = json.loads(written.out)
    assert_promised(found)
    assert (found["code"], found["exit_code"]) == ("internal", 1)
    for text in (found["message"], written.err):
        assert "failed unexpectedly: ZeroDivisionError" in text
        assert "report this" in text
        assert "Traceback" not in text


# The doctor.


def test_the_doctor_looks_at_everything(commands: Commands) -> None:
    ended = commands.run("doctor")
    assert ended.code == 0, ended
    for check in ("engine", "receive buffer", "send buffer", "sending in trains", "receiving in trains", "event loop"):
        assert f"  {check} " in ended.out
    told = {found["check"]: found for found in commands.run("doctor", "--json").objects}
    assert told["engine"]["found"].startswith("aioquic" if why_not_native() else "native")
    assert all(found["status"] == "good" or found["advice"] for found in told.values())


def test_the_doctor_says_what_to_change(commands: Commands, tmp_path: Path) -> None:
    slow = commands.run("doctor", SPACEBLOCK_ENGINE="aioquic")
    assert slow.code == 0
    assert "slow  engine" in slow.out
    broken = tmp_path / "identity.pem"
    broken.write_text("no key")
    broken.chmod(0o600)
    bad = commands.run("doctor", "--identity", broken)
    assert bad.code == 1
    assert "bad   key" in bad.out
    assert commands.run("doctor", SPACEBLOCK_ENGINE="warp").code == 1


def test_small_buffers_and_missing_offloads_come_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spaceblock.quic.sockets.granted_buffers", lambda: (212_992, 212_992))
    monkeypatch.setattr("spaceblock.quic.sockets.offloads", lambda: (False, False))
    found = {finding.check: finding for finding in examine()}
    for check in ("receive buffer", "send buffer", "sending in trains", "receiving in trains"):
        assert found[check].status == "slow"
        assert found[check].advice
    if sys.platform == "linux":
        assert "net.core.rmem_max=4194304" in (found["receive buffer"].advice or "")
    assert "213 kB of 4.19 MB" in text_of(found["receive buffer"]).splitlines()[0]


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("processor : 0\nflags\t\t: fpu aes avx2\n", {"fpu", "aes", "avx2"}),
        ("processor\t: 0\nFeatures\t: fp asimd aes\n", {"fp", "asimd", "aes"}),
    ],
)
def test_what_the_processor_can_do(tmp_path: Path, text: str, flags: set[str]) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert set(cpu_flags(str(path)) or ()) == flags
    assert cpu_flags(str(tmp_path / "missing")) is None
