"""What both state machines do before data moves: ask for other names, at most three times, and compare."""

from __future__ import annotations

import pytest

from spaceblock.blocks import SpaceblockRequest, SpaceblockRequests
from spaceblock.errors import ErrorCode, LimitExceeded, LocalProtocolError, RemoteProtocolError, SourceError
from spaceblock.limits import MESSAGE_PAYLOAD_MAX, NAME_ROUNDS, Limits
from spaceblock.names import NameRules, Problem
from spaceblock.protocol.receiver import Receiver, State
from spaceblock.protocol.receiver_events import Amended, ItemLost, Settled
from spaceblock.protocol.sender import Answered, Completed, NamesRefused, Sender
from spaceblock.wire.manifest import Entry, EntryKind, Manifest
from spaceblock.wire.messages import (
    Amend,
    Amendment,
    AnswerPage,
    Feature,
    Hashed,
    ItemAbort,
    ItemDigest,
    ItemEnd,
    Message,
    NameProblem,
    NameProblems,
    NameRule,
    NameUnit,
    Outcome,
    OutcomeKind,
    System,
    Verdict,
    VerdictKind,
    VerifiedPage,
    decode_message,
)
from support import manifest_of

BOTH = Feature.RENAME | Feature.COMPARE
LIMITS = NameRules(System.WINDOWS, 255, NameUnit.UTF16, 32_000, 12)
DIGEST, OTHER = bytes(32), bytes(31) + b"\1"


def pair(*names: str, features: Feature = BOTH, limits: Limits | None = None) -> tuple[Sender, Receiver]:
    """A sender that has offered these files of five bytes, and the receiver that has read the offer."""
    requests = SpaceblockRequests(bytes(16), 1 << 17, tuple(SpaceblockRequest(5) for _ in names))
    sender = Sender(requests, manifest_of(*names), features, System.WINDOWS)
    receiver = Receiver(limits or Limits(), features)
    for page in sender.offer():
        receiver.receive_message(page)
    return sender, receiver


def travelled(messages: list[Message]) -> list[Message]:
    """Messages as they come out at the other end."""
    arrived = []
    for message in messages:
        data = message.encode()
        assert len(data) <= MESSAGE_PAYLOAD_MAX + 8
        head = 1 + (1, 2, 4, 8)[data[1] >> 6]
        found = decode_message(data[0], data[head:])
        assert found is not None
        arrived.append(found)
    return arrived


def refused(sender: Sender, receiver: Receiver) -> NamesRefused:
    """What the sender learns when the receiver has asked."""
    *nothing, (event,) = [sender.receive_message(message) for message in travelled(receiver.messages_to_send())]
    assert nothing == [[]] * len(nothing)
    assert isinstance(event, NamesRefused)
    return event


def amended(sender: Sender, receiver: Receiver) -> Amended:
    *nothing, (event,) = [receiver.receive_message(message) for message in travelled(sender.messages_to_send())]
    assert nothing == [[]] * len(nothing)
    assert isinstance(event, Amended)
    return event


# Names.


def test_the_receiver_asks_and_the_sender_answers() -> None:
    sender, receiver = pair("a:", "b")
    receiver.ask_for_names(LIMITS, [Problem(0, NameRule.CHARACTER, "contains ':'")])
    event = refused(sender, receiver)
    assert event == NamesRefused(LIMITS, (Problem(0, NameRule.CHARACTER, "contains ':'"),))
    sender.amend({0: "a"})
    answer = amended(sender, receiver)
    assert answer.changed
    assert answer.manifest == sender.manifest == manifest_of("a", "b")
    receiver.accept()
    assert receiver.state is State.MOVING


def test_thousands_of_problems_and_names_come_in_pages() -> None:
    names = [f"{number}-{'é' * 100}" for number in range(2_000)]
    sender, receiver = pair(*names)
    problems = [Problem(entry, NameRule.TOO_LONG, "is too long " * 20) for entry in range(2_000)]
    receiver.ask_for_names(LIMITS, problems)
    assert refused(sender, receiver).problems == tuple(problems)
    sender.amend({entry: f"x{entry}-{'é' * 100}" for entry in range(2_000)})
    assert amended(sender, receiver).manifest == sender.manifest


def test_a_sender_that_has_nobody_to_ask_changes_nothing() -> None:
    sender, receiver = pair("a:")
    receiver.ask_for_names(LIMITS, [Problem(0, NameRule.CHARACTER, "contains ':'")])
    refused(sender, receiver)
    sender.amend({})
    assert not amended(sender, receiver).changed


def test_three_rounds_are_enough() -> None:
    sender, receiver = pair("a:")
    for _ in range(NAME_ROUNDS):
        assert receiver.may_ask_for_names
        receiver.ask_for_names(LIMITS, [Problem(0, NameRule.CHARACTER, "is bad")])
        refused(sender, receiver)
        sender.amend({})
        amended(sender, receiver)
    assert not receiver.may_ask_for_names
    with pytest.raises(RemoteProtocolError, match="more than 3 times"):
        sender.receive_message(NameProblems(0, NameUnit.BYTES, 0, 0, True, ()))


def test_who_waits_for_an_answer_does_not_ask_again() -> None:
    _, receiver = pair("a:")
    receiver.ask_for_names(LIMITS, [Problem(0, NameRule.CHARACTER, "is bad")])
    assert not receiver.may_ask_for_names


def test_without_the_feature_nobody_asks() -> None:
    sender, receiver = pair("a:", features=Feature.COMPARE)
    assert not receiver.may_ask_for_names
    with pytest.raises(RemoteProtocolError, match="not agreed on"):
        sender.receive_message(NameProblems(0, NameUnit.BYTES, 0, 0, True, ()))


def test_words_from_the_receiver_are_safe_to_print_and_cut() -> None:
    sender, receiver = pair("a", "b")
    receiver.ask_for_names(LIMITS, [Problem(0, 99, "\x1b[2J" + "x" * 5_000), Problem(1, NameRule.EXISTS, "")])
    first, second = refused(sender, receiver).problems
    assert first.rule == 99, "a rule from the future is told by its words"
    assert first.reason.startswith("\\x1b[2J")
    assert len(first.reason) <= 500
    assert second.reason


@pytest.mark.parametrize(
    "problems",
    [[NameProblem(2, 3, "")], [NameProblem(0, 3, ""), NameProblem(0, 3, "")], [NameProblem(2**62 - 1, 3, "")]],
)
def test_problems_must_be_of_entries_that_were_offered(problems: list[NameProblem]) -> None:
    sender, _ = pair("a", "b")
    with pytest.raises(RemoteProtocolError, match="was not offered"):
        sender.receive_message(NameProblems(255, NameUnit.BYTES, 4_000, 0, True, tuple(problems)))


def test_a_receiver_cannot_refuse_names_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spaceblock.protocol.sender.NAME_PROBLEMS_MAX", 2)
    sender, _ = pair("a", "b", "c")
    pages = [NameProblems(1, NameUnit.BYTES, 1, 0, False, (NameProblem(entry, 1, ""),)) for entry in range(3)]
    sender.receive_message(pages[0])
    sender.receive_message(pages[1])
    with pytest.raises(RemoteProtocolError, match="more than 2 names"):
        sender.receive_message(pages[2])


def test_an_offer_without_names_has_no_problem_with_them() -> None:
    sender = Sender(SpaceblockRequests(bytes(16), 1 << 17, (SpaceblockRequest(1),)), None, BOTH)
    with pytest.raises(RemoteProtocolError):
        sender.receive_message(NameProblems(255, NameUnit.BYTES, 4_000, 0, True, (NameProblem(0, 3, ""),)))


def test_neither_answer_nor_problems_may_come_before_the_other_names() -> None:
    for message in (AnswerPage(True, 0, (Verdict(VerdictKind.ALL),)), NameProblems(1, NameUnit.BYTES, 1, 0, True, ())):
        sender, receiver = pair("a")
        receiver.ask_for_names(LIMITS, [Problem(0, NameRule.CHARACTER, "is bad")])
        refused(sender, receiver)
        with pytest.raises(RemoteProtocolError):
            sender.receive_message(message)


def test_pages_of_problems_and_of_the_answer_are_not_mixed() -> None:
    sender, _ = pair("a", "b")
    sender.receive_message(NameProblems(255, NameUnit.BYTES, 4_000, 0, False, (NameProblem(0, 3, ""),)))
    with pytest.raises(RemoteProtocolError):
        sender.receive_message(AnswerPage(True, 0, (Verdict(VerdictKind.ALL),) * 2))
    sender, _ = pair("a", "b")
    sender.receive_message(AnswerPage(False, 0, (Verdict(VerdictKind.ALL),)))
    with pytest.raises(RemoteProtocolError):
        sender.receive_message(NameProblems(255, NameUnit.BYTES, 4_000, 0, True, ()))


def asked(*names: str, limits: Limits | None = None) -> Receiver:
    """A receiver that waits for other names."""
    _, receiver = pair(*names, limits=limits)
    receiver.ask_for_names(LIMITS, [Problem(0, NameRule.CHARACTER, "is bad")])
    receiver.messages_to_send()
    return receiver


@pytest.mark.parametrize(
    "amendments",
    [
        [Amendment(2, "x")],
        [Amendment(0, "x"), Amendment(0, "y")],
        [Amendment(0, "b")],
        [Amendment(0, "x"), Amendment(1, "x")],
    ],
)
def test_other_names_must_fit_the_manifest(amendments: list[Amendment]) -> None:
    with pytest.raises(RemoteProtocolError):
        asked("a", "b").receive_message(Amend(True, tuple(amendments)))


def test_two_entries_may_change_places() -> None:
    (event,) = asked("a", "b").receive_message(Amend(True, (Amendment(0, "b"), Amendment(1, "a"))))
    assert event == Amended(manifest_of("b", "a"), True)


def test_other_names_come_only_when_asked_for_and_once() -> None:
    _, receiver = pair("a")
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        receiver.receive_message(Amend(True, ()))
    receiver = asked("a")
    receiver.receive_message(Amend(True, ()))
    with pytest.raises(RemoteProtocolError, match="nobody asked for"):
        receiver.receive_message(Amend(True, ()))
    receiver.accept()
    with pytest.raises(RemoteProtocolError):
        receiver.receive_message(Amend(True, ()))


def test_other_names_without_end_meet_the_limit() -> None:
    receiver = asked("a", "b", limits=Limits(manifest_bytes=1_000))
    receiver.receive_message(Amend(False, ()), 900)
    with pytest.raises(LimitExceeded):
        receiver.receive_message(Amend(False, ()), 900)


def test_after_the_end_nothing_is_amended() -> None:
    sender, receiver = pair("a")
    receiver.ask_for_names(LIMITS, [Problem(0, NameRule.CHARACTER, "is bad")])
    refused(sender, receiver)
    sender.fail(SourceError("gone: send again"))
    sender.messages_to_send()
    sender.amend({0: "x"})
    assert sender.messages_to_send() == []


def test_names_that_become_equal_are_this_sides_mistake() -> None:
    manifest = Manifest((Entry(EntryKind.FILE, "a", 0), Entry(EntryKind.FOLDER, "b")), 1)
    with pytest.raises(LocalProtocolError):
        manifest.renamed({0: "b"})


# What is there already.


def compared(*names: str, compare: tuple[int, ...] = (0,)) -> tuple[Sender, Receiver]:
    """Both sides when the receiver has answered that it has some of the items."""
    sender, receiver = pair(*names)
    assert receiver.accept(compare=compare) == []
    (answer,) = travelled(receiver.messages_to_send())
    wanted = tuple(item for item in range(len(names)) if item not in compare)
    assert sender.receive_message(answer) == [Answered(wanted, compare)]
    return sender, receiver


@pytest.mark.parametrize("receiver_first", [False, True])
def test_equal_digests_verify_an_item_that_did_not_travel(receiver_first: bool) -> None:
    sender, receiver = compared("a")
    assert not receiver.expects_data()
    sender.item_sent(0, 5, DIGEST)
    (told,) = travelled(sender.messages_to_send())
    if receiver_first:
        assert receiver.item_found(0, DIGEST, "a") == []
        events = receiver.receive_message(told)
    else:
        assert receiver.receive_message(told) == []
        events = receiver.item_found(0, DIGEST, "a")
    verified = Outcome(OutcomeKind.VERIFIED, DIGEST, 5, "a")
    assert events == [Settled((verified,), {})]
    assert receiver.compared(0)
    (page,) = travelled(receiver.messages_to_send())
    assert sender.receive_message(page) == [Completed((verified,), {})]


def test_other_digests_leave_an_item_skipped() -> None:
    sender, receiver = compared("a")
    sender.item_sent(0, 5, OTHER)
    (told,) = travelled(sender.messages_to_send())
    receiver.receive_message(told)
    skipped = Outcome(OutcomeKind.SKIPPED)
    assert receiver.item_found(0, DIGEST, "a") == [Settled((skipped,), {})]
    (page,) = travelled(receiver.messages_to_send())
    assert sender.receive_message(page) == [Completed((skipped,), {})]


def test_each_side_says_how_much_it_has_read() -> None:
    sender, receiver = compared("a")
    for side, other in ((sender, receiver), (receiver, sender)):
        for size, told in [(2, [Hashed(2)]), (2, []), (1, []), (9, [Hashed(5)]), (10, [])]:
            side.hashed(size)
            messages = travelled(side.messages_to_send())
            assert messages == told
            for message in messages:
                assert other.receive_message(message) == []


@pytest.mark.parametrize("size", [0, 2, 1, 6, 2**62 - 1])
def test_nobody_is_at_work_without_end(size: int) -> None:
    sender, receiver = compared("a")
    for side in (sender, receiver):
        side.receive_message(Hashed(2))
        with pytest.raises(RemoteProtocolError, match=f"read {size} bytes after 2"):
            side.receive_message(Hashed(size))


def test_data_of_an_item_that_is_compared_is_a_lie() -> None:
    _, receiver = compared("a", "b")
    with pytest.raises(RemoteProtocolError, match="was not asked for"):
        receiver.block(1, 0, 0, 5)
    with pytest.raises(RemoteProtocolError):
        receiver.item_end(1, ItemEnd(0, 5))


def test_a_sender_that_cannot_hash_gives_the_item_up() -> None:
    _, receiver = compared("a")
    abort = ItemAbort(0, ErrorCode.SOURCE_CHANGED, 0, "", "it grew")
    events = receiver.item_abort(1, abort)
    assert [type(event) for event in events] == [ItemLost, Settled]
    _, receiver = compared("a")
    receiver.receive_message(ItemDigest(0, 5, DIGEST))
    with pytest.raises(RemoteProtocolError, match="after its end"):
        receiver.item_abort(1, abort)


def test_a_receiver_that_cannot_hash_fails_the_item() -> None:
    sender, receiver = compared("a")
    receiver.item_failed(0, SourceError("cannot read it: look at the disk"))
    failed, page = travelled(receiver.messages_to_send())
    sender.receive_message(failed)
    (event,) = sender.receive_message(page)
    assert isinstance(event, Completed)
    assert set(event.errors) == {0}


def test_comparing_takes_both_sides() -> None:
    sender, _ = pair("a", features=Feature.RENAME)
    with pytest.raises(RemoteProtocolError, match="not agreed on"):
        sender.receive_message(AnswerPage(True, 0, (Verdict(VerdictKind.COMPARE),)))


def test_a_receiver_cannot_verify_what_the_sender_has_not_hashed() -> None:
    sender, _ = compared("a")
    with pytest.raises(RemoteProtocolError, match="was not sent"):
        sender.receive_message(VerifiedPage(True, 0, (Outcome(OutcomeKind.VERIFIED, DIGEST, 5, "a"),)))
