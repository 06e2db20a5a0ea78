"""The fault proof in short: each system call that can fail does, at its first and at a later use.

``python -m proofs faults`` tries more of them, with more errnos.
"""

from __future__ import annotations

import errno
import shutil
import sys
from typing import Any

import pytest
from proofs.faults import ERRORS, Case, judge, try_all

from engines import why_not_native
from spaceblock.options import Engine

ENGINE: Engine = "aioquic" if why_not_native() else "native"
KINDS = (
    "open stat list space lock close",
    "read write truncate sync datasync syncfs",
    "mkdir rename link symlink unlink rmdir chmod utime",
    "socket bind setsockopt getsockname send receive",
    "epoll_ctl epoll_wait eventfd thread memory",
)
FINE = [{"side": "sender", "fine": True}, {"side": "receiver", "fine": True}]
ENDED = {
    "leaks": [],
    "wrong": [],
    "missing": [],
    "left": [],
    "extra": [],
    "complaints": [],
    "ended": FINE,
    "next": FINE,
}
ERROR = {
    "fine": False,
    "type": "StorageError",
    "code": "storage",
    "errno": errno.EIO,
    "item": 0,
    "phase": "transferring",
    "exit_code": 6,
}
INTERNAL = {"type": "InternalError", "code": "internal", "errno": None, "exit_code": 1}


@pytest.mark.skipif(
    sys.platform != "linux" or shutil.which("cc") is None, reason="needs Linux and a C compiler to let calls fail"
)
@pytest.mark.parametrize("kinds", KINDS)
def test_whatever_fails_both_sides_know_and_the_next_transfer_works(kinds: str) -> None:
    assert "calls failed" in try_all(ENGINE, 2, kinds.split(), one_error=True)


def test_every_kind_of_call_is_tried() -> None:
    assert sorted(" ".join(KINDS).split()) == sorted(ERRORS)


def failed(ours: dict[str, Any], theirs: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"side": "sender", "remote": True, **ERROR, **ours},
        {"side": "receiver", "remote": False, **ERROR, **theirs},
    ]


@pytest.mark.parametrize(
    "answer",
    [
        {"hangs": "the transfer hangs"},
        {**ENDED, "leaks": ["17 socket"]},
        {**ENDED, "wrong": ["x/large"]},
        {**ENDED, "next": failed({}, {})},
        {**ENDED, "complaints": ["Task exception was never retrieved"]},
        {**ENDED, "ended": failed({"phase": "verifying"}, {})},
        {**ENDED, "ended": failed({"errno": 1}, {"errno": 1})},
        {**ENDED, "ended": failed({}, {"remote": True})},
        {**ENDED, "ended": failed(INTERNAL, INTERNAL)},
        {**ENDED, "ended": [{"side": "around", "fine": False, "raised": "OSError()"}]},
    ],
)
def test_what_is_wrong_is_found(answer: dict[str, Any]) -> None:
    case = Case(ENGINE, "write", 1, 1, 1, errno.EIO)
    assert judge(case, ENDED) == []
    assert judge(case, {**ENDED, "ended": failed({}, {})}) == []
    assert judge(case, answer)


def test_what_lacks_memory_may_fail_in_any_way_that_has_a_type() -> None:
    case = Case(ENGINE, "memory", 7, 1, 1, errno.ENOMEM)
    assert judge(case, {**ENDED, "ended": failed({}, {"errno": 1})}) == []
    assert judge(case, {**ENDED, "ended": [{"side": "around", "fine": False, "raised": "MemoryError()"}]})
