"""What comes to go on with a transfer whose connection was lost."""

from __future__ import annotations

import asyncio
from typing import Any

from spaceblock.transfers.reunions import Successors


class Coming:
    """A transfer that was offered again."""

    def __init__(self) -> None:
        self.finished = asyncio.Event()

    def lose_connection(self, error: Exception) -> None:
        self.finished.set()


async def test_the_latest_that_came_is_meant_and_those_before_end() -> None:
    successors = Successors()
    coming: list[Any] = [Coming(), Coming()]
    for incoming in coming:
        successors.put(incoming)
    assert coming[0].finished.is_set()
    assert await successors.next(60.0) is coming[1]


async def test_what_is_lost_before_it_is_taken_is_not_taken() -> None:
    successors = Successors()
    coming: list[Any] = [Coming(), Coming()]
    successors.put(coming[0])
    coming[0].finished.set()
    waiting = asyncio.create_task(successors.next(60.0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    successors.put(coming[1])
    assert await waiting is coming[1]


async def test_nothing_comes_in_time() -> None:
    assert await Successors().next(0.0) is None
