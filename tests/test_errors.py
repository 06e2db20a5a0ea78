"""Errors: one class for each thing to tell apart, a code that travels, and a sentence that says what to do."""

from __future__ import annotations

import asyncio
import errno
import inspect
import os
import pickle

import pytest

from spaceblock import errors
from spaceblock.errors import (
    ConnectionFailed,
    ConnectionLost,
    ErrorCode,
    IntegrityError,
    NameRejected,
    NoSpace,
    SourceError,
    SourceMissing,
    SourceUnreadable,
    SpaceblockError,
    Stalled,
    StorageError,
    TargetExists,
    TargetMissing,
    TargetNotWritable,
    TransferCancelled,
    error_code,
    error_from_wire,
    source_error,
    storage_error,
)
from spaceblock.events import Receipt

CLASSES = [
    value
    for value in vars(errors).values()
    if inspect.isclass(value) and issubclass(value, SpaceblockError) and value is not SpaceblockError
]

every_class = pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)


@every_class
def test_every_error_says_what_happened_and_carries_the_details(kind: type[SpaceblockError]) -> None:
    receipt = Receipt("00", "peer", (), 0, 1.0)
    error = kind("it broke: mend it", item=3, name="a", phase="writing", remote=True, errno=5, receipt=receipt)
    assert str(error) == error.message == "it broke: mend it"
    assert (error.item, error.name, error.phase, error.remote, error.errno) == (3, "a", "writing", True, 5)
    assert error.receipt is receipt
    assert "it broke" in repr(error)


@every_class
def test_the_details_are_optional(kind: type[SpaceblockError]) -> None:
    error = kind("it broke: mend it")
    assert (error.item, error.name, error.phase, error.errno, error.receipt) == (None, None, None, None, None)
    assert error.remote is False


@every_class
def test_every_error_survives_a_process_boundary(kind: type[SpaceblockError]) -> None:
    raised = kind("it broke: mend it", item=3, errno=5, phase="writing")
    vars(raised)["__notes__"] = ["what the program knows"]  # as add_note() of Python 3.11 does
    error = pickle.loads(pickle.dumps(raised))
    assert type(error) is kind
    assert (str(error), error.item, error.errno, error.phase) == ("it broke: mend it", 3, 5, "writing")
    assert vars(error)["__notes__"] == ["what the program knows"]


def test_every_class_has_a_word_of_its_own_for_programs() -> None:
    abstract = {"ProtocolError", "RemoteProtocolError"}
    words = [kind.code for kind in CLASSES if kind.__name__ not in abstract]
    assert len(set(words)) == len(words)
    assert all(word.isidentifier() and word.islower() for word in words)
    assert {"protocol"} == {kind.code for kind in CLASSES if kind.__name__ in abstract}


def test_every_class_has_an_exit_code_of_the_command_line() -> None:
    assert {kind.exit_code for kind in CLASSES} == {1, 2, 3, 4, 5, 6, 7}


@every_class
def test_every_class_is_listed_in_the_tree_of_the_module(kind: type[SpaceblockError]) -> None:
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize(
    ("kind", "standard"),
    [
        (TransferCancelled, EOFError),
        (ConnectionFailed, ConnectionError),
        (ConnectionLost, EOFError),
        (errors.AdmissionRefused, PermissionError),
        (Stalled, TimeoutError),
        (StorageError, OSError),
        (TargetMissing, FileNotFoundError),
        (TargetNotWritable, PermissionError),
        (TargetExists, FileExistsError),
        (SourceError, OSError),
        (SourceMissing, FileNotFoundError),
        (SourceUnreadable, PermissionError),
        (NameRejected, ValueError),
        (errors.BufferUnfit, ValueError),
        (errors.TicketMalformed, ValueError),
    ],
)
def test_where_a_standard_exception_fits_the_class_is_also_that(
    kind: type[SpaceblockError], standard: type[Exception]
) -> None:
    with pytest.raises(standard) as caught:
        raise kind("it broke: mend it", errno=errno.EIO)
    assert caught.value.errno == errno.EIO  # type: ignore[attr-defined]


def test_a_stall_is_also_asyncios_timeout() -> None:
    assert issubclass(Stalled, TimeoutError)
    assert isinstance(Stalled("slow: wait"), (TimeoutError, asyncio.TimeoutError))


# Codes on the wire.


@pytest.mark.parametrize("code", [code for code in ErrorCode if code is not ErrorCode.NO_ERROR])
def test_every_code_has_a_class_that_travels_under_it(code: ErrorCode) -> None:
    error = error_from_wire(code, "it broke: mend it", item=2)
    assert type(error) is not SpaceblockError
    assert error.remote
    assert error.item == 2
    assert error_code(error) is code


@every_class
def test_what_travels_arrives_as_the_same_class_or_a_wider_one(kind: type[SpaceblockError]) -> None:
    arrived = error_from_wire(error_code(kind("it broke: mend it")), "it broke: mend it")
    local = {"EngineUnavailable", "TicketMalformed", "ListenerBusy", "Unreachable", "WrongPeer", "ConnectionLost"}
    if kind.wire_code is ErrorCode.INTERNAL:
        assert isinstance(arrived, errors.InternalError)
        assert kind.__name__ in local | {"ConnectionFailed", "InternalError", "AdmissionRefused"}
    else:
        assert type(arrived) is kind or kind.__name__ in {"ProtocolError", "RemoteProtocolError"}


@pytest.mark.parametrize("code", [0, 0x09, 0x99, 2**62 - 1])
def test_a_code_that_this_side_does_not_know_is_an_error_nevertheless(code: int) -> None:
    error = error_from_wire(code, "from the future")
    assert type(error) is SpaceblockError
    assert error.remote


def test_a_fault_of_our_own_travels_as_internal() -> None:
    assert error_code(KeyError("x")) is ErrorCode.INTERNAL


def test_the_numbers_never_change() -> None:
    assert {code.name: code.value for code in ErrorCode} == {
        "NO_ERROR": 0x00,
        "INTERNAL": 0x01,
        "PROTOCOL": 0x02,
        "VERSION": 0x03,
        "LIMIT": 0x04,
        "TIMEOUT": 0x05,
        "CANCELLED": 0x06,
        "REFUSED": 0x07,
        "OFFER_EXPIRED": 0x08,
        "NO_CERTIFICATE": 0x10,
        "TICKET_UNKNOWN": 0x11,
        "TICKET_USED": 0x12,
        "TICKET_EXPIRED": 0x13,
        "NOT_TRUSTED": 0x14,
        "STORAGE": 0x20,
        "NO_SPACE": 0x21,
        "TARGET_MISSING": 0x22,
        "TARGET_NOT_WRITABLE": 0x23,
        "TARGET_EXISTS": 0x24,
        "BUFFER": 0x25,
        "SOURCE": 0x30,
        "SOURCE_MISSING": 0x31,
        "SOURCE_UNREADABLE": 0x32,
        "SOURCE_CHANGED": 0x33,
        "NAME": 0x40,
        "INTEGRITY": 0x50,
    }


# The system's errors.


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.ENOENT, TargetMissing),
        (errno.ENOTDIR, TargetMissing),
        (errno.EACCES, TargetNotWritable),
        (errno.EPERM, TargetNotWritable),
        (errno.EROFS, TargetNotWritable),
        (errno.EEXIST, TargetExists),
        (errno.EISDIR, StorageError),
        (errno.EIO, StorageError),
        (errno.EFBIG, StorageError),
        (errno.EMFILE, StorageError),
    ],
)
def test_the_disks_error_gets_a_type_a_reason_and_advice(number: int, kind: type[StorageError]) -> None:
    error = storage_error(OSError(number, "whatever"), "cannot write 'a'", item=1, name="a")
    assert type(error) is kind
    assert error.errno == number
    assert str(error).startswith("cannot write 'a': ")
    assert os.strerror(number).lower() in str(error).lower()
    assert "; " in str(error), "there is advice"
    assert ("; check the disk" in str(error)) == (number == errno.EIO), "which fits the reason"
    assert "send" not in str(error), "keys and tickets are kept on disks, too"


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, SourceMissing),
        (errno.ENOTDIR, SourceMissing),
        (errno.EACCES, SourceUnreadable),
        (errno.EPERM, SourceUnreadable),
        (errno.EIO, SourceError),
    ],
)
def test_a_sources_error_gets_a_type_a_reason_and_advice(number: int, kind: type[SourceError]) -> None:
    error = source_error(OSError(number, "whatever"), "cannot read 'a'")
    assert type(error) is kind
    assert error.errno == number
    assert "; " in str(error)


def test_an_error_of_the_system_without_a_number_is_told_in_its_own_words() -> None:
    error = storage_error(OSError("Strange things happen"), "cannot write 'a'")
    assert type(error) is StorageError
    assert str(error) == "cannot write 'a': strange things happen; check the disk and try again"


def test_integrity_has_its_own_exit_code() -> None:
    assert IntegrityError("differs: send again").exit_code == 5
