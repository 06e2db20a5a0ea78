"""Drives one side's state machine step by step, and lets a peer say what an input makes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from spaceblock.errors import RemoteProtocolError, SpaceblockError
from spaceblock.protocol.receiver import Receiver
from spaceblock.protocol.sender import Sender
from spaceblock.wire.messages import Message, decode_message

from .choices import Choices, piece

STEPS_MAX = 200


def driven(side: Receiver | Sender, steps: Sequence[Callable[[], object]], choices: Choices) -> Iterator[list[object]]:
    """Do what the choices say; yields each step's events, and checks that what they lead to can be written."""
    for _ in range(STEPS_MAX):
        if not choices:
            return
        try:
            events = steps[choices.below(len(steps))]()
        except SpaceblockError as error:
            events = side.fail(error)
        yield events if isinstance(events, list) else []
        for message in side.messages_to_send():
            assert message.encode()


def hear(choices: Choices, receive: Callable[[Message], object]) -> object:
    """A step in which the peer says anything; what is no message is not received."""
    kind, payload = choices.byte(), choices.piece()
    message = None
    with contextlib.suppress(RemoteProtocolError):
        message = decode_message(kind, payload)
    return None if message is None else receive(message)


def said(message: Message) -> bytes:
    """What makes :func:`hear`, as the first of the steps, say ``message``: one with a length of one or two bytes."""
    encoded = message.encode()
    return b"\0" + encoded[:1] + piece(encoded[2 if encoded[1] < 0x40 else 3 :])
