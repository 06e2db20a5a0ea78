"""What brings the items of a transfer that is received: data streams, each with its landing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from ..errors import ErrorCode, RemoteProtocolError
from ..limits import DATA_STREAMS_MAX
from ..quic.interface import Stream
from ..storage.landing import Host, Landing


class Arrivals:
    """The data streams of one transfer, ``host``.

    A stream that its sender resets may bring its last bytes for ``patience`` seconds more. ``taken`` is called with the
    number of blocks that came, whenever some did.
    """

    def __init__(self, host: Host, patience: float, taken: Callable[[int], None]) -> None:
        self._host = host
        self._patience = patience
        self._taken = taken
        self._loop = asyncio.get_running_loop()
        self._landings: dict[Stream, Landing] = {}
        self._seen = 0
        self._resets: dict[Stream, asyncio.TimerHandle] = {}

    @property
    def room(self) -> int:
        """Bytes for which there are buffers ready."""
        return sum(landing.room for landing in self._landings.values() if not landing.ended)

    @property
    def waits_for_disk(self) -> bool:
        """Whether arrived bytes wait because a worker is behind."""
        return any(landing.waits_for_disk for landing in self._landings.values())

    def open(self, stream: Stream, first: bytes, fin: bool) -> None:
        """Take what comes on ``stream``; ``first`` is what came already, and ``fin`` whether that is all."""
        self._seen += 1
        if sum(not landing.ended for landing in self._landings.values()) >= DATA_STREAMS_MAX:
            self._host.fail(RemoteProtocolError(f"the sender opened more than {DATA_STREAMS_MAX} data streams at once"))
            stream.stop(ErrorCode.PROTOCOL)
            return
        landing = self._landings[stream] = Landing(self._host, self._seen, stream.resume)

        def receive(fin: bool) -> None:
            landing.receive(fin)
            self._after_data(stream, landing)

        def receive_reset(code: int) -> None:
            # The sender's Error on the control stream says why, and may come later than the reset.
            self._resets[stream] = self._loop.call_later(self._patience, partial(self._give_up, stream, landing))

        stream.set_intake(landing.intake, on_taken=receive, on_reset=receive_reset, first=first, fin=fin)

    def mark(self) -> None:
        """Let everything that has landed be made durable."""
        for landing in self._landings.values():
            landing.mark()

    def stop_waiting(self) -> None:
        """Nobody waits any more for what streams that were reset may still bring."""
        for reset in self._resets.values():
            reset.cancel()

    def close(self, code: int) -> None:
        """Take no more, and tell the sender why."""
        for stream, landing in self._landings.items():
            landing.close()
            stream.stop(code)
        self._landings.clear()

    def _give_up(self, stream: Stream, landing: Landing) -> None:
        self._resets.pop(stream, None)
        landing.receive_reset()
        self._after_data(stream, landing)

    def _after_data(self, stream: Stream, landing: Landing) -> None:
        blocks, landing.blocks = landing.blocks, 0
        self._taken(blocks)
        if landing.ended:
            self._landings.pop(stream, None)
