"""What a user may choose, for :func:`spaceblock.listen` and :func:`spaceblock.connect` alike."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Collection, Sequence
from dataclasses import field
from enum import Enum
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

from .display import kind_of
from .errors import EngineUnavailable, LocalProtocolError
from .limits import DATAGRAM_MAX, DATAGRAM_MIN, HEARTBEAT, RATE_MIN, Limits, Timeouts, check_choice
from .process.lazily import dataclass

if TYPE_CHECKING:
    from .trust.identity import Identity

_log = logging.getLogger("spaceblock")

Engine = Literal["native", "aioquic"]
Conflict = Literal["rename", "skip", "overwrite", "error"]
Durability = Literal["fsync", "none"]
Links = Literal["skip", "copy"]


class Discard(Enum):
    """A place for bytes that nobody wants to keep: they are received, hashed and compared like all others."""

    DISCARD = "discard"

    def __repr__(self) -> str:
        return "spaceblock.DISCARD"


DISCARD = Discard.DISCARD


@dataclass(frozen=True, slots=True)
class Reports:
    """How often a receiver reports: every ``interval`` seconds, every ``blocks`` blocks, both, or (None, None)
    never."""

    interval: float | None = HEARTBEAT
    blocks: int | None = None

    def __post_init__(self) -> None:
        for name in self.__slots__:
            check_choice(
                f"Reports.{name}", getattr(self, name), lambda many: many is None or many >= 0, "a number, or None"
            )


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one endpoint; every field has a default that suits most uses.

    ``datagram_size``: bytes of UDP payload, 1200 to 65507; None finds out what the path carries. ``engine``: the QUIC
    engine; None takes the environment's ``SPACEBLOCK_ENGINE`` or else the fastest of this build. ``identity``: an
    :class:`~spaceblock.Identity`, or the path of its folder; None is the user's own. ``trust``: peer IDs admitted
    without a ticket. ``name``: keeps a listener's tickets and port over a restart under this name; a listener on a
    fixed port does so by itself, and any other for the same command, until it is left in order. ``advertise``: the
    addresses that tickets carry, where the bound ones are not what others see. ``ticket_lifetime`` is in seconds.
    ``bandwidth``: bytes a second that are sent at most, over all peers and transfers together; None: no limit.

    Raises :class:`LocalProtocolError` for what cannot be, as do :class:`Reports`, :class:`Limits`, :class:`Timeouts`.
    """

    datagram_size: int | None = None
    engine: Engine | None = None
    identity: Identity | str | os.PathLike[str] | None = None
    trust: Sequence[str] = ()
    name: str | None = None
    advertise: Sequence[str] = ()
    ticket_lifetime: float = 24 * 3600.0
    reports: Reports = field(default_factory=Reports)
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    bandwidth: float | None = None

    def __post_init__(self) -> None:
        for name in ("trust", "advertise"):
            if isinstance(getattr(self, name), str):
                raise LocalProtocolError(f"{name} is a list, not one string: write {name}=[...]")
            check_choice(name, getattr(self, name), _are_words, "a list of strings")
        for name, kind in {"reports": Reports, "limits": Limits, "timeouts": Timeouts}.items():
            if not isinstance(given := getattr(self, name), kind):
                raise LocalProtocolError(f"{name} is {given!r}: choose a spaceblock.{kind.__name__}")
        check_choice("name", self.name, lambda name: name is None or isinstance(name, str), "a string")
        check_choice("ticket_lifetime", self.ticket_lifetime, lambda time: time > 0, "a number of seconds above 0")
        check_choice(
            "datagram_size",
            self.datagram_size,
            lambda size: size is None or DATAGRAM_MIN <= size <= DATAGRAM_MAX,
            f"{DATAGRAM_MIN} to {DATAGRAM_MAX} bytes",
        )
        check_choice(
            "bandwidth",
            self.bandwidth,
            lambda rate: rate is None or RATE_MIN <= rate <= sys.float_info.max,
            f"{RATE_MIN} bytes a second or more",
        )

    def chosen_engine(self) -> Engine:
        """The engine to use; raises :class:`EngineUnavailable` if this build does not have it.

        Where nobody chose and the native engine is missing, it is aioquic's, and a warning is logged, once.
        """
        engine = self.engine or os.environ.get("SPACEBLOCK_ENGINE")
        if engine == "aioquic":
            return "aioquic"
        if engine in ("native", None):
            missing = why_not_native()
            if missing is None:
                return "native"
            if engine is None:
                _tell_once(missing)
                return "aioquic"
            raise EngineUnavailable(f"the native engine {missing}; choose 'aioquic'")
        raise EngineUnavailable(
            f"this build has no QUIC engine named {engine!r}: leave engine unset or choose 'aioquic'"
        )


def checked(options: Options | None) -> Options:
    """``options``, or those that nobody chose; raises :class:`LocalProtocolError` for what is none."""
    if options is not None and not isinstance(options, Options):
        raise LocalProtocolError(f"options is {kind_of(options)}: give a spaceblock.Options")
    return options or Options()


def _are_words(value: object) -> bool:
    """Whether it holds strings, and still does when it was looked through."""
    return isinstance(value, Collection) and all(isinstance(word, str) for word in value)


@cache
def why_not_native() -> str | None:
    """What keeps the native engine from being used, as the rest of a sentence; None if nothing does."""
    is_old = sys.version_info < (3, 11)
    if is_old:
        return "needs Python 3.11 or newer"
    if find_spec("spaceblock.quic.native.engine") is None:
        return "is not part of this build: it needs Linux, and libcrypto's headers when it is built"
    return None


@cache
def _tell_once(missing: str) -> None:
    _log.warning("the native engine %s; transfers run on aioquic, more slowly", missing)
