"""The objects that ``--json`` prints, one a line; docs/json.md says what they mean.

Every object has ``type`` and ``version``. Within a version fields may be added, so a program ignores what it does not
know; a field that goes or changes its meaning makes a new version. A field that has no value is null.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal, TypedDict

from .output import print_out

VERSION = 1
"""The version of all objects."""


class Ticket(TypedDict):
    """The word for the other side."""

    type: Literal["ticket"]
    ticket: str


class OfferedItem(TypedDict):
    """One item of an offer."""

    index: int
    name: str | None
    size: int | None


class OfferedLink(TypedDict):
    """A symbolic link of an offer."""

    name: str
    target: str


class Offer(TypedDict):
    """Somebody wants to send."""

    type: Literal["offer"]
    transfer: str
    peer: str
    peer_name: str | None
    dir: str
    total_size: int | None
    items: list[OfferedItem]
    links: list[OfferedLink]
    folders: list[str]


class MovingItem(TypedDict):
    """The item that moves."""

    index: int
    name: str | None
    bytes_done: int
    bytes_total: int | None
    rate: float
    eta: float | None


class Progress(TypedDict):
    """The figures of one moment, some four times a second."""

    type: Literal["progress"]
    transfer: str | None
    phase: str
    bytes_done: int
    bytes_total: int | None
    rate: float
    eta: float | None
    verified: int
    durable: int
    items_done: int
    items_total: int
    current: str | None
    item: MovingItem | None
    resumed: int


class ArrivedItem(TypedDict):
    """One item that is in its place."""

    name: str | None
    path: str | None
    size: int
    digest: str
    skipped: bool


class Complete(TypedDict):
    """A transfer is verified and complete."""

    type: Literal["complete"]
    transfer: str
    peer: str
    bytes: int
    seconds: float
    items: list[ArrivedItem]
    renamed: dict[str, str]
    resumed: int
    repaired: int


class Error(TypedDict):
    """A transfer, or the command, failed."""

    type: Literal["error"]
    code: str
    message: str
    exit_code: int
    transfer: str | None
    name: str | None
    phase: str | None
    remote: bool
    items: list[ArrivedItem]


class Bench(TypedDict):
    """One measurement of ``spaceblock bench``."""

    type: Literal["bench"]
    kind: str
    bytes: int
    seconds: float
    rate: float
    cpu_per_gib: float
    cpu_per_gib_receiver: float
    cpu_per_gib_sender: float
    engine: str
    aead: str
    datagram: int
    digest: str
    agreed: bool


class Check(TypedDict):
    """One finding of ``spaceblock doctor``."""

    type: Literal["check"]
    check: str
    status: Literal["good", "slow", "bad"]
    found: str
    advice: str | None


class Identity(TypedDict):
    """Who this computer is."""

    type: Literal["identity"]
    peer: str


class Trusted(TypedDict):
    """A peer that needs no ticket here."""

    type: Literal["trusted"]
    peer: str
    name: str | None
    addresses: list[str]


class Found(TypedDict):
    """A listener that announces itself on this network."""

    type: Literal["peer"]
    name: str
    peer: str
    peer_name: str | None
    addresses: list[str]


Record = Ticket | Offer | Progress | Complete | Error | Bench | Check | Identity | Trusted | Found


def print_record(record: Record) -> None:
    """One object on a line of standard output."""
    print_out(line_of(record))


def line_of(record: Mapping[str, Any]) -> str:
    """``record`` as JSON, with its version."""
    kind, *rest = record.items()
    return json.dumps(dict([kind, ("version", VERSION), *rest]))


def error_record(code: str, message: str, exit_code: int) -> Error:
    """The failure of a command that has no transfer."""
    return {
        "type": "error",
        "code": code,
        "message": message,
        "exit_code": exit_code,
        "transfer": None,
        "name": None,
        "phase": None,
        "remote": False,
        "items": [],
    }
