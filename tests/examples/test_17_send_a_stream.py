"""Send what has no known size: an asynchronous iterator, or what a program writes. Nothing is spooled."""

from __future__ import annotations

import asyncio
import io
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import spaceblock


async def rows() -> AsyncIterator[bytes]:
    for number in range(1000):
        yield b"%d,%d\n" % (number, number * number)
        await asyncio.sleep(0)


async def test_send_an_iterator_as_it_goes(downloads: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(spaceblock.Item(rows(), name="squares.csv"))
        offer = await anext(aiter(listener))
        assert offer.items[0].size is None
        assert not offer.items[0].rereadable
        await offer.accept(downloads)
        await sending

    assert (downloads / "squares.csv").read_bytes().endswith(b"999,998001\n")


def program() -> subprocess.Popen[bytes]:
    return subprocess.Popen(["echo", "hello"], stdout=subprocess.PIPE)


async def test_send_the_output_of_a_program_into_a_file_object() -> None:
    target = io.BytesIO()

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        with program() as running:
            sending = peer.send(running.stdout)
            offer = await anext(aiter(listener))
            await offer.accept(into=[target])
            await sending

    assert target.getvalue() == b"hello\n"


async def test_measure_without_keeping_anything() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(bytes(1_000_000))
        offer = await anext(aiter(listener))
        receipt = await offer.accept(into=[spaceblock.DISCARD])
        await sending

    assert receipt.bytes == 1_000_000
