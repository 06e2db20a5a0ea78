from collections.abc import Callable, Iterable, Iterator
from typing import Any

from typing_extensions import Buffer

GAPS_MAX: int

class Spans:
    def __iter__(self) -> Iterator[tuple[int, int]]: ...

class SendStream:
    stream_id: int
    limit: int
    written: int
    sent: int
    acknowledged: int
    fin_written: bool
    fin_acknowledged: bool
    stopped: bool
    def __init__(self, stream_id: int, limit: int) -> None: ...
    def write(self, data: Buffer, fin: bool = False, release: Callable[[], None] | None = None) -> None: ...
    def adopt(
        self,
        acknowledged: int,
        data: bytes,
        sent: int,
        lost: Iterable[tuple[int, int]],
        beyond: Iterable[tuple[int, int]],
        fin_written: bool,
        fin_pending: bool,
    ) -> None: ...
    def lose(self, start: int, stop: int, fin: bool) -> None: ...
    def give_up(self) -> None: ...
    @property
    def backlog(self) -> int: ...
    @property
    def finished(self) -> bool: ...

class ReceiveStream:
    stream_id: int
    limit: int
    arrived: int
    highest: int
    final_size: int
    finished: bool
    owner: Any
    def __init__(self, stream_id: int, limit: int, owner: Any = None) -> None: ...
    def take(self) -> tuple[bytes, bool]: ...
    def adopt(self, highest: int, final_size: int | None, arrived: int, early: Iterable[tuple[int, bytes]]) -> None: ...
    def end(self, final_size: int) -> bool: ...
