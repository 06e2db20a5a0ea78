"""The rounds in which a receiver asks its sender for other names, and reads them page by page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..errors import LimitExceeded, LocalProtocolError, RemoteProtocolError
from ..limits import NAME_ROUNDS, TEXT_MAX, Limits
from ..names import NameRules, Problem
from ..wire.manifest import Manifest
from ..wire.messages import Amend, Message, NameProblem, pages_of_name_problems
from .sender import cut


class NameRounds:
    """At most :data:`NAME_ROUNDS` of them, the limits of one offer."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._rounds = 0
        self._payload = 0
        self._names: dict[int, str] | None = None

    @property
    def may_begin(self) -> bool:
        """Whether another one is left, and the sender owes no answer of the one before."""
        return self._rounds < NAME_ROUNDS and self._names is None

    def ask(self, limits: NameRules, problems: Iterable[Problem]) -> Iterator[Message]:
        """Begin a round: the messages that say what the target takes and which names it does not."""
        self._rounds += 1
        self._names = {}
        told = [NameProblem(problem.entry, problem.rule, cut(problem.reason, TEXT_MAX)) for problem in problems]
        of_target = (limits.name_limit, limits.name_unit, limits.path_limit, limits.suffix_limit)
        return pages_of_name_problems(of_target, told)

    def receive(self, message: Amend, payload_size: int, manifest: Manifest | None) -> Manifest | None:
        """Take a page of ``payload_size`` bytes; returns ``manifest`` with other names with the last one.

        Raises :class:`RemoteProtocolError` for what was not asked for or contradicts itself, :class:`LimitExceeded` for
        too much.
        """
        names = self._names
        if names is None or manifest is None:
            raise RemoteProtocolError("the sender sent other names, which nobody asked for")
        self._payload += payload_size
        if self._payload > self._limits.manifest_bytes:
            raise LimitExceeded("the sender's other names are longer than the receiver takes: send fewer at a time")
        for amendment in message.amendments:
            if amendment.entry >= len(manifest.entries) or amendment.entry in names:
                raise RemoteProtocolError(
                    f"the sender named entry {amendment.entry}, which does not exist or was named before"
                )
            names[amendment.entry] = amendment.name
        if not message.last:
            return None
        self._names = None
        try:
            return manifest.renamed(names)
        except LocalProtocolError as error:
            raise RemoteProtocolError(f"the sender's other names contradict each other: {error}") from error
