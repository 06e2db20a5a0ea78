"""``spaceblock bench``: two real processes, what they report, and how their failures reach the user."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from blake3 import blake3

from commands import PATIENCE, Commands
from spaceblock.cli.bench.measure import MIB, Report, content, touched
from spaceblock.cli.bench.pair import SIDE, Pair, check, cpu_per_gib, move, run_pair, write_source
from spaceblock.cli.quantities import parse_size
from spaceblock.errors import ConnectionLost, IntegrityError, InternalError, NoSpace, Stalled
from spaceblock.quic import ConnectionEnded

HAS_NATIVE = sys.version_info >= (3, 11) and find_spec("spaceblock.quic.native.engine") is not None
ENGINES = ["aioquic", pytest.param("native", marks=pytest.mark.skipif(not HAS_NATIVE, reason="it is not built"))]


# The command.


@pytest.mark.parametrize("engine", ENGINES)
def test_json_has_a_line_for_each_kind(commands: Commands, engine: str) -> None:
    ended = commands.run("bench", "--size", "300kB", "--datagram", "1300", "--engine", engine, "--json")
    assert (ended.code, ended.err) == (0, "")
    assert [line["kind"] for line in ended.objects] == ["memory", "file"]
    for line in ended.objects:
        assert line["type"] == "bench"
        assert (line["bytes"], line["datagram"], line["engine"]) == (300_000, 1300, engine)
        assert line["aead"] in ("evp", "ipsec-mb")
        assert line["rate"] == pytest.approx(line["bytes"] / line["seconds"])
        assert line["cpu_per_gib"] == pytest.approx(line["cpu_per_gib_receiver"] + line["cpu_per_gib_sender"])
        assert line["digest"] == blake3(content(300_000)).hexdigest()
        assert line["agreed"] is True


def test_people_read_figures_on_standard_output_and_talk_on_standard_error(commands: Commands) -> None:
    ended = commands.run("bench", "--size", "64KiB", "--engine", "aioquic")
    assert ended.code == 0, ended
    memory, file = ended.out.splitlines()
    assert memory.startswith("memory to memory")
    assert file.startswith("file to file")
    for line in (memory, file):
        assert "MB/s" in line
        assert "CPU s/GiB (receiver " in line
        assert "aioquic engine, AEAD evp, digests agree" in line
    assert "moving 65.5 kB between two processes, in datagrams of 1452 bytes" in ended.err


@pytest.mark.skipif(not HAS_NATIVE, reason="it is not built")
def test_it_tells_which_aead_back_end_was_chosen(commands: Commands) -> None:
    ended = commands.run("bench", "--size", "1MiB", "--engine", "native", "--json", SPACEBLOCK_AEAD="evp")
    assert [line["aead"] for line in ended.objects] == ["evp", "evp"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "much"], "'much' is not a size: write 1GiB, 500MB or a number of bytes"),
        (["--size", "0"], "nothing can be measured without bytes"),
        (["--size", "900TiB"], "are free: choose less"),
        (["--datagram", "100"], "datagram_size is 100: choose 1200 to 65507 bytes"),
        (["--engine", "warp"], "'warp' is not one of"),
    ],
)
def test_what_cannot_be_is_wrong_usage(commands: Commands, words: list[str], message: str) -> None:
    ended = commands.run("bench", *words)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err


def test_an_interrupt_ends_both_sides_and_removes_the_files(commands: Commands) -> None:
    bench = commands.start("bench", "--size", "20MB", "--engine", "aioquic", terminal=True)
    bench.terminal.wait_for("\r\nfiles in ")
    ended = bench.end(signal.SIGINT)
    assert ended.code == 130
    folder = re.search("^files in (.*)\r$", ended.err, re.MULTILINE)
    assert folder is not None
    assert not Path(folder[1]).exists()


# What it shares with the project's benchmarks.


def test_a_file_is_moved_between_two_processes(tmp_path: Path) -> None:
    write_source(tmp_path, MIB + 1)
    pair = move("file", MIB + 1, tmp_path, ["--engine", "aioquic"])
    assert pair.receiver["landed"] == pair.sender["digest"] == blake3(content(MIB + 1)).hexdigest()
    assert pair.cpu > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source"]


def test_the_error_of_a_side_is_raised_here() -> None:
    failing = 'import sys; print(\'{"error": {"code": "no_space", "message": "the disk is full"}}\'); sys.exit(6)'
    with pytest.raises(NoSpace, match="the disk is full"):
        run_pair([sys.executable, "-c", failing], [sys.executable, "-c", ""])
    waiting = "print('word', flush=True); input()"
    with pytest.raises(NoSpace, match="the disk is full"):
        run_pair([sys.executable, "-c", waiting], [sys.executable, "-c", failing])


def test_an_error_of_the_transport_has_the_kind_that_its_code_has_for_everybody() -> None:
    failing = 'import sys; print(\'{"error": {"code": "connection_lost", "message": "gone"}}\'); sys.exit(4)'
    assert ConnectionEnded.code == ConnectionLost.code
    with pytest.raises(ConnectionLost, match="gone"):
        run_pair([sys.executable, "-c", failing], [sys.executable, "-c", ""])


def test_a_side_that_says_nothing_or_takes_too_long_is_an_error() -> None:
    with pytest.raises(InternalError, match="the receiving side ended early with status 3"):
        run_pair([sys.executable, "-c", "raise SystemExit(3)"], [])
    waiting = [sys.executable, "-c", "print('word', flush=True); input()"]
    with pytest.raises(Stalled, match=r"the sending side took more than 0\.01 seconds"):
        run_pair(waiting, waiting, timeout=0.01)


def test_a_side_ends_with_the_process_that_started_it() -> None:
    words = ["receive", "--size", "1", "--engine", "aioquic"]
    side = subprocess.Popen([*SIDE, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with side:
        assert side.stdout is not None
        assert side.stdout.readline()
        assert side.stdin is not None
        side.stdin.close()
        assert side.wait(PATIENCE) == 1


def test_bytes_that_did_not_arrive_are_an_integrity_error() -> None:
    check(Pair(Report(digest="a", landed="a"), Report(digest="a")))
    for receiver in (Report(digest="b", landed="a"), Report(digest="a", landed="b")):
        with pytest.raises(IntegrityError):
            check(Pair(receiver, Report(digest="a")))


@pytest.mark.parametrize(
    ("text", "size"),
    [("1GiB", 2**30), ("64M", 2**26), ("1.5 KiB", 1536), ("500MB", 500_000_000), ("3kb", 3000), ("17", 17)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1 XiB", "1e9", "1GiB or so"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_content_has_its_size_and_is_always_the_same() -> None:
    assert content(0) == b""
    assert len(content(2 * MIB + 3)) == 2 * MIB + 3
    assert content(MIB + 5) == content(2 * MIB)[: MIB + 5]
    assert touched(5000) == bytes(5000)


def test_cpu_seconds_are_told_for_each_gib() -> None:
    assert cpu_per_gib(0.5, 2**29) == 1.0
