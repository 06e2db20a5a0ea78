"""What the receiver's state machine has its caller do, and tells it."""

from __future__ import annotations

from dataclasses import field

from ..blocks import SpaceblockRequests
from ..errors import SpaceblockError
from ..process.lazily import dataclass
from ..wire.manifest import Manifest
from ..wire.messages import Outcome


@dataclass(frozen=True, slots=True)
class Offered:
    """The offer is whole and its numbers make sense; names are still to be checked."""

    requests: SpaceblockRequests
    manifest: Manifest | None


@dataclass(frozen=True, slots=True)
class Amended:
    """The sender answered :meth:`.Receiver.ask_for_names`; ``changed`` says whether it gave any other name."""

    manifest: Manifest
    changed: bool


@dataclass(frozen=True, slots=True)
class ItemAgreed:
    """Both digests of this item are equal: put it into place."""

    item: int
    digest: bytes = field(default=b"", compare=False)


@dataclass(frozen=True, slots=True)
class ItemConfirmed:
    """This item is what was to be sent, and in its place since an earlier attempt."""

    item: int


@dataclass(frozen=True, slots=True)
class ItemRestarts:
    """What there was of this item is not the beginning of what is sent."""

    item: int


@dataclass(frozen=True, slots=True)
class ItemDiffers:
    """The digests of this item differ: hash its blocks and call :meth:`.Receiver.blocks_hashed`."""

    item: int


@dataclass(frozen=True, slots=True)
class ItemDamaged:
    """``size`` bytes of this item are not what was sent, and were asked for once more."""

    item: int
    size: int


@dataclass(frozen=True, slots=True)
class ItemSpoilt:
    """The digests of this item differ for good: set it aside."""

    item: int


@dataclass(frozen=True, slots=True)
class ItemLost:
    """This item will not come, or is not what was sent: drop what there is of it."""

    item: int
    error: SpaceblockError


@dataclass(frozen=True, slots=True)
class Settled:
    """Every item has come to its end and Verified is queued; ``errors`` are those of the items that failed."""

    outcomes: tuple[Outcome, ...]
    errors: dict[int, SpaceblockError]


@dataclass(frozen=True, slots=True)
class Finished:
    """The sender knows the outcome: nothing is left to say."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The transfer ended with this error."""

    error: SpaceblockError


ReceiverEvent = (
    Offered
    | Amended
    | ItemAgreed
    | ItemConfirmed
    | ItemRestarts
    | ItemDiffers
    | ItemDamaged
    | ItemSpoilt
    | ItemLost
    | Settled
    | Finished
    | Failed
)
