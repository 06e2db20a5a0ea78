"""Handle an error: every one is a ``SpaceblockError`` with a stable ``code``, a sentence for people, and, where one
fits, a standard exception as well."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

import spaceblock


async def test_the_receivers_trouble_is_told_to_the_sender(tmp_path: Path) -> None:
    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(b"data")
        offer = await anext(aiter(listener))

        with pytest.raises(spaceblock.TargetMissing):
            await offer.accept(tmp_path / "no such folder")
        with pytest.raises(spaceblock.TargetMissing) as told:
            await sending

    error = told.value
    assert error.code == "target_missing", "a word for programs that never changes"
    assert "create the folder" in str(error), "one sentence: what happened, and what to do"
    assert error.remote, "it happened on the other side"
    assert isinstance(error, FileNotFoundError)
    assert error.errno == errno.ENOENT


async def test_where_some_items_fail_the_error_says_what_did_arrive(tmp_path: Path, downloads: Path) -> None:
    kept, lost = tmp_path / "kept.txt", tmp_path / "lost.txt"
    kept.write_text("still here")
    lost.write_text("not for long")

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(kept, lost)
        offer = await anext(aiter(listener))
        lost.unlink()

        with pytest.raises(spaceblock.SourceError):
            await offer.accept(downloads)
        with pytest.raises(spaceblock.SourceError) as failure:
            await sending

    assert failure.value.item == 1
    assert failure.value.receipt is not None
    assert [item.path for item in failure.value.receipt.items] == ["kept.txt"]


@pytest.mark.parametrize("ticket", ["", "hello", "sb2aaaa"])
async def test_what_is_no_ticket_is_a_value_error(ticket: str) -> None:
    with pytest.raises(ValueError, match="ticket") as error:
        async with spaceblock.connect(ticket):
            pass
    assert isinstance(error.value, spaceblock.TicketMalformed)


async def test_where_nobody_listens_any_more_it_is_a_connection_error() -> None:
    async with spaceblock.listen("127.0.0.1") as listener:
        ticket = listener.ticket
    with pytest.raises(ConnectionError):
        async with spaceblock.connect(ticket):
            pass
