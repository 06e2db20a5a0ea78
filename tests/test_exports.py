"""The public names: what programs are written against, pinned so that none changes by accident."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from pathlib import Path

import pytest

import spaceblock

PUBLIC = {
    "calls": ["connect", "listen", "sync"],
    "what they give": ["Listener", "Offer", "Peer", "Transfer"],
    "values": [
        *[
            "Contact",
            "Full",
            "Item",
            "ItemProgress",
            "OfferItem",
            "Partial",
            "Phase",
            "Progress",
            "Range",
            "Receipt",
            "ReceiptItem",
        ],
        *["Identity", "Limits", "Options", "Reports", "Timeouts"],
        *["DISCARD", "BadName", "NameRule", "NameRules"],
    ],
    "errors": [
        *["AdmissionRefused", "BufferUnfit", "CertificateMissing", "ConnectionFailed", "ConnectionLost"],
        *["EngineUnavailable", "ErrorCode", "IntegrityError", "InternalError", "LimitExceeded", "ListenerBusy"],
        *["LocalProtocolError", "NameRejected", "NoSpace", "OfferExpired", "PeerNotTrusted", "ProtocolError"],
        *["RemoteProtocolError", "SourceChanged", "SourceError", "SourceMissing", "SourceUnreadable"],
        *["SpaceblockError", "Stalled", "StorageError", "TargetExists", "TargetMissing", "TargetNotWritable"],
        *["TicketExpired", "TicketMalformed", "TicketUnknown", "TicketUsed", "TransferCancelled", "TransferRefused"],
        *["Unreachable", "VersionMismatch", "WrongPeer"],
    ],
    "about": ["__version__"],
}
NAMES = sorted(name for names in PUBLIC.values() for name in names)


def test_exactly_these_names_are_public() -> None:
    assert sorted(spaceblock.__all__) == NAMES
    assert dir(spaceblock) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_exists_and_says_what_it_is(name: str) -> None:
    thing = getattr(spaceblock, name)
    if name != "__version__":
        assert inspect.getdoc(thing)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = spaceblock.no_such_name


def parameters(function: object) -> list[str]:
    """The names of a callable's parameters, with ``*`` where only keywords follow."""
    assert callable(function)
    found: list[str] = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in "".join(found):
            found.append("*")
        found.append(f"*{name}" if parameter.kind is parameter.VAR_POSITIONAL else name)
    return [name for name in found if name != "self"]


SIGNATURES = {
    "connect": ["ticket", "*", "options"],
    "listen": ["host", "port", "*", "options"],
    "Listener.invite": ["count", "lifetime"],
    "Listener.peers": [],
    "Peer.send": ["*sources", "links", "rename", "progress"],
    "Peer.offers": [],
    "Peer.close": [],
    "Offer.accept": ["folder", "*", "into", "on_conflict", "durability", "rename", "progress"],
    "Offer.decline": ["reason"],
    "Transfer.cancel": [],
    "Item": ["source", "name", "range"],
    "Contact": ["peer", "addresses"],
    "Partial": ["start", "stop"],
    "Identity.load": ["path"],
    "Identity.ephemeral": [],
    "sync.send": ["ticket", "*sources", "on_ticket", "options", "progress", "links", "rename", "host", "port"],
    "sync.receive": [
        *["folder", "ticket", "on_ticket", "*", "into", "on_conflict", "durability", "options", "progress"],
        *["rename", "host", "port"],
    ],
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_calls_keep_their_parameters(name: str) -> None:
    thing: object = spaceblock
    for part in name.split("."):
        thing = getattr(thing, part)
    assert parameters(thing) == SIGNATURES[name]


FIELDS = {
    "Progress": [
        *["phase", "bytes_done", "bytes_total", "rate", "eta", "verified", "durable", "items_done", "items_total"],
        *["current", "item", "resumed"],
    ],
    "ItemProgress": ["index", "name", "bytes_done", "bytes_total", "rate", "eta"],
    "Receipt": ["uuid", "peer", "items", "bytes", "seconds", "renamed", "resumed", "repaired"],
    "ReceiptItem": ["index", "name", "path", "size", "digest", "skipped"],
    "OfferItem": ["index", "name", "size", "range", "rereadable"],
    "Options": [
        *["datagram_size", "engine", "identity", "trust", "name", "advertise", "ticket_lifetime", "reports"],
        *["limits", "timeouts", "bandwidth"],
    ],
    "Limits": [
        *["items", "manifest_bytes", "transfers", "total_size", "peers", "not_durable"],
        *["connections", "offers", "offered_bytes"],
    ],
    "Timeouts": ["connect", "offer", "idle", "sink", "source", "verify", "retry", "close"],
    "Reports": ["interval", "blocks"],
}


@pytest.mark.parametrize("name", FIELDS)
def test_values_keep_their_fields_and_cannot_be_changed(name: str) -> None:
    kind = getattr(spaceblock, name)
    assert [field.name for field in dataclasses.fields(kind)] == FIELDS[name]
    assert kind.__dataclass_params__.frozen


CODES = {
    "AdmissionRefused": ("not_admitted", 3),
    "BufferUnfit": ("buffer", 2),
    "CertificateMissing": ("no_certificate", 3),
    "ConnectionFailed": ("connection", 4),
    "ConnectionLost": ("connection_lost", 4),
    "EngineUnavailable": ("engine", 2),
    "IntegrityError": ("integrity", 5),
    "InternalError": ("internal", 1),
    "LimitExceeded": ("limit", 1),
    "ListenerBusy": ("listener_busy", 1),
    "LocalProtocolError": ("usage", 1),
    "NameRejected": ("name", 7),
    "NoSpace": ("no_space", 6),
    "OfferExpired": ("offer_expired", 3),
    "PeerNotTrusted": ("not_trusted", 3),
    "ProtocolError": ("protocol", 1),
    "RemoteProtocolError": ("protocol", 1),
    "SourceChanged": ("source_changed", 6),
    "SourceError": ("source", 6),
    "SourceMissing": ("source_missing", 6),
    "SourceUnreadable": ("source_unreadable", 6),
    "SpaceblockError": ("error", 1),
    "Stalled": ("stalled", 4),
    "StorageError": ("storage", 6),
    "TargetExists": ("target_exists", 6),
    "TargetMissing": ("target_missing", 6),
    "TargetNotWritable": ("target_not_writable", 6),
    "TicketExpired": ("ticket_expired", 3),
    "TicketMalformed": ("ticket_malformed", 2),
    "TicketUnknown": ("ticket_unknown", 3),
    "TicketUsed": ("ticket_used", 3),
    "TransferCancelled": ("cancelled", 1),
    "TransferRefused": ("refused", 3),
    "Unreachable": ("unreachable", 4),
    "VersionMismatch": ("version", 1),
    "WrongPeer": ("wrong_peer", 4),
}


def test_every_error_keeps_its_code_and_its_exit_code() -> None:
    kinds = [name for name in PUBLIC["errors"] if name != "ErrorCode"]
    assert {name: (getattr(spaceblock, name).code, getattr(spaceblock, name).exit_code) for name in kinds} == CODES
    assert all(issubclass(getattr(spaceblock, name), spaceblock.SpaceblockError) for name in kinds)


STANDARD = {
    "ConnectionFailed": ConnectionError,
    "Unreachable": ConnectionError,
    "ConnectionLost": EOFError,
    "AdmissionRefused": PermissionError,
    "Stalled": TimeoutError,
    "TransferCancelled": EOFError,
    "StorageError": OSError,
    "NoSpace": OSError,
    "TargetMissing": FileNotFoundError,
    "TargetNotWritable": PermissionError,
    "TargetExists": FileExistsError,
    "SourceError": OSError,
    "SourceMissing": FileNotFoundError,
    "SourceUnreadable": PermissionError,
    "TicketMalformed": ValueError,
    "BufferUnfit": ValueError,
    "NameRejected": ValueError,
}


@pytest.mark.parametrize("name", STANDARD)
def test_where_a_standard_exception_fits_the_error_is_that_too(name: str) -> None:
    assert issubclass(getattr(spaceblock, name), STANDARD[name])


def test_the_words_for_phases_stay() -> None:
    assert [str(phase) for phase in spaceblock.Phase] == [
        "preparing",
        "connecting",
        "waiting for the answer",
        "waiting for other names",
        "transferring",
        "waiting for the sender's program",
        "waiting for the receiver's program",
        "waiting for the receiver's disk",
        "waiting for the receiver's user",
        "verifying",
        "connecting again",
        "closing",
        "done",
    ]


def test_the_sync_module_has_two_calls() -> None:
    module = importlib.import_module("spaceblock.sync")
    own = [
        name
        for name, thing in vars(module).items()
        if inspect.isfunction(thing) and thing.__module__ == module.__name__
    ]
    assert sorted(name for name in own if not name.startswith("_")) == ["receive", "send"]


def test_the_reference_has_every_public_name() -> None:
    """The errors are on it by themselves, in a list that is made with the page."""
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    values = {name: getattr(spaceblock, name) for name in spaceblock.__all__}
    errors = {name for name, value in values.items() if isinstance(value, type) and issubclass(value, Exception)}
    apart = {"ErrorCode", "__version__"}  # the numbers of errors on the wire, which docs/protocol.md has
    missing = [name for name in values if name not in errors | apart and f"spaceblock.{name}" not in page]
    assert missing == []
