"""Send and receive files, folders and buffers between two computers over QUIC, verified by BLAKE3 on both ends.

:func:`listen` waits for peers with a ticket, :func:`connect` goes to one; both give a :class:`Peer`, on which
:meth:`Peer.send` and :meth:`Offer.accept` start a :class:`Transfer`. :mod:`spaceblock.sync` does the same for programs
without an event loop.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .blocks import Full, Partial, Range
from .errors import (
    AdmissionRefused,
    BufferUnfit,
    CertificateMissing,
    ConnectionFailed,
    ConnectionLost,
    EngineUnavailable,
    ErrorCode,
    IntegrityError,
    InternalError,
    LimitExceeded,
    ListenerBusy,
    LocalProtocolError,
    NameRejected,
    NoSpace,
    OfferExpired,
    PeerNotTrusted,
    ProtocolError,
    RemoteProtocolError,
    SourceChanged,
    SourceError,
    SourceMissing,
    SourceUnreadable,
    SpaceblockError,
    Stalled,
    StorageError,
    TargetExists,
    TargetMissing,
    TargetNotWritable,
    TicketExpired,
    TicketMalformed,
    TicketUnknown,
    TicketUsed,
    TransferCancelled,
    TransferRefused,
    Unreachable,
    VersionMismatch,
    WrongPeer,
)
from .events import ItemProgress, OfferItem, Phase, Progress, Receipt, ReceiptItem
from .limits import Limits, Timeouts
from .options import DISCARD, Options, Reports

if TYPE_CHECKING:
    from . import sync
    from .api import connect, listen
    from .contacts import Contact
    from .identity import Identity
    from .listener import Listener
    from .names import BadName, NameRule, NameRules
    from .offer import Offer
    from .peer import Peer
    from .storage.sources import Item
    from .transfer import Transfer

__version__ = "0.1.0"

__all__ = [
    "DISCARD",
    "AdmissionRefused",
    "BadName",
    "BufferUnfit",
    "CertificateMissing",
    "ConnectionFailed",
    "ConnectionLost",
    "Contact",
    "EngineUnavailable",
    "ErrorCode",
    "Full",
    "Identity",
    "IntegrityError",
    "InternalError",
    "Item",
    "ItemProgress",
    "LimitExceeded",
    "Limits",
    "Listener",
    "ListenerBusy",
    "LocalProtocolError",
    "NameRejected",
    "NameRule",
    "NameRules",
    "NoSpace",
    "Offer",
    "OfferExpired",
    "OfferItem",
    "Options",
    "Partial",
    "Peer",
    "PeerNotTrusted",
    "Phase",
    "Progress",
    "ProtocolError",
    "Range",
    "Receipt",
    "ReceiptItem",
    "RemoteProtocolError",
    "Reports",
    "SourceChanged",
    "SourceError",
    "SourceMissing",
    "SourceUnreadable",
    "SpaceblockError",
    "Stalled",
    "StorageError",
    "TargetExists",
    "TargetMissing",
    "TargetNotWritable",
    "TicketExpired",
    "TicketMalformed",
    "TicketUnknown",
    "TicketUsed",
    "Timeouts",
    "Transfer",
    "TransferCancelled",
    "TransferRefused",
    "Unreachable",
    "VersionMismatch",
    "WrongPeer",
    "__version__",
    "connect",
    "listen",
    "sync",
]

_LATE = {
    "Identity": "identity",
    "Item": "storage.sources",
    "BadName": "names",
    "Contact": "contacts",
    "Listener": "listener",
    "NameRule": "names",
    "NameRules": "names",
    "Offer": "offer",
    "Peer": "peer",
    "Transfer": "transfer",
    "connect": "api",
    "listen": "api",
}
"""Imported when first asked for, because the transport alone takes longer to import than most programs."""


def __getattr__(name: str) -> Any:
    if name == "sync":
        return importlib.import_module(".sync", __name__)
    if name not in _LATE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LATE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
