"""Everything that can go wrong, one class for each thing a caller might want to tell apart.

::

    SpaceblockError                          code, exit_code, message, item, name, phase, remote, receipt
    ├─ ProtocolError
    │  ├─ LocalProtocolError                 this side asked for what the protocol forbids
    │  ├─ RemoteProtocolError                the peer sent what the protocol forbids
    │  └─ VersionMismatch                    no version in common
    ├─ LimitExceeded                         a count, length or size passed a named limit
    ├─ EngineUnavailable                     the chosen QUIC engine is not part of this build
    ├─ TransferCancelled   (EOFError)        one of the two sides cancelled
    ├─ TransferRefused                       the receiver declined
    │  └─ OfferExpired                       ... by not answering in time
    ├─ TicketMalformed     (ValueError)      a ticket that cannot be read
    ├─ ListenerBusy                          another listener holds the same state
    ├─ ConnectionFailed    (ConnectionError)
    │  ├─ Unreachable                        nobody answers at the ticket's addresses
    │  ├─ WrongPeer                          somebody else answers there
    │  ├─ ConnectionLost   (EOFError)        an established connection ended unexpectedly
    │  └─ AdmissionRefused (PermissionError) the listener does not let this peer in
    │     ├─ CertificateMissing
    │     ├─ TicketUnknown
    │     ├─ TicketUsed
    │     ├─ TicketExpired
    │     └─ PeerNotTrusted
    ├─ Stalled             (TimeoutError)    a wait ran into its time-out; ``phase`` names it
    ├─ StorageError        (OSError)         the receiving side's disk; ``errno`` says what
    │  ├─ NoSpace
    │  ├─ TargetMissing    (FileNotFoundError)
    │  ├─ TargetNotWritable(PermissionError)
    │  └─ TargetExists     (FileExistsError)
    ├─ SourceError         (OSError)         the sending side's disk or stream
    │  ├─ SourceMissing    (FileNotFoundError)
    │  ├─ SourceUnreadable (PermissionError)
    │  └─ SourceChanged                      it grew, shrank or was rewritten meanwhile
    ├─ BufferUnfit         (ValueError)      a caller's buffer is too small, too large or read-only
    ├─ NameRejected        (ValueError)      a name the receiver's system cannot hold
    ├─ IntegrityError                        the two sides' digests differ
    └─ InternalError                         a fault of Spaceblock itself

Errors that concern the other side carry an :class:`ErrorCode`, which is what travels: in an ``Error`` message or as
QUIC's application error code (RFC 9000, section 20.2). :func:`error_from_wire` and :func:`error_code` are each other's
mirror.
"""

from __future__ import annotations

import errno as errno_module
import os
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar

from .display import printable

if TYPE_CHECKING:
    from .events import Receipt


class ErrorCode(IntEnum):
    """Application error codes, in ``Error`` messages and in QUIC's closing, resetting and stopping frames."""

    NO_ERROR = 0x00
    INTERNAL = 0x01
    PROTOCOL = 0x02
    VERSION = 0x03
    LIMIT = 0x04
    TIMEOUT = 0x05
    CANCELLED = 0x06
    REFUSED = 0x07
    OFFER_EXPIRED = 0x08
    NO_CERTIFICATE = 0x10
    TICKET_UNKNOWN = 0x11
    TICKET_USED = 0x12
    TICKET_EXPIRED = 0x13
    NOT_TRUSTED = 0x14
    STORAGE = 0x20
    NO_SPACE = 0x21
    TARGET_MISSING = 0x22
    TARGET_NOT_WRITABLE = 0x23
    TARGET_EXISTS = 0x24
    BUFFER = 0x25
    SOURCE = 0x30
    SOURCE_MISSING = 0x31
    SOURCE_UNREADABLE = 0x32
    SOURCE_CHANGED = 0x33
    NAME = 0x40
    INTEGRITY = 0x50


class SpaceblockError(Exception):
    """The base of every error that Spaceblock raises.

    ``code`` is a stable word for programs; ``message`` is one sentence that says what happened and what to do;
    ``remote`` is true when the other side found the fault; ``item`` is the index of the item concerned and ``name`` its
    name; ``phase`` says what was being waited for or done; ``receipt`` lists the items that did succeed; ``path`` is
    the absolute path that the message quotes, if it does.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    wire_code: ClassVar[ErrorCode] = ErrorCode.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        item: int | None = None,
        name: str | None = None,
        phase: str | None = None,
        remote: bool = False,
        errno: int | None = None,
        receipt: Receipt | None = None,
        path: str | None = None,
    ) -> None:
        Exception.__init__(self, message)
        self.message = message
        self.item = item
        self.name = name
        self.phase = phase
        self.remote = remote
        self.receipt = receipt
        self.errno = errno
        self.path = path

    def told(self) -> str:
        """The message as the peer is told it: which folders this side has is none of its business."""
        if self.path is None:
            return self.message
        return self.message.replace(repr(printable(self.path)), repr(printable(os.path.basename(self.path))))

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self._fields()), self.__dict__  # with what the program added

    def _fields(self) -> dict[str, Any]:
        names = ("item", "name", "phase", "remote", "errno", "receipt", "path")
        return {name: getattr(self, name) for name in names}


class ProtocolError(SpaceblockError):
    """A rule of the protocol was broken; see the two subclasses for whose fault it is."""

    code = "protocol"
    wire_code = ErrorCode.PROTOCOL


class LocalProtocolError(ProtocolError):
    """This side asked for something that the protocol forbids: a mistake in the calling program."""

    code = "usage"


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol forbids: it is broken or hostile."""

    def __init__(self, message: str, **fields: Any) -> None:
        advice = "" if ": " in message else ": update the older of the two sides"
        super().__init__(message + advice, **fields)


class VersionMismatch(ProtocolError):
    """The two sides have no version of the protocol in common."""

    code = "version"
    wire_code = ErrorCode.VERSION


class LimitExceeded(SpaceblockError):
    """A count, length or size passed one of the limits in :class:`spaceblock.limits.Limits`."""

    code = "limit"
    wire_code = ErrorCode.LIMIT


class EngineUnavailable(SpaceblockError):
    """The chosen QUIC engine is not part of this build of Spaceblock."""

    code = "engine"
    exit_code = 2


class TransferCancelled(SpaceblockError, EOFError):
    """One of the two sides cancelled the transfer; ``remote`` says which."""

    code = "cancelled"
    wire_code = ErrorCode.CANCELLED


class TransferRefused(SpaceblockError):
    """The receiver declined the offer; its reason is part of the message."""

    code = "refused"
    exit_code = 3
    wire_code = ErrorCode.REFUSED


class OfferExpired(TransferRefused):
    """Nobody answered the offer in time."""

    code = "offer_expired"
    wire_code = ErrorCode.OFFER_EXPIRED


class TicketMalformed(SpaceblockError, ValueError):
    """The text is not a ticket, or was damaged on its way."""

    code = "ticket_malformed"
    exit_code = 2


class ListenerBusy(SpaceblockError):
    """Another listener holds the lock of the same state folder."""

    code = "listener_busy"


class ConnectionFailed(SpaceblockError, ConnectionError):
    """No connection could be made, or it did not last."""

    code = "connection"
    exit_code = 4


class Unreachable(ConnectionFailed):
    """Nobody answered at any address of the ticket."""

    code = "unreachable"


class WrongPeer(ConnectionFailed):
    """Somebody answered whose key is not the one that the ticket names."""

    code = "wrong_peer"


class ConnectionLost(ConnectionFailed, EOFError):
    """An established connection ended before its transfers did."""

    code = "connection_lost"


class AdmissionRefused(ConnectionFailed, PermissionError):
    """The listener does not let this peer in."""

    code = "not_admitted"
    exit_code = 3


class CertificateMissing(AdmissionRefused):
    """The peer showed no certificate, or one that this listener cannot use."""

    code = "no_certificate"
    wire_code = ErrorCode.NO_CERTIFICATE


class TicketUnknown(AdmissionRefused):
    """The listener never issued this ticket, or its proof does not fit."""

    code = "ticket_unknown"
    wire_code = ErrorCode.TICKET_UNKNOWN


class TicketUsed(AdmissionRefused):
    """The ticket was already used by another peer."""

    code = "ticket_used"
    wire_code = ErrorCode.TICKET_USED


class TicketExpired(AdmissionRefused):
    """The ticket's lifetime has passed."""

    code = "ticket_expired"
    wire_code = ErrorCode.TICKET_EXPIRED


class PeerNotTrusted(AdmissionRefused):
    """The peer came without a ticket and is not among the trusted peers."""

    code = "not_trusted"
    wire_code = ErrorCode.NOT_TRUSTED


class Stalled(SpaceblockError, TimeoutError):
    """Nothing happened for longer than the phase named in ``phase`` allows."""

    code = "stalled"
    exit_code = 4
    wire_code = ErrorCode.TIMEOUT


class StorageError(SpaceblockError, OSError):
    """The receiving side could not store the bytes; ``errno`` is the system's reason."""

    code = "storage"
    exit_code = 6
    wire_code = ErrorCode.STORAGE


class NoSpace(StorageError):
    """No space is left on the receiver's disk, or its quota is used up."""

    code = "no_space"
    wire_code = ErrorCode.NO_SPACE


class TargetMissing(StorageError, FileNotFoundError):
    """The target folder does not exist."""

    code = "target_missing"
    wire_code = ErrorCode.TARGET_MISSING


class TargetNotWritable(StorageError, PermissionError):
    """The target folder cannot be written to."""

    code = "target_not_writable"
    wire_code = ErrorCode.TARGET_NOT_WRITABLE


class TargetExists(StorageError, FileExistsError):
    """Something is already there under that name, and the caller asked not to rename."""

    code = "target_exists"
    wire_code = ErrorCode.TARGET_EXISTS


class SourceError(SpaceblockError, OSError):
    """The sending side could not read what it offered; ``errno`` is the system's reason."""

    code = "source"
    exit_code = 6
    wire_code = ErrorCode.SOURCE


class SourceMissing(SourceError, FileNotFoundError):
    """The file or folder to send does not exist."""

    code = "source_missing"
    wire_code = ErrorCode.SOURCE_MISSING


class SourceUnreadable(SourceError, PermissionError):
    """The file or folder to send cannot be read."""

    code = "source_unreadable"
    wire_code = ErrorCode.SOURCE_UNREADABLE


class SourceChanged(SourceError):
    """The source grew, shrank or was rewritten while it was being sent."""

    code = "source_changed"
    wire_code = ErrorCode.SOURCE_CHANGED


class BufferUnfit(SpaceblockError, ValueError):
    """A buffer given by the caller has the wrong length or layout, or cannot be written to."""

    code = "buffer"
    exit_code = 2
    wire_code = ErrorCode.BUFFER


class NameRejected(SpaceblockError, ValueError):
    """A name is not a plain relative path for the receiver's system."""

    code = "name"
    exit_code = 7
    wire_code = ErrorCode.NAME


class IntegrityError(SpaceblockError):
    """The two sides' digests differ: what arrived is not what was sent."""

    code = "integrity"
    exit_code = 5
    wire_code = ErrorCode.INTEGRITY


class InternalError(SpaceblockError):
    """A fault of Spaceblock itself."""

    code = "internal"

    def told(self) -> str:
        return "the other side failed unexpectedly: ask there what went wrong"


def error_code(error: BaseException) -> ErrorCode:
    """The code under which ``error`` travels to the peer."""
    return error.wire_code if isinstance(error, SpaceblockError) else ErrorCode.INTERNAL


def error_from_wire(code: int, message: str, **fields: Any) -> SpaceblockError:
    """The typed error for a code that the peer sent; an unknown code becomes a plain :class:`SpaceblockError`."""
    return _BY_CODE.get(code, SpaceblockError)(message, remote=True, **fields)


def storage_error(error: OSError, what: str, **fields: Any) -> StorageError:
    """Give the receiving side's ``OSError`` its type; ``what`` begins the sentence."""
    kind, advice = _STORAGE.get(error.errno or 0, (StorageError, "check the disk and try again"))
    return kind(_sentence(what, error, advice), errno=error.errno, **fields)


def source_error(error: OSError, what: str, **fields: Any) -> SourceError:
    """Give the sending side's ``OSError`` its type; ``what`` begins the sentence."""
    kind, advice = _SOURCE.get(error.errno or 0, (SourceError, "check the source and try again"))
    return kind(_sentence(what, error, advice), errno=error.errno, **fields)


def _sentence(what: str, error: OSError, advice: str) -> str:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return f"{what}: {reason[:1].lower()}{reason[1:]}; {advice}"


def _rebuild(kind: type[SpaceblockError], message: str, fields: dict[str, Any]) -> SpaceblockError:
    return kind(message, **fields)


FREE_SPACE = "free some space there and try again"
"""What to do about a full disk."""

_STORAGE: dict[int, tuple[type[StorageError], str]] = {
    errno_module.ENOSPC: (NoSpace, FREE_SPACE),
    errno_module.EDQUOT: (NoSpace, FREE_SPACE),
    errno_module.ENOENT: (TargetMissing, "create the folder or choose another"),
    errno_module.ENOTDIR: (TargetMissing, "choose a folder"),
    errno_module.EACCES: (TargetNotWritable, "choose a folder that you may write to"),
    errno_module.EPERM: (TargetNotWritable, "choose a folder that you may write to"),
    errno_module.EROFS: (TargetNotWritable, "mount it for writing or choose a folder on another disk"),
    errno_module.EEXIST: (TargetExists, "move it away or let it be renamed"),
    errno_module.EISDIR: (StorageError, "move that folder away or choose another name"),
    errno_module.EFBIG: (StorageError, "choose a disk, or a limit, that takes files of this size"),
    errno_module.EMFILE: (StorageError, "let this program have more files open (ulimit -n)"),
    errno_module.EXDEV: (StorageError, "receive into that folder itself, which is another disk"),
    errno_module.EPIPE: (StorageError, "keep the program that reads it running"),
}
_SOURCE: dict[int, tuple[type[SourceError], str]] = {
    errno_module.ENOENT: (SourceMissing, "check the path"),
    errno_module.ENOTDIR: (SourceMissing, "check the path"),
    errno_module.EACCES: (SourceUnreadable, "ask for permission to read it"),
    errno_module.EPERM: (SourceUnreadable, "ask for permission to read it"),
}
_BY_CODE: dict[int, type[SpaceblockError]] = {
    ErrorCode.INTERNAL: InternalError,
    ErrorCode.PROTOCOL: LocalProtocolError,
    ErrorCode.VERSION: VersionMismatch,
    ErrorCode.LIMIT: LimitExceeded,
    ErrorCode.TIMEOUT: Stalled,
    ErrorCode.CANCELLED: TransferCancelled,
    ErrorCode.REFUSED: TransferRefused,
    ErrorCode.OFFER_EXPIRED: OfferExpired,
    ErrorCode.NO_CERTIFICATE: CertificateMissing,
    ErrorCode.TICKET_UNKNOWN: TicketUnknown,
    ErrorCode.TICKET_USED: TicketUsed,
    ErrorCode.TICKET_EXPIRED: TicketExpired,
    ErrorCode.NOT_TRUSTED: PeerNotTrusted,
    ErrorCode.STORAGE: StorageError,
    ErrorCode.NO_SPACE: NoSpace,
    ErrorCode.TARGET_MISSING: TargetMissing,
    ErrorCode.TARGET_NOT_WRITABLE: TargetNotWritable,
    ErrorCode.TARGET_EXISTS: TargetExists,
    ErrorCode.BUFFER: BufferUnfit,
    ErrorCode.SOURCE: SourceError,
    ErrorCode.SOURCE_MISSING: SourceMissing,
    ErrorCode.SOURCE_UNREADABLE: SourceUnreadable,
    ErrorCode.SOURCE_CHANGED: SourceChanged,
    ErrorCode.NAME: NameRejected,
    ErrorCode.INTEGRITY: IntegrityError,
}
