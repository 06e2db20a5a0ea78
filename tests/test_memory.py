"""What an identity remembers of its transfers: its own, and for the peer concerned alone."""

from __future__ import annotations

import os
import resource
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest

from spaceblock.errors import ErrorCode
from spaceblock.limits import REMEMBERED_MAX, REMEMBERED_SECONDS
from spaceblock.trust.identity import Identity
from spaceblock.trust.memory import Memory
from spaceblock.wire.messages import Outcome, OutcomeKind
from support import soft_limit

UUID = bytes(range(16))
OUTCOMES = (
    Outcome(OutcomeKind.VERIFIED, bytes(32), 5, "a"),
    Outcome(OutcomeKind.SKIPPED),
    Outcome(OutcomeKind.FAILED, code=ErrorCode.NO_SPACE),
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def memory_at(home: Path) -> Memory:
    """The memory of another program with the same identity."""
    return Memory(Identity.load(home))


def test_the_same_is_sent_under_the_same_uuid_until_it_has_arrived(home: Path) -> None:
    first = memory_at(home).claim("peer", ["/a"])
    assert not first.is_known
    first.release(forget=False)
    second = memory_at(home).claim("peer", ["/a"])
    assert (second.uuid, second.is_known) == (first.uuid, True)
    second.release(forget=True)
    third = memory_at(home).claim("peer", ["/a"])
    assert third.uuid != first.uuid
    third.release(forget=True)


def test_another_peer_or_source_has_another_uuid(home: Path) -> None:
    memory = memory_at(home)
    claims = [memory.claim("peer", ["/a"]), memory.claim("other", ["/a"]), memory.claim("peer", ["/b"])]
    assert len({claim.uuid for claim in claims}) == 3
    for claim in claims:
        claim.release(forget=True)


def test_what_is_being_sent_has_its_uuid_to_itself(home: Path) -> None:
    first = memory_at(home).claim("peer", ["/a"])
    second = memory_at(home).claim("peer", ["/a"])
    assert second.uuid != first.uuid
    second.release(forget=True)
    first.release(forget=False)
    first.release(forget=False)
    third = memory_at(home).claim("peer", ["/a"])
    assert third.uuid == first.uuid
    third.release(forget=True)


def test_what_cannot_be_described_is_not_remembered(home: Path) -> None:
    assert memory_at(home).claim("peer", None).uuid != memory_at(home).claim("peer", None).uuid
    assert not (home / "sending").exists()


@pytest.mark.parametrize("content", [b"", b"spblkrc\x01", b"something else", bytes(100)])
def test_a_file_that_makes_no_sense_counts_as_none(home: Path, content: bytes) -> None:
    memory_at(home).claim("peer", ["/a"]).release(forget=False)
    (path,) = (home / "sending").iterdir()
    path.write_bytes(content)
    claim = memory_at(home).claim("peer", ["/a"])
    assert not claim.is_known
    claim.release(forget=False)
    again = memory_at(home).claim("peer", ["/a"])
    assert (again.uuid, again.is_known) == (claim.uuid, True)
    again.release(forget=True)


def test_an_outcome_is_told_to_whom_it_came_from_alone(home: Path) -> None:
    memory_at(home).finish(UUID, "peer", OUTCOMES, "/inbox")
    found = memory_at(home).outcome(UUID, "peer")
    assert found is not None
    assert (found.outcomes, found.folder) == (OUTCOMES, "/inbox")
    assert memory_at(home).outcome(UUID, "other") is None
    assert memory_at(home).outcome(bytes(16), "peer") is None


def test_an_outcome_of_many_pages_is_whole(home: Path) -> None:
    many = OUTCOMES * 5_000
    memory_at(home).finish(UUID, "peer", many, "/inbox", durable=False)
    found = memory_at(home).outcome(UUID, "peer")
    assert found is not None
    assert found.outcomes == many


def test_what_a_file_has_is_not_kept_in_memory(home: Path) -> None:
    """A listener may live for a thousand transfers of a million items each."""
    memory = memory_at(home)
    memory.finish(UUID, "peer", OUTCOMES, "/inbox")
    assert not memory._outcomes
    found = memory.outcome(UUID, "peer")
    assert found is not None
    assert found.outcomes == OUTCOMES


def test_only_so_many_outcomes_are_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spaceblock.trust.memory.OUTCOMES_KEPT", 7)
    memory = Memory(Identity.ephemeral())
    for number in range(4):
        memory.finish(bytes([number] * 16), "peer", OUTCOMES)
        memory.finish(bytes([number] * 16), "peer", OUTCOMES)
    known = [memory.outcome(bytes([number] * 16), "peer") is not None for number in range(4)]
    assert known == [False, False, True, True]
    memory.finish(UUID, "peer", OUTCOMES * 3)
    assert memory.outcome(UUID, "peer") is not None, "the latest stays"


def test_a_torn_record_of_an_outcome_is_none(home: Path) -> None:
    memory_at(home).finish(UUID, "peer", OUTCOMES, "/inbox")
    (path,) = (home / "received").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert memory_at(home).outcome(UUID, "peer") is None


def test_what_is_unfinished_can_be_finished_by_whom_it_came_from(home: Path) -> None:
    memory_at(home).begin(UUID, "peer", "/inbox")
    memory = memory_at(home)
    assert memory.has_unfinished("peer")
    assert not memory.has_unfinished("other")
    assert memory.outcome(UUID, "peer") is None
    memory.finish(UUID, "peer", OUTCOMES, "/inbox")
    assert memory.outcome(UUID, "peer") is not None, "its end can still be asked for"
    assert not memory.has_unfinished("peer")


@pytest.mark.parametrize(
    ("durable", "told"), [(True, pytest.raises(OSError, match="File too large")), (False, nullcontext())]
)
def test_an_outcome_that_finds_no_room_leaves_what_was_there(
    home: Path, durable: bool, told: AbstractContextManager[object]
) -> None:
    memory = memory_at(home)
    memory.begin(UUID, "peer", "/inbox")
    with soft_limit(resource.RLIMIT_FSIZE, 4_096), told:
        memory.finish(UUID, "peer", OUTCOMES * 5_000, "/inbox", durable=durable)
    assert len(list((home / "received").iterdir())) == 1, "no draft"
    assert memory_at(home).has_unfinished("peer")
    assert memory_at(home).outcome(UUID, "peer") is None
    assert memory.outcome(UUID, "peer") is not None, "who has received it knows it while it lives"


def test_what_left_nothing_is_forgotten(home: Path) -> None:
    memory = memory_at(home)
    memory.begin(UUID, "peer", "/inbox")
    memory.forget(UUID, "peer")
    assert not memory.has_unfinished("peer")
    assert list((home / "received").iterdir()) == []


def test_only_so_much_is_remembered(home: Path) -> None:
    memory = memory_at(home)
    for number in range(REMEMBERED_MAX + 50):
        memory.begin(number.to_bytes(16, "big"), "peer", "/inbox")
    assert len(list((home / "received").iterdir())) <= REMEMBERED_MAX


def test_what_is_too_old_is_forgotten_first(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spaceblock.trust.memory.REMEMBERED_MAX", 8)
    memory = memory_at(home)
    for number in range(8):
        memory.begin(number.to_bytes(16, "big"), "peer", "/inbox")
    old = sorted((home / "received").iterdir())[:3]
    for path in old:
        os.utime(path, (time.time() - REMEMBERED_SECONDS - 1,) * 2)
    memory.begin(bytes(16), "another peer", "/inbox")
    left = set((home / "received").iterdir())
    assert len(left) == 6
    assert left.isdisjoint(old)


def test_without_a_home_outcomes_last_as_long_as_the_program() -> None:
    memory = Memory(Identity.ephemeral())
    memory.finish(UUID, "peer", OUTCOMES, "/inbox")
    found = memory.outcome(UUID, "peer")
    assert found is not None
    assert found.outcomes == OUTCOMES
    assert memory.claim("peer", ["/a"]).uuid != memory.claim("peer", ["/a"]).uuid
    assert not memory.has_unfinished("peer")


def test_a_home_that_cannot_be_written_stops_nobody_from_sending(home: Path) -> None:
    memory = memory_at(home)
    (home / "sending").write_bytes(b"in the way")
    assert not memory.claim("peer", ["/a"]).is_known


def test_what_is_complete_is_forgotten_when_that_was_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = memory_at(home)
    claims = [memory.claim("peer", [f"/{number}"]) for number in range(20)]
    for claim in claims:
        memory.complete(claim)
    assert not memory.is_told
    assert memory_at(home).claim("peer", ["/19"]).uuid != claims[19].uuid, "this program was told, as it sends it again"
    monkeypatch.setattr("spaceblock.trust.memory._over", set())
    others, first = memory_at(home).claim("peer", ["/18"]), memory_at(home).claim("peer", ["/0"])
    assert (others.uuid, others.is_known) == (claims[18].uuid, True), "another one may not have been"
    assert not first.is_known, "only the last few are kept for that"
    for claim in (others, first):
        claim.release(forget=True)


def test_nothing_is_left_of_what_was_told(home: Path) -> None:
    memory = memory_at(home)
    memory.complete(memory.claim("peer", ["/a"]))
    assert len(list((home / "sending").iterdir())) == 1
    memory.told()
    assert memory.is_told
    assert list((home / "sending").iterdir()) == []
