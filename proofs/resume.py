"""Resume at size: what an interruption of one large file costs, with real commands on a real disk.

- *twice*: the sender and the receiver are killed twice each; what has to come again stays within four times what was
  not durable and in flight;
- *nearly*: both are killed when all but a hundredth is there; the next attempt has its first new byte within a second,
  and takes a tenth of a whole send and the time to read the file once;
- *healed*: both are killed, and a byte of the unfinished file is flipped; one block is sent once more.

Times are looked at for files of 1 GiB and more.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from spaceblock.blocks import BlockSize
from spaceblock.limits import FLIGHT_MAX, Limits

from .processes import PATIENCE, Command, free_port
from .support import MIB, Disproved, check, digest_of, unfinished, write_noise

PORTION = Limits().not_durable + FLIGHT_MAX
"""Bytes that one interruption may cost: what was not durable, and what was in flight."""

TIMED = 1024 * MIB
"""Bytes from which on a transfer takes so long that its times say something."""

NEARLY = 0.99
FIRST_BYTE = 1.0
"""Seconds until something new arrives, from the start of the sender's command on."""

_LOOK = 0.001


def configure(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m proofs resume``."""
    parser.add_argument("--size", type=int, default=2048, metavar="MIB", help="bytes to send where four are killed")
    parser.add_argument("--nearly", type=int, default=4096, metavar="MIB", help="bytes of which nearly all are there")
    parser.add_argument("--limit", type=int, metavar="MIB", help="send no faster than this a second")
    parser.add_argument("--folder", type=Path, help="where to work, on a real disk (default: for temporary files)")


def prove(options: argparse.Namespace) -> str:
    """Interrupt in three ways; raises :class:`Disproved`."""
    folder = Path(tempfile.mkdtemp(prefix="spaceblock-resume-", dir=options.folder))
    pair = Pair(folder, options.limit)
    try:
        report = [twice(pair, options.size * MIB), healed(pair, options.size * MIB)]
        report.append(nearly(pair, options.nearly * MIB))
    finally:
        pair.end()
    shutil.rmtree(folder)
    return "\n".join(report)


class Pair:
    """A receiver and a sender of one file, always by the same commands."""

    def __init__(self, folder: Path, limit: int | None) -> None:
        self.source = folder / "source" / "large"
        self.inbox = folder / "inbox"
        self._folder = folder
        self._limit = [] if limit is None else ["--limit", str(limit * MIB)]
        self._port = str(free_port())
        self._ticket = ""
        self._running: dict[str, Command] = {}

    def make(self, size: int, seed: int) -> None:
        """Another file, and nothing of it there."""
        shutil.rmtree(self.inbox, ignore_errors=True)
        self.inbox.mkdir()
        write_noise(self.source, size, seed)
        with self.source.open("rb") as source:
            os.fsync(source.fileno())  # the disk has nothing else to do then

    def receive(self) -> None:
        """Give the receiver's command."""
        where: list[str | Path] = ["--dir", self.inbox, "--listen", "127.0.0.1", "--port", self._port]
        receiver = self._start("receiver", ["receive", "--yes", *where])
        self._ticket = self._ticket or receiver.wait_for("ticket")["ticket"]
        receiver.wait_for("ticket")

    def send(self) -> Command:
        """Give the sender's command."""
        return self._start("sender", ["send", *self._limit, "--to", self._ticket, self.source])

    def kill(self, *sides: str) -> None:
        """End them without warning, at once."""
        for side in sides:
            self._running[side].process.kill()
        for side in sides:
            self._running.pop(side).wait()

    def end(self) -> None:
        """End what runs."""
        self.kill(*[side for side, command in self._running.items() if command.running()])

    def complete(self) -> dict[str, object]:
        """Send until it is done, and check what arrived; what the sender was told."""
        complete = self.finish()
        self.check()
        return complete

    def finish(self) -> dict[str, object]:
        """Send until it is done; what the sender was told."""
        deadline = time.monotonic() + PATIENCE
        sender = self._running.get("sender") or self.send()
        while sender.wait():
            told = sender.last("error") or {}
            check(told.get("exit_code") == 4 and time.monotonic() < deadline, f"the sender failed: {told}")
            sender = self.send()
        del self._running["sender"]
        complete = sender.last("complete")
        assert complete is not None
        return complete

    def check(self) -> None:
        """What arrived is what was sent, and nothing else is there."""
        check(digest_of(self.inbox / "large") == digest_of(self.source), "another file arrived than was sent")
        check(not unfinished(self.inbox), f"{unfinished(self.inbox)} are left behind")

    def wait_for_bytes(self, count: int) -> None:
        """Wait until the unfinished file has ``count`` bytes."""
        deadline = time.monotonic() + PATIENCE
        while self.there() < count:
            check((sender := self._running.get("sender")) and sender.running(), "the transfer is over too early")
            check(time.monotonic() < deadline, f"{count} bytes are not there after {PATIENCE:g} s")
            time.sleep(_LOOK)

    def there(self) -> int:
        """Bytes of the unfinished file."""
        sizes = [0]
        with suppress(FileNotFoundError):  # what the receiver tries the folder's names with goes again at once
            sizes += [path.stat().st_size for path in self.parts()]
        return max(sizes)

    def parts(self) -> list[Path]:
        """The unfinished file, if there is one."""
        return [path for folder in unfinished(self.inbox) for path in folder.iterdir() if path.name != "journal"]

    def resumed(self) -> int:
        """With how many bytes that were there before the sender of now goes on, once it does."""
        sender = self._running["sender"]
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = [record for record in sender.records if record["type"] in ("progress", "complete")]
            if found and (found[-1]["resumed"] or found[-1].get("bytes_done", 1)):
                return int(found[-1]["resumed"])
            if not sender.running() and sender.wait():
                sender = self.send()
            time.sleep(_LOOK)
        raise Disproved("a sender that was interrupted does not go on")

    def _start(self, side: str, words: list[str | Path]) -> Command:
        self._running[side] = command = Command(words, self._folder / f"home-{side}", self._folder / f"{side}.log")
        return command


def twice(pair: Pair, size: int) -> str:
    """Kill each side twice; what that costs."""
    pair.make(size, 1)
    pair.receive()
    pair.send()
    again = 0
    for fraction, side in ((0.2, "sender"), (0.4, "receiver"), (0.6, "sender"), (0.8, "receiver")):
        pair.wait_for_bytes(int(fraction * size))
        pair.kill(side)
        came = pair.there()
        if side == "receiver":
            pair.kill("sender")
            pair.receive()
        pair.send()
        again += max(came - pair.resumed(), 0)
    pair.complete()
    check(again <= 4 * PORTION, f"{again} bytes had to come again, and {4 * PORTION} may")
    return f"killed twice on each side: {again / MIB:.0f} of {size / MIB:.0f} MiB had to come again"


def healed(pair: Pair, size: int) -> str:
    """Flip a byte of what is there."""
    pair.make(size, 2)
    pair.send()
    pair.wait_for_bytes(size // 2)
    pair.kill("sender", "receiver")
    (part,) = pair.parts()
    with part.open("r+b") as file:
        file.seek(size // 4)
        flipped = bytes([file.read(1)[0] ^ 1])
        file.seek(size // 4)
        file.write(flipped)
    pair.receive()
    pair.send()
    complete = pair.complete()
    check(complete["resumed"], "nothing was resumed")
    repaired = complete["repaired"]
    assert isinstance(repaired, int)
    block = BlockSize.for_size(size)
    check(repaired == block, f"{repaired} bytes were sent once more, and a block has {block}")
    return f"a byte flipped in the unfinished file: {repaired} bytes were sent once more"


def nearly(pair: Pair, size: int) -> str:
    """Interrupt at the very end; how long the rest takes."""
    pair.make(size, 3)
    began = time.monotonic()
    pair.send()
    pair.finish()
    whole = time.monotonic() - began
    pair.check()
    (pair.inbox / "large").unlink()
    began = time.monotonic()
    digest_of(pair.source)
    reading = time.monotonic() - began

    pair.make(size, 4)
    pair.send()
    pair.wait_for_bytes(int(NEARLY * size))
    pair.kill("sender", "receiver")
    came = pair.there()
    check(came < size, "all was there before anything could be killed")
    pair.receive()
    began = time.monotonic()
    pair.send()
    pair.wait_for_bytes(came + 1)
    first = time.monotonic() - began
    complete = pair.finish()
    rest = time.monotonic() - began
    pair.check()
    check(complete["resumed"], "nothing was resumed")
    if size >= TIMED:
        check(first <= FIRST_BYTE, f"the first new byte came after {first:.2f} s")
        check(
            rest <= whole / 10 + reading,
            f"the rest took {rest:.2f} s; the whole {whole:.2f} s, reading {reading:.2f} s",
        )
    return (
        f"{came / size:.1%} of {size / MIB:.0f} MiB were there: the first new byte after {first:.2f} s, all after "
        f"{rest:.2f} s; a whole send takes {whole:.2f} s, reading {reading:.2f} s"
    )
