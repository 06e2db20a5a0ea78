"""Send a folder, with all that is below it. Names travel as they are; nothing that exists is overwritten."""

from __future__ import annotations

from pathlib import Path

import spaceblock


async def test_send_a_folder(tmp_path: Path, downloads: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "summer").mkdir(parents=True)
    (photos / "summer" / "beach.jpg").write_bytes(b"sand")
    (photos / "cat.jpg").write_bytes(b"fur")
    (photos / "empty").mkdir()

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(photos)
        offer = await anext(aiter(listener))
        await offer.accept(downloads)
        await sending

    assert (downloads / "photos" / "summer" / "beach.jpg").read_bytes() == b"sand"
    assert (downloads / "photos" / "cat.jpg").read_bytes() == b"fur"
    assert (downloads / "photos" / "empty").is_dir()


async def test_a_file_that_exists_is_kept_and_the_new_one_gets_another_name(tmp_path: Path, downloads: Path) -> None:
    (downloads / "notes.txt").write_text("mine")
    (tmp_path / "notes.txt").write_text("yours")

    async with spaceblock.listen("127.0.0.1") as listener, spaceblock.connect(listener.ticket) as peer:
        sending = peer.send(tmp_path / "notes.txt")
        offer = await anext(aiter(listener))
        await offer.accept(downloads, on_conflict="rename")  # or "skip", "overwrite", "error"
        receipt = await sending

    assert receipt.items[0].path == "notes (1).txt", "the sender is told where its file is"
    assert (downloads / "notes.txt").read_text() == "mine"
    assert (downloads / "notes (1).txt").read_text() == "yours"
