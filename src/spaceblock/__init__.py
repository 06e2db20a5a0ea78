"""Send and receive files, folders and buffers between two computers over QUIC, verified by BLAKE3 on both ends.

:func:`listen` waits for peers with a ticket, :func:`connect` goes to one; both give a :class:`Peer`, on which
:meth:`Peer.send` and :meth:`Offer.accept` start a :class:`Transfer`. :mod:`spaceblock.sync` does the same for programs
without an event loop.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
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
    from .events import OfferItem, Phase, Progress, Receipt, ReceiptItem
    from .identity import Identity
    from .incoming import Offer
    from .limits import Limits, Timeouts
    from .listener import Listener
    from .options import Options, Reports
    from .peer import Peer
    from .storage.sources import Item
    from .transfer import Transfer

_PLACES = {
    "api": ["connect", "listen"],
    "blocks": ["Full", "Partial", "Range"],
    "errors": [
        "AdmissionRefused",
        "BufferUnfit",
        "CertificateMissing",
        "ConnectionFailed",
        "ConnectionLost",
        "EngineUnavailable",
        "ErrorCode",
        "IntegrityError",
        "InternalError",
        "LimitExceeded",
        "ListenerBusy",
        "LocalProtocolError",
        "NameRejected",
        "NoSpace",
        "OfferExpired",
        "PeerNotTrusted",
        "ProtocolError",
        "RemoteProtocolError",
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
        "TransferCancelled",
        "TransferRefused",
        "Unreachable",
        "VersionMismatch",
        "WrongPeer",
    ],
    "events": ["OfferItem", "Phase", "Progress", "Receipt", "ReceiptItem"],
    "identity": ["Identity"],
    "incoming": ["Offer"],
    "limits": ["Limits", "Timeouts"],
    "listener": ["Listener"],
    "options": ["Options", "Reports"],
    "peer": ["Peer"],
    "storage.sources": ["Item"],
    "transfer": ["Transfer"],
}
_HOME = {name: f".{module}" for module, names in _PLACES.items() for name in names}

__all__ = [*sorted(_HOME), "__version__", "sync"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: the transport alone takes longer to import than most programs."""
    if name == "sync":
        return importlib.import_module(".sync", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
