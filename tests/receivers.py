"""Receiver's state machines in the states that tests begin with, and what moves them on."""

from __future__ import annotations

from collections.abc import Sequence

from spaceblock.blocks import SpaceblockRequests
from spaceblock.limits import Limits
from spaceblock.protocol.receiver import Receiver, State
from spaceblock.protocol.receiver_events import ItemAgreed, ReceiverEvent
from spaceblock.wire.messages import ItemDigest, ItemEnd, Message, pages_of_requests
from support import requests_of

DIGEST = bytes(32)
OTHER_DIGEST = bytes(31) + b"\1"
STREAM, OTHER_STREAM = 1, 2


def offered(requests: SpaceblockRequests, limits: Limits | None = None) -> Receiver:
    """A receiver that has read a whole offer."""
    receiver = Receiver(limits or Limits())
    for page in pages_of_requests(requests, False):
        receiver.receive_message(page)
    assert receiver.state is State.OFFERED
    return receiver


def moving(*sizes: int | None, skip: Sequence[int] = ()) -> Receiver:
    """A receiver that has accepted items of these sizes."""
    receiver = offered(requests_of(*sizes))
    receiver.accept(skip)
    receiver.messages_to_send()
    return receiver


def bring(receiver: Receiver, item: int, size: int, stream: int = STREAM) -> None:
    """All bytes of an item, and its end."""
    if size:
        assert receiver.block(stream, item, 0, size)
    assert receiver.item_end(stream, ItemEnd(item, size))


def complete(receiver: Receiver, item: int, size: int, name: str = "") -> list[ReceiverEvent]:
    """An item from its first byte to its place."""
    bring(receiver, item, size)
    assert receiver.item_stored(item, size, DIGEST) == []
    assert receiver.receive_message(ItemDigest(item, size, DIGEST)) == [ItemAgreed(item)]
    return receiver.item_placed(item, name, durable=True)


def only_message(receiver: Receiver) -> Message:
    (message,) = receiver.messages_to_send()
    return message
