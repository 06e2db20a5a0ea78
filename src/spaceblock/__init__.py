"""Send and receive files, folders and buffers between two computers over QUIC, verified by BLAKE3 on both ends.

:func:`listen` waits for peers with a ticket, :func:`connect` goes to one; both give a :class:`Peer`, on which
:meth:`Peer.send` and :meth:`Offer.accept` start a :class:`Transfer`. :mod:`spaceblock.sync` does the same for programs
without an event loop.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import sync
    from .api import connect, listen
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
    from .listener import Listener
    from .names import BadName, NameRule, NameRules
    from .options import DISCARD, Options, Reports
    from .peer import Peer
    from .storage.sources import Item
    from .transfers.offer import Offer
    from .transfers.transfer import Transfer
    from .trust.contacts import Contact
    from .trust.identity import Identity

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

_HOMES = {
    "DISCARD": "options",
    "BadName": "names",
    "Contact": "trust.contacts",
    "Full": "blocks",
    "Identity": "trust.identity",
    "Item": "storage.sources",
    "ItemProgress": "events",
    "Limits": "limits",
    "Listener": "listener",
    "NameRule": "names",
    "NameRules": "names",
    "Offer": "transfers.offer",
    "OfferItem": "events",
    "Options": "options",
    "Partial": "blocks",
    "Peer": "peer",
    "Phase": "events",
    "Progress": "events",
    "Range": "blocks",
    "Receipt": "events",
    "ReceiptItem": "events",
    "Reports": "options",
    "Timeouts": "limits",
    "Transfer": "transfers.transfer",
    "connect": "api",
    "listen": "api",
}
"""Where each name but the errors is from. All are imported when first asked for: the transport alone takes longer to
import than most programs, and the command line begins by seeing to signals."""

_MODULES = ("errors", "sync")


def __getattr__(name: str) -> Any:
    if name not in __all__ and name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    value = getattr(importlib.import_module(f".{_HOMES.get(name, 'errors')}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
