"""A producer and a consumer of arrays: ``arrays.py consume`` prints a ticket for ``arrays.py produce TICKET``.

Each batch is one transfer of several named arrays, sent from where they lie and received into memory of their own; type
and shape travel in the names. The next batch is made while the one before it is on its way. A consumer that is slow
makes its producer wait, and neither holds more than two batches.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import numpy.typing as npt

import spaceblock

Arrays = dict[str, npt.NDArray[Any]]


def item_of(name: str, array: npt.NDArray[Any]) -> spaceblock.Item:
    """An array to send; its name says all that its bytes do not, such as ``weights.float32.128x64``."""
    shape = "x".join(map(str, array.shape))
    return spaceblock.Item(np.ascontiguousarray(array), name=f"{name}.{array.dtype.str[1:]}.{shape}")


def empty_for(item: spaceblock.OfferItem) -> tuple[str, npt.NDArray[Any]]:
    """A name, and room for the array; raises ``ValueError`` for what is not an array of ours."""
    if item.name is None or item.size is None:
        raise ValueError("an array has a name and a size")
    name, dtype, shape = item.name.rsplit(".", 2)
    array = np.empty([int(length) for length in shape.split("x")], np.dtype(dtype))
    if array.nbytes != item.size:
        raise ValueError(f"{item.name} has {item.size} bytes and not {array.nbytes}")
    return name, array


async def produce(ticket: str, batches: AsyncIterator[Arrays]) -> int:
    """Send every batch; returns how many bytes arrived."""
    sent = 0
    async with spaceblock.connect(ticket) as peer:
        sending: spaceblock.Transfer | None = None
        async for batch in batches:
            if sending is not None:
                sent += (await sending).bytes
            sending = peer.send(*(item_of(name, array) for name, array in batch.items()))
        if sending is not None:
            sent += (await sending).bytes
    return sent


async def consume(listener: spaceblock.Listener) -> AsyncIterator[Arrays]:
    """Batch after batch of one producer, until it leaves."""
    async for peer in listener.peers():
        async for offer in peer.offers():
            try:
                batch = dict(empty_for(item) for item in offer.items)
            except (ValueError, TypeError) as error:
                await offer.decline(f"these are no arrays: {error}")
                continue
            await offer.accept(into=list(batch.values()))
            yield batch
        return


async def random_batches(count: int) -> AsyncIterator[Arrays]:
    """Stands for whatever makes the data."""
    for number in range(count):
        source = np.random.default_rng(number)
        yield {"images": source.random((32, 64, 64), np.float32), "labels": source.integers(0, 10, 32)}


async def run_consumer() -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        print(listener.ticket, flush=True)
        async for batch in consume(listener):
            print(*(f"{name} {array.shape} mean {array.mean():.4f}" for name, array in batch.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Move batches of arrays from one process to another.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("consume")
    producer = commands.add_parser("produce")
    producer.add_argument("ticket")
    producer.add_argument("--batches", type=int, default=3)
    chosen = parser.parse_args()
    if chosen.command == "consume":
        asyncio.run(run_consumer())
    else:
        print(asyncio.run(produce(chosen.ticket, random_batches(chosen.batches))), "bytes arrived")


if __name__ == "__main__":
    main()
