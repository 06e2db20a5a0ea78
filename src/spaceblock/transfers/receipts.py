"""Receipts: what both sides agreed on, told to this side's user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from ..core import make_records
from ..errors import SpaceblockError
from ..events import Receipt, ReceiptItem
from ..wire.manifest import Entry, renamed
from ..wire.messages import Outcome, OutcomeKind


def receipt_of(
    uuid: str,
    peer_id: str,
    ends: Iterable[tuple[int, str | None, Outcome]],
    *,
    is_compared: Callable[[int], bool],
    before: Sequence[Entry],
    after: Sequence[Entry],
    seconds: float,
    resumed: int,
    repaired: int,
) -> Receipt:
    """The receipt for items by index, offered name and outcome; those that failed are left out.

    ``is_compared`` tells those that did not travel. ``before`` are the entries that were offered, ``after``
    those that were agreed on.
    """
    rows = (
        (
            item,
            name,
            outcome.name or None,
            outcome.size,
            outcome.digest.hex(),
            outcome.kind is OutcomeKind.SKIPPED or is_compared(item),
        )
        for item, name, outcome in ends
        if outcome.kind is not OutcomeKind.FAILED
    )
    items = tuple(make_records(ReceiptItem, rows))
    moved = sum(item.size for item in items if not item.skipped)
    places = {item.index: item.path for item in items if item.path is not None}
    names = renamed(before, after, places) if before and after else {}
    return Receipt(uuid, peer_id, items, moved, seconds, names, resumed, repaired)


def given(receipt: Receipt, error: SpaceblockError | None) -> Receipt:
    """``receipt``, or raise ``error`` with it."""
    if error is not None:
        error.receipt = receipt
        raise error
    return receipt
