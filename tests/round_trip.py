"""A program that sends itself the same twice, and prints where the package is and which core it uses."""

from __future__ import annotations

import asyncio

import spaceblock
from spaceblock import core

DATA = bytes(range(250)) * 400


async def main() -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        for _ in range(2):
            target = bytearray(len(DATA))
            sending = peer.send(DATA)
            await (await anext(aiter(listener))).accept(into=[target])
            await sending
            assert target == DATA
    print(spaceblock.__file__, core.IMPLEMENTATION)


if __name__ == "__main__":
    asyncio.run(main())
