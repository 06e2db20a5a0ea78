# Invariant: a payload is a message or a RemoteProtocolError, never anything else; a message that was read can be
# written, reads as itself again, and is written the same way every time.
"""Every message of the wire."""

from __future__ import annotations

from collections.abc import Hashable

from spaceblock.core import decode_uint_var
from spaceblock.errors import RemoteProtocolError
from spaceblock.limits import MESSAGE_PAYLOAD_MAX
from spaceblock.wire.manifest import Manifest
from spaceblock.wire.messages import ManifestPage, MessageType, decode_message

from .choices import Choices, kind_of
from .vectors import wire_vectors


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    message_type = choices.byte()
    payload = choices.rest()
    try:
        message = decode_message(message_type, payload)
    except RemoteProtocolError as error:
        return message_type, kind_of(error)
    if message is None:
        assert message_type & 1
        assert message_type not in set(MessageType)
        return "ignored"
    written = message.encode()
    found_type, pos = decode_uint_var(written)
    size, pos = decode_uint_var(written, pos)
    assert found_type == message_type
    assert size == len(written) - pos <= MESSAGE_PAYLOAD_MAX
    again = decode_message(found_type, written[pos:])
    assert again == message
    assert message.encode() == written
    if isinstance(message, ManifestPage):
        _check_manifest(message, choices.byte())
    return type(message).__name__, len(written) == len(payload) + 2


def seeds() -> dict[str, bytes]:
    found = {}
    for name, data in wire_vectors().items():
        message_type, pos = decode_uint_var(data)
        _, pos = decode_uint_var(data, pos)
        if message_type != MessageType.BLOCK:
            found[name] = bytes([message_type]) + data[pos:]
    return found


def _check_manifest(page: ManifestPage, items: int) -> None:
    try:
        Manifest.checked(page.entries, items)
    except RemoteProtocolError:
        return
    named = [entry.item for entry in page.entries if entry.item is not None]
    assert len(named) == len(set(named))
    assert all(item < items for item in named)
