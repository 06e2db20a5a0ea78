"""One transfer as its user sees it, on either side: something to await, to watch and to cancel."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import monotonic
from typing import Any, TypeVar

from ..display import printable, shown
from ..errors import (
    ConnectionLost,
    ErrorCode,
    InternalError,
    RemoteProtocolError,
    SpaceblockError,
    Stalled,
    TransferCancelled,
    error_from_wire,
)
from ..events import ItemProgress, Phase, Progress, Receipt
from ..limits import DATA_STREAMS, HEARTBEAT, REREADS
from ..process.forks import Maker
from ..process.lazily import dataclass
from ..quic.interface import CloseReason, ConnectionEnded
from .following import Follower, follow

_T = TypeVar("_T")

_RATE_SPAN = 3.0
"""Seconds over which the rate is averaged."""

_LATE = 1.0
"""Seconds by which a look at the time may come late; what is more, this program did not run."""

AT_ONCE_MAX = 256
"""Things in memory that are seen to on the event loop: so few take less than to wake a thread, and many longer."""

HASHED_INTERVAL = 1.0
"""Seconds between two messages that say how much a side has read of what it has already."""

_BESIDE = 3
"""Threads for what goes on beside the data: flushing, placing, and reading again."""

_UNSEEN_MAX = 16
"""Failed transfers remembered for who leaves without having awaited them, who is told of one."""


@dataclass(frozen=True, slots=True)
class Current:
    """The item that moves at this moment: its bytes done, and in all if that is known."""

    index: int
    name: str | None
    done: int
    total: int | None


class Transfer:
    """A started transfer, made by :meth:`Peer.send` and :meth:`Offer.accept`.

    Awaiting it gives the :class:`Receipt` or raises a :class:`SpaceblockError`; it can be awaited again. Cancelling a
    task that awaits it cancels the transfer. Iterating over it gives the latest :class:`Progress` each time there is
    news, and ends silently with the transfer; leaving an iteration changes nothing.
    """

    def __init__(self, job: Job) -> None:
        self._job = job

    def __await__(self) -> Generator[Any, None, Receipt]:
        return self._wait().__await__()

    def __aiter__(self) -> AsyncIterator[Progress]:
        self._check()
        return _News(self._job)

    @property
    def progress(self) -> Progress:
        """The figures of this moment."""
        return self._job.progress()

    @property
    def done(self) -> bool:
        """Whether awaiting would return at once."""
        return self._job.finished.is_set()

    def cancel(self) -> None:
        """End this transfer and no other. Both sides' awaits then raise :class:`TransferCancelled`, unless the receiver
        had verified everything before it heard of it."""
        self._check()
        self._job.cancel()

    def _check(self) -> None:
        """What is over may be asked about anywhere."""
        if not self.done:
            self._job.maker.check("this transfer")

    async def _wait(self) -> Receipt:
        self._check()
        self._job.seen = True
        try:
            await self._job.finished.wait()
        except asyncio.CancelledError:
            self.cancel()
            await self._job.finished_in_any_case()
            raise
        await self._job.shown_to_the_end()
        return self._job.result()


class _News(AsyncIterator[Progress]):
    """The figures of a transfer, each time there are new ones; whoever was busy meanwhile gets the last ones, too."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._ended = job.finished.is_set()

    async def __anext__(self) -> Progress:
        if self._ended:
            raise StopAsyncIteration
        if not self._job.finished.is_set():
            await self._job.news()
        self._ended = self._job.finished.is_set()
        return self._job.progress()


class Job(ABC):
    """What both directions share: the worker threads, the watch over time, the figures and the outcome."""

    seen = False
    """Somebody has awaited the transfer, or need not be told how it ended."""

    in_memory = False
    """This side's things are all in memory, and no more than :data:`AT_ONCE_MAX`: to look at them takes no thread."""

    def __init__(self, idle: float) -> None:
        self.maker: Maker = Maker()
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.finished: asyncio.Event = asyncio.Event()
        self.on_finished: Callable[[], None] = lambda: None
        """Called once, when the outcome stands."""
        self.phase: Phase = Phase.PREPARING
        self.transfer: Transfer = Transfer(self)
        self.idle = idle
        self.reread: int = 0
        """Bytes that were read once more, of what is there already."""
        self.rereads: asyncio.Semaphore = asyncio.Semaphore(REREADS)
        """A place for each item that is read again, or moves again, at once."""
        self._workers: ThreadPoolExecutor | None = None
        self._beside: ThreadPoolExecutor | None = None
        self._running: set[asyncio.Future[Any]] = set()
        self.tasks: set[asyncio.Task[Any]] = set()
        """What runs beside :meth:`run`, and is cancelled at its end."""
        self.outcome: Receipt | SpaceblockError | None = None
        self._news: asyncio.Future[None] | None = None
        self._started = monotonic()
        self._last_change = self._started
        self._ticked_at = self._started
        self._rate = _Rate(0)
        self._item_rate = _Rate(0)
        self._current = -1
        self._ticker: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._showing: asyncio.Task[None] | None = None
        self._complaint: Exception | None = None
        self.successor: Job | None = None
        """What goes on with the transfer over another connection."""
        self._predecessor: Job | None = None
        self._lasting = 0, 0
        """Bytes verified and durable over an earlier connection, until both sides have found out what is there."""
        self._reunion: asyncio.Future[None] | None = None

    # What each direction has of its own.

    @abstractmethod
    async def run(self) -> Receipt:
        """The whole transfer; raises a :class:`SpaceblockError`."""

    @abstractmethod
    def fail(self, error: SpaceblockError) -> None:
        """End the transfer with ``error``, unless it is too late for that."""

    @abstractmethod
    def cancel_attempt(self) -> None:
        """End what runs on this connection because this side's user asks for it."""

    @property
    def may_outlive(self) -> bool:
        """Whether the transfer can go on over another connection."""
        return False

    async def find_successor(self) -> Job | None:
        """Wait for the transfer to go on over another connection, after this one was lost; None if it does not."""
        return None

    def release(self) -> None:
        """Give back what the whole transfer held, over however many connections; runs in a thread."""
        return

    @abstractmethod
    def limit(self) -> float:
        """Seconds that the present phase may last without any change."""

    @abstractmethod
    def figures(self) -> tuple[int, int | None, int, int, int, int, Current | None]:
        """Bytes done, bytes in all, bytes verified and durable, items done and in all, and the current item."""

    @property
    @abstractmethod
    def resumed(self) -> int:
        """Bytes of those done that an earlier attempt had left with the receiver."""

    @abstractmethod
    def stalled(self, error: Stalled) -> None:
        """The present phase took too long."""

    @abstractmethod
    def connection_lost(self, error: SpaceblockError) -> None:
        """The connection is over: nothing can be said any more."""

    def tick(self) -> None:
        """Called a few times a second while the transfer lives."""
        return

    # What is common.

    def start_beside(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Run ``work`` beside everything else, in one of the :attr:`tasks`; where it fails the transfer does."""

        def ended(task: asyncio.Task[_T]) -> None:
            if not task.cancelled() and isinstance(error := task.exception(), Exception):
                self.fail(typed_error(error))

        task = spawn(self.tasks, work)
        task.add_done_callback(ended)
        return task

    def cancel(self) -> None:
        """End the transfer because this side's user asks for it."""
        if self.successor is not None:
            self.successor.cancel()
        elif self._reunion is None:
            self.cancel_attempt()
        elif not self._reunion.done():
            self._reunion.set_exception(TransferCancelled("the transfer was cancelled on this side"))

    def lose_connection(self, error: SpaceblockError) -> None:
        """The connection of this attempt is over; harmless where it is not the latest."""
        if self._reunion is None and not self.finished.is_set():
            self.connection_lost(error)

    def start(self) -> None:
        """Run the transfer as a task of its own."""
        self._ticked_at = monotonic()
        self._task = self.loop.create_task(self._run())
        self._ticker = self.loop.call_later(HEARTBEAT, self._tick)

    def show_on(self, shown: Follower) -> None:
        """Show the figures of the whole transfer; what is raised there cancels it, and is raised to who awaits it."""
        self._showing = self.loop.create_task(self._show(shown))

    async def shown_to_the_end(self) -> None:
        """Wait until the last figures were shown, if somebody wants them."""
        if self._showing is not None:
            await asyncio.shield(self._showing)

    @property
    def seconds(self) -> float:
        return monotonic() - self._started

    @property
    def unseen_error(self) -> SpaceblockError | None:
        """Why the transfer failed, unless somebody knows."""
        return self.outcome if isinstance(self.outcome, SpaceblockError) and not self.seen else None

    def enter(self, phase: Phase) -> None:
        """A new phase begins: its time limit starts now. Waiting for an answer is no part of the time it took."""
        self.phase = phase
        if phase is Phase.MOVING:
            self._started = monotonic()
            self._rate = _Rate(0)
        self.changed()

    def changed(self) -> None:
        """Something moved: the time limit starts anew, and whoever watches has news."""
        self._last_change = monotonic()
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
        if self._predecessor is not None:
            self._predecessor.changed()

    def alive(self) -> None:
        """This side is at work on what no figure tells of: the time limit starts anew. Any thread may call this."""
        self._last_change = monotonic()

    def progress(self) -> Progress:
        """The figures of this moment."""
        if self.successor is not None:
            return self.successor.progress()
        done, total, verified, durable, items_done, items_total, current = self.figures()
        verified, durable = max(verified, self._lasting[0]), max(durable, self._lasting[1])
        rate = self._rate.of(max(done - self.resumed, 0))
        done = max(done, verified, durable)  # the receiver has them, whatever the two have found out so far
        item = None
        if current is not None:
            if current.index != self._current:
                self._current, self._item_rate = current.index, _Rate(current.done)
            speed = self._item_rate.of(current.done)
            left = _time_left(current.done, current.total, speed)
            item = ItemProgress(current.index, current.name, current.done, current.total, speed, left)
        return Progress(
            self.phase,
            done,
            total,
            rate,
            _time_left(done, total, rate),
            verified,
            durable,
            items_done,
            items_total,
            None if item is None else item.name,
            item,
            self.resumed,
        )

    async def news(self) -> None:
        """Wait until something changed or the transfer ended."""
        if self._news is None or self._news.done():
            self._news = self.loop.create_future()
        await asyncio.shield(self._news)

    async def finished_in_any_case(self) -> None:
        """Wait for the end also while this task is being cancelled, again and again if need be."""
        while not self.finished.is_set():
            try:
                await self.finished.wait()
            except asyncio.CancelledError:
                continue

    def result(self) -> Receipt:
        """The outcome, once finished."""
        if self._complaint is not None:
            raise self._complaint
        if isinstance(self.outcome, SpaceblockError):
            raise self.outcome
        assert self.outcome is not None
        return self.outcome

    def in_worker(self, function: Callable[[], _T]) -> asyncio.Future[_T]:
        """Run ``function`` in one of this transfer's own threads, so that no other transfer waits for its disk."""
        if self._workers is None:
            self._workers = ThreadPoolExecutor(DATA_STREAMS, thread_name_prefix="spaceblock-disk")
        return self._run_in(self._workers.submit, function)

    def beside(self, function: Callable[[], _T]) -> asyncio.Future[_T]:
        """Run ``function`` in a thread that moves no bytes, so that flushing and reading again hold none of them up."""
        if self._beside is None:
            self._beside = ThreadPoolExecutor(_BESIDE, thread_name_prefix="spaceblock-beside")
        return self._run_in(self._beside.submit, function)

    def at_once(
        self, function: Callable[[], _T], pool: Callable[[Callable[[], _T]], asyncio.Future[_T]]
    ) -> asyncio.Future[_T]:
        """Run ``function``, which touches no more than the names and sizes of things: here where they are
        :attr:`in_memory`, and otherwise in the ``pool`` that is :meth:`in_worker` or :meth:`beside`."""
        if not self.in_memory:
            return pool(function)
        future: asyncio.Future[_T] = self.loop.create_future()
        try:
            future.set_result(function())
        except Exception as error:
            future.set_exception(error)
        return future

    def _run_in(self, submit: Callable[[Callable[[], None]], object], function: Callable[[], _T]) -> asyncio.Future[_T]:
        """Have a pool of threads run ``function``; where no thread can be had the future fails, and nothing runs."""
        future = asyncio.wrap_future(_submitted(submit, function), loop=self.loop)
        self._running.add(future)
        future.add_done_callback(self._running.discard)
        return future

    async def when_workers_idle(self, clean_up: Callable[[], None], timeout: float) -> None:
        """Run ``clean_up`` in a thread when nothing runs in the others any more, and wait for it; what is in memory
        alone needs no thread.

        After ``timeout`` seconds this stops waiting: a disk that hangs must not hold up who asks for the outcome. The
        cleaning up is still done when the disk answers.
        """

        async def wait() -> None:
            while self._running:
                await asyncio.wait(set(self._running))
            try:
                await self.at_once(clean_up, self._in_any_thread)
            except NoThread:
                clean_up()

        await either(self.loop.create_task(wait()), timeout=timeout)

    def _in_any_thread(self, function: Callable[[], _T]) -> asyncio.Future[_T]:
        return asyncio.wrap_future(_submitted(partial(self.loop.run_in_executor, None), function), loop=self.loop)

    async def _run(self) -> None:
        outcome: Receipt | SpaceblockError
        try:
            outcome = await self._run_to_the_end()
        except Exception as error:
            outcome = typed_error(error)
        except BaseException:
            outcome = TransferCancelled("the program's event loop ended before the transfer")
            raise
        finally:
            if self._ticker is not None:
                self._ticker.cancel()
            try:
                await self.when_workers_idle(self.release, self.idle)
            finally:  # whoever waits hears of the end also where this task is cancelled again and again
                for pool in (self._workers, self._beside):
                    if pool is not None:
                        pool.shutdown(wait=False)
                self.phase = Phase.DONE
                self.outcome = outcome
                self.finished.set()
                self.changed()
                self.on_finished()

    async def _show(self, shown: Follower) -> None:
        try:
            await follow(self.transfer, shown)
        except Exception as error:
            self._complain(error)
        except asyncio.CancelledError:  # by what it waited for, or because the event loop ends
            self._complain(TransferCancelled("what was to show the progress was cancelled, and so was the transfer"))

    def _complain(self, error: Exception) -> None:
        self._complaint = error
        if not self.finished.is_set():
            self.cancel()

    async def _run_to_the_end(self) -> Receipt:
        """The transfer over this connection and, where that is lost, over another one."""
        try:
            return await self.run()
        except ConnectionLost:
            successor = await self._outlive_connection()
            if successor is None:
                raise
        await successor.finished.wait()
        return successor.result()

    async def _outlive_connection(self) -> Job | None:
        if not self.may_outlive:
            return None
        self._reunion = self.loop.create_future()
        may_go_unheard(self._reunion)
        if self._ticker is not None:
            self._ticker.cancel()
        self.enter(Phase.RECONNECTING)
        finding = self.loop.create_task(self.find_successor())
        try:
            await either(finding, self._reunion)
            successor = finding.result() if finding.done() else None
        finally:
            finding.cancel()
        if successor is not None:
            successor.seen = True
            successor._predecessor = self
            last = self.progress()
            successor._lasting = last.verified, last.durable
            self.successor = successor
            if self._reunion.done():  # cancelled in the moment in which it was found
                successor.cancel()
        elif self._reunion.done():
            self._reunion.result()
        return successor

    def _tick(self) -> None:
        self._ticker = self.loop.call_later(HEARTBEAT, self._tick)
        self._forgive_lateness()
        self.tick()
        limit = self.limit()
        if monotonic() - self._last_change > limit:
            self.changed()
            phase = str(self.phase)
            self.stalled(
                Stalled(
                    f"nothing moved for {limit:g} seconds while {phase}: check the other side and send again",
                    phase=phase,
                )
            )

    def _forgive_lateness(self) -> None:
        """Count no time in which this program did not run at all, as one that was stopped: nothing could move here."""
        now = monotonic()
        late = now - self._ticked_at - HEARTBEAT
        self._ticked_at = now
        if late > _LATE:
            self._last_change = min(self._last_change + late, now)


class _Rate:
    """Bytes a second over the last seconds."""

    def __init__(self, done: int) -> None:
        self._samples: deque[tuple[float, int]] = deque([(monotonic(), done)])

    def of(self, done: int) -> float:
        """The rate at this moment, when ``done`` bytes are done."""
        now = monotonic()
        samples = self._samples
        if now - samples[-1][0] >= HEARTBEAT / 2 or done < samples[-1][1]:
            samples.append((now, done))
        while len(samples) > 2 and now - samples[0][0] > _RATE_SPAN:
            samples.popleft()
        start, before = samples[0]
        return max(done - before, 0) / (now - start) if now > start else 0.0


def _time_left(done: int, total: int | None, rate: float) -> float | None:
    return max(total - done, 0) / rate if total is not None and rate > 0 else None


class Unseen:
    """Transfers that failed and that nobody has awaited yet, so that whoever leaves is told of the first."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def add(self, *jobs: Job) -> None:
        """Remember those of ``jobs`` that failed unseen; of very many only the first."""
        self._jobs = [job for job in (*self._jobs, *jobs) if job.unseen_error is not None][:_UNSEEN_MAX]

    def move_to(self, other: Unseen) -> None:
        """Let ``other`` tell of them."""
        other.add(*self._jobs)
        self._jobs = []

    def take(self) -> SpaceblockError | None:
        """The first error that is unseen until now; from now on all of them count as seen."""
        errors = [job.unseen_error for job in self._jobs]
        for job in self._jobs:
            job.seen = True
        self._jobs = []
        return next((error for error in errors if error is not None), None)


async def either(*futures: asyncio.Future[Any], timeout: float | None = None) -> None:
    """Wait until one of ``futures`` is done, or ``timeout`` seconds have passed."""
    await asyncio.wait(futures, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


def may_go_unheard(future: asyncio.Future[Any]) -> None:
    """Nobody has to ask how ``future`` ended: without this, an error that nobody asked for is logged."""
    future.add_done_callback(lambda end: end.cancelled() or end.exception())


async def in_any_case(clean_up: Callable[[], Awaitable[object]], maker: Maker | None = None) -> None:
    """Finish cleaning up also while this task is being cancelled, however often; what asked for that hears of it then.

    What ``maker`` made is not cleaned up by its child.
    """
    if maker is not None and maker.forked:
        return
    task = asyncio.ensure_future(clean_up())
    cancelled_with: tuple[Any, ...] | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled_with = error.args
    try:
        task.result()
    finally:
        if cancelled_with is not None:
            raise asyncio.CancelledError(*cancelled_with)


class NoThread(InternalError):
    """The system lets this program have no more threads."""


def _submitted(submit: Callable[[Callable[[], None]], object], function: Callable[[], _T]) -> Future[_T]:
    """A job for a pool of threads. A pool that cannot start another thread has queued the job all the same, for one
    that is there or comes later; so it has to be called off."""
    job: Future[_T] = Future()

    def run() -> None:
        if job.set_running_or_notify_cancel():
            try:
                job.set_result(function())
            except BaseException as error:
                job.set_exception(error)

    try:
        submit(run)
    except RuntimeError as error:
        if job.cancel():
            failed: Future[_T] = Future()
            failed.set_exception(NoThread(f"no thread can be had ({error}): let this program have more and send again"))
            return failed
    return job


def typed_error(error: Exception) -> SpaceblockError:
    """``error`` if it has a type, else what wraps a fault of our own."""
    if isinstance(error, ConnectionEnded):
        return error_of_close(error.reason)
    if isinstance(error, SpaceblockError):
        return error
    internal = InternalError(f"the transfer failed unexpectedly: {error!r}; report this with what led to it")
    internal.__cause__ = error
    return internal


def damaged(name: str | None, item: int, size: int) -> str:
    """What is said of an item that was repaired."""
    what = f"the unnamed item {item}" if name is None else shown(name)
    return f"{what} was not the same on both sides: {size} bytes of it were sent once more"


def error_of_close(reason: CloseReason) -> SpaceblockError:
    """What the end of a connection means for a transfer that still runs on it."""
    if reason.timed_out:
        return ConnectionLost("nothing came from the peer for too long: check the network and that it still runs")
    if reason.was_reset:
        return ConnectionLost("the peer does not know the connection any more, as after a restart: connect again")
    text = printable(reason.reason)
    if not reason.is_application:
        return ConnectionLost(
            f"the connection broke (QUIC error {reason.code:#x}{', ' + text if text else ''}): connect again"
        )
    who = "the peer" if reason.by_peer else "this side"
    if reason.code in (ErrorCode.NO_ERROR, ErrorCode.CANCELLED):
        text = f"{who} closed the connection before the transfer was complete: connect and send again"
        return TransferCancelled(text, remote=reason.by_peer)
    text = text or f"{who} closed the connection and did not say why: connect again"
    if reason.code == ErrorCode.PROTOCOL and not reason.by_peer:
        return RemoteProtocolError(text)
    error = error_from_wire(reason.code, text)
    error.remote = reason.by_peer
    return error


def error_of_greeting(reason: CloseReason) -> SpaceblockError:
    """What the end of a connection means for who still waited to be admitted."""
    error = error_of_close(reason)
    if isinstance(error, TransferCancelled):
        return ConnectionLost("the listener closed the connection before it greeted: ask whether it still takes peers")
    return error


def spawn(tasks: set[asyncio.Task[Any]], work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
    """Start a task that ``tasks`` keeps alive until it ends."""
    task = asyncio.get_running_loop().create_task(work)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


async def cancel_all(tasks: set[asyncio.Task[Any]]) -> None:
    """Cancel what was given to :func:`spawn`, and wait until all of it has ended."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(set(tasks))
