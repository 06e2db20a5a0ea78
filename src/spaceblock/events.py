"""What a transfer tells its user: figures while it runs, a receipt when it is done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum

from .blocks import Range
from .process.lazily import dataclass


class Phase(str, Enum):
    """What a transfer is doing or waiting for; the value is the word that users read."""

    PREPARING = "preparing"
    CONNECTING = "connecting"
    OFFERING = "waiting for the answer"
    NAMES = "waiting for other names"
    MOVING = "transferring"
    SOURCE = "waiting for the sender's program"
    SINK = "waiting for the receiver's program"
    DISK = "waiting for the receiver's disk"
    USER = "waiting for the receiver's user"
    VERIFYING = "verifying"
    RECONNECTING = "connecting again"
    CLOSING = "closing"
    DONE = "done"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True)
class ItemProgress:
    """One look at the item that moves; of several at once, the one that began first.

    ``bytes_done`` counts what the receiver has of it; the sender knows that from acknowledgements. ``bytes_total`` is
    None while the size is unknown; ``rate`` is in bytes a second over the last seconds, ``eta`` in seconds.
    """

    index: int
    name: str | None
    bytes_done: int
    bytes_total: int | None
    rate: float
    eta: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """One look at a transfer.

    ``bytes_done`` counts what the receiver has: on the sender it is the receiver's own report, never what was merely
    queued. ``bytes_total`` is None while a size is unknown; ``rate`` is in bytes a second over the last seconds;
    ``eta`` is in seconds. ``verified`` bytes agreed with the sender's digest, ``durable`` ones survive a loss of power.
    ``item`` is the item that moves, ``current`` its name; both are None between items. ``resumed`` of the bytes done
    were with the receiver before, from an attempt that broke off.
    """

    phase: Phase
    bytes_done: int
    bytes_total: int | None
    rate: float
    eta: float | None
    verified: int
    durable: int
    items_done: int
    items_total: int
    current: str | None
    item: ItemProgress | None = None
    resumed: int = 0


@dataclass(frozen=True, slots=True)
class ReceiptItem:
    """One item that arrived.

    ``name`` is the name it was offered under (None: unnamed); ``path`` is where it is now, relative to the target
    folder, as the receiver told it (None: a buffer). ``size`` is in bytes, ``digest`` is BLAKE3 as 64 hex characters.
    ``skipped`` items did not travel: their names were taken. One with a digest is there already, byte for byte, as
    both sides found; one without has something else there under its name.
    """

    index: int
    name: str | None
    path: str | None
    size: int
    digest: str
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """What both sides agree on at the end: every item, the bytes moved and how long it took in seconds.

    ``renamed`` leads from the name that a file or folder was offered under to the one that it has now, where the two
    differ. Of names that the receiver's user chose for folders, the sender does not hear. ``resumed`` of the bytes were
    with the receiver before, from an attempt that broke off, and ``repaired`` ones were sent once more because what had
    arrived of them was not what was sent.
    """

    uuid: str
    peer: str
    items: tuple[ReceiptItem, ...]
    bytes: int
    seconds: float
    renamed: Mapping[str, str] = field(default_factory=dict)
    resumed: int = 0
    repaired: int = 0


@dataclass(frozen=True, slots=True)
class OfferItem:
    """One item of an offer. ``name`` is None for an unnamed buffer, ``size`` None where it is not known yet; ``range``
    is the part of the item that would travel. ``rereadable`` is false for what the sender can read only once, such as
    a pipe, which can be neither resumed nor repaired. A folder or link for which another name is wanted has the index
    -1."""

    index: int
    name: str | None
    size: int | None
    range: Range
    rereadable: bool = True
