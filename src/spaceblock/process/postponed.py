"""Signals that wait until a program can be interrupted.

Python raises what a signal means between any two lines, also between two lines of a module that is being imported. Then
half of it stays behind, or the interrupt is lost in a place that cannot raise.
"""

from __future__ import annotations

import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    import types

    from typing_extensions import Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM, *((signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()))


class Postponed:
    """The signals that end a command wait until the end of its ``with`` block, or until :meth:`release`.

    Only for the main thread. What the program ignores stays ignored.
    """

    def __enter__(self) -> Self:
        self._arrived: list[int] = []
        self._before = {number: signal.getsignal(number) for number in _SIGNALS}
        for number, handler in self._before.items():
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, self._remember)
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Let the first signal that arrived have its effect, which may be to raise; does nothing the second time."""
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._remember:
                signal.signal(number, handler)
        arrived, self._arrived = self._arrived, []
        if arrived:
            signal.raise_signal(arrived[0])

    def _remember(self, number: int, frame: types.FrameType | None) -> None:
        self._arrived.append(number)
