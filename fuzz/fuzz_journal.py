# Invariant: whatever became of a journal's file, opening it raises nothing, and what it then says is what it said after
# some of its records: those that lie whole before the first byte that is not as it was written. Bytes that nobody with
# the key wrote are never believed, and neither is a journal of another transfer, of another peer or with another key.
"""The journal of a transfer: written, then torn, changed, swapped or forged, and opened again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Hashable
from copy import deepcopy
from dataclasses import replace

from spaceblock.storage.journal import ITEM_KEY_SIZE, JOURNAL, Contents, Journal, Keeper, Part, Placing
from spaceblock.storage.records import MAGIC

from .choices import Choices, piece

UUID = bytes(16)
KEEPER = Keeper("a" * 52, bytes(range(32)))
DIGEST = bytes(range(32))
ITEMS = 4
STEPS_MAX = 40

Said = list[tuple[int, Contents]]
"""What a journal says when it is so many bytes long."""


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    with tempfile.TemporaryDirectory() as path:
        folder = os.open(path, os.O_RDONLY)
        try:
            return _forged(choices, folder) if choices.byte() & 1 else _damaged(choices, folder)
        finally:
            os.close(folder)


def seeds() -> dict[str, bytes]:
    def part(item: int, offset: int) -> bytes:
        return bytes([0, item]) + offset.to_bytes(4, "big") + b"\1"

    def placing(item: int, name: str) -> bytes:
        return bytes([1, item]) + piece(name.encode())

    written = part(0, 1 << 20) + part(1, 5) + part(0, 2 << 20) + placing(1, "a/b") + b"\2\0" + part(2, 9)
    opened = b"\7"
    return {
        "whole": b"\0" + written + opened + b"\0",
        "cut": b"\0" + written + opened + b"\1\1\x40",
        "flipped": b"\0" + written + opened + b"\2\1\x40\x80",
        "torn": b"\0" + written + opened + b"\3\0\x90" + piece(b"\0" * 60),
        "twice": b"\0" + written + opened + b"\4\0\x60\0\x40",
        "written-on": b"\0" + part(3, 7) + b"\3" + part(2, 8) + b"\3\2\3" + opened + b"\1\0\x80",
        "foreign": b"\0" + written + opened + b"\5\1",
        "foreign-key": b"\0" + written + b"\4" + part(1, 77) + opened + b"\5\4",
        "forged": b"\1" + MAGIC + b"\x30\0\0\0\1" + bytes(64),
        "forged-length": b"\1" + MAGIC + b"\xff\xff\xff\xff\1" + bytes(64),
    }


def _forged(choices: Choices, folder: int) -> Hashable:
    """Any bytes at all, under the journal's name."""
    _write(folder, choices.rest())
    assert Journal.open(folder, UUID, KEEPER, False) is None
    return "forged"


def _damaged(choices: Choices, folder: int) -> Hashable:
    said, before = _written(choices, folder)
    data = _read(folder)
    assert said[-1][0] == len(data)
    changed, uuid, keeper, kind = _change(choices, data)
    _write(folder, changed)
    journal = Journal.open(folder, uuid, keeper, False)
    sound = next((at for at, pair in enumerate(zip(data, changed, strict=False)) if pair[0] != pair[1]), len(changed))
    sound = min(sound, len(data))
    if (uuid, keeper) != (UUID, KEEPER) or sound < said[0][0]:
        assert journal is None
        return kind, before, "not believed"
    assert journal is not None
    try:
        end, contents = [pair for pair in said if pair[0] <= sound][-1]
        assert journal.contents == contents
        assert len(_read(folder)) == end
        _goes_on(journal, folder, contents)
    finally:
        journal.close()
    return kind, before, len(contents.parts), len(contents.placings)


def _written(choices: Choices, folder: int) -> tuple[Said, Hashable]:
    """Write a journal as the choices say; what it said after each record, and how often it was opened on the way."""
    journal = Journal.create(folder, UUID, KEEPER, False)
    said: Said = [(len(_read(folder)), Contents())]
    opened = 0
    try:
        for _ in range(STEPS_MAX):
            step = choices.below(8)
            if step == 7 or not choices:
                break
            key = bytes([choices.below(ITEMS)]) * ITEM_KEY_SIZE
            if step == 0:
                offset = choices.number(4)
                journal.durable_up_to([(key, Part(choices.byte(), offset, offset // 2, DIGEST))])
            elif step == 1:
                name = choices.piece().decode(errors="replace")[:200] or "name"
                journal.placing([(key, Placing(7, len(name), -len(name), DIGEST, name))])
            elif step == 2:
                journal.dropped(key)
            elif step == 4:
                journal.made([choices.piece().decode(errors="replace")[:200]])
            elif step == 3:
                journal.close()
                again = Journal.open(folder, UUID, KEEPER, False)
                assert again is not None
                assert again.contents == said[-1][1]
                journal, opened = again, opened + 1
            said.append((len(_read(folder)), deepcopy(journal.contents)))
    finally:
        journal.close()
    return said, min(opened, 3)


def _change(choices: Choices, data: bytes) -> tuple[bytes, bytes, Keeper, str]:
    """What becomes of the file, and who opens it for which transfer."""
    kind = choices.below(6)
    at = choices.number(2) % (len(data) + 1)
    if kind == 1:
        return data[:at], UUID, KEEPER, "cut"
    if kind == 2:
        flipped = bytearray(data)
        flipped[at % len(data)] ^= choices.byte() or 1
        return bytes(flipped), UUID, KEEPER, "flipped"
    if kind == 3:
        return data[:at] + choices.piece(), UUID, KEEPER, "torn"
    if kind == 4:
        return data + data[at : at + choices.number(2)], UUID, KEEPER, "said twice"
    if kind == 5:
        others = (
            (bytes([1]) * 16, KEEPER),
            (UUID, replace(KEEPER, peer_id="b" * 52)),
            (UUID, replace(KEEPER, key=bytes(32))),
        )
        return (data, *others[at % 3], "foreign")
    return data, UUID, KEEPER, "whole"


def _goes_on(journal: Journal, folder: int, contents: Contents) -> None:
    """What is written behind what was believed is believed the next time."""
    expected = deepcopy(contents)
    expected.parts[bytes(ITEM_KEY_SIZE)] = part = Part(1, 2, 1, DIGEST)
    journal.durable_up_to([(bytes(ITEM_KEY_SIZE), part)])
    again = Journal.open(folder, UUID, KEEPER, False)
    assert again is not None
    assert again.contents == expected
    again.close()


def _read(folder: int) -> bytes:
    fd = os.open(JOURNAL, os.O_RDONLY, dir_fd=folder)
    with open(fd, "rb") as file:
        return file.read()


def _write(folder: int, data: bytes) -> None:
    fd = os.open(JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=folder)
    with open(fd, "wb") as file:
        file.write(data)
