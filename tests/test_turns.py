"""What a worker deals with in its turn: everything once, in order, by one thread at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from spaceblock.storage.turns import Turns


class Jobs:
    """Workers that begin when they are told to."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def work(self, job: Callable[[], None]) -> None:
        self.waiting.append(job)

    def run(self) -> None:
        job = self.waiting.pop()
        assert not self.waiting, "one worker at a time"
        job()


def test_all_that_came_is_handled_together_and_by_one_worker() -> None:
    jobs, handled = Jobs(), list[list[int]]()
    turns: Turns[int] = Turns(jobs.work, handled.append)
    turns.add([1, 2])
    turns.add([3])
    jobs.run()
    assert handled == [[1, 2, 3]]
    turns.add([4])
    jobs.run()
    assert handled == [[1, 2, 3], [4]]
    assert not jobs.waiting


def test_what_comes_meanwhile_needs_no_other_worker() -> None:
    jobs, handled = Jobs(), list[list[int]]()

    def handle(things: list[int]) -> None:
        handled.append(things)
        if things[0] < 3:
            turns.add([things[0] + 1])

    turns: Turns[int] = Turns(jobs.work, handle)
    turns.add([1])
    jobs.run()
    assert handled == [[1], [2], [3]]
    assert not jobs.waiting


def test_what_nobody_has_taken_can_be_forgotten() -> None:
    jobs, handled = Jobs(), list[list[int]]()
    turns: Turns[int] = Turns(jobs.work, handled.append)
    turns.add([1])
    turns.clear()
    jobs.run()
    turns.add([2])
    jobs.run()
    assert handled == [[2]]


def test_after_an_error_nothing_more_is_handled() -> None:
    jobs, handled = Jobs(), list[int]()

    def handle(things: list[int]) -> None:
        handled.extend(things)
        raise ValueError(things)

    turns: Turns[int] = Turns(jobs.work, handle)
    turns.add([1])
    with pytest.raises(ValueError, match="1"):
        jobs.run()
    turns.add([2])
    assert not jobs.waiting
    assert handled == [1]


def test_a_worker_without_work_waits_for_more_until_little_is_to_come() -> None:
    handled = queue.SimpleQueue[list[int]]()
    began: list[Callable[[], None]] = []
    turns: Turns[int] = Turns(began.append, handled.put, linger=60)
    turns.add([1])
    worker = threading.Thread(target=began.pop())
    worker.start()
    assert handled.get(timeout=60) == [1]
    turns.add([2])
    assert handled.get(timeout=60) == [2]
    assert not began
    turns.finish()
    worker.join(30)
    assert not worker.is_alive()
    turns.add([3])
    began.pop()()
    assert handled.get(timeout=60) == [3]


def test_threads_that_add_at_once_lose_nothing() -> None:
    handled: list[Any] = []
    with ThreadPoolExecutor(4) as workers:
        turns: Turns[tuple[int, int]] = Turns(workers.submit, handled.extend)
        start = threading.Barrier(3)

        def add(who: int) -> None:
            start.wait(60)
            for number in range(2_000):
                turns.add([(who, number)])

        adding = [threading.Thread(target=add, args=[who]) for who in range(3)]
        for thread in adding:
            thread.start()
        for thread in adding:
            thread.join()
    assert sorted(handled) == [(who, number) for who in range(3) for number in range(2_000)]
    for who in range(3):
        assert [number for whose, number in handled if whose == who] == list(range(2_000))
