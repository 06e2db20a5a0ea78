# Invariant: in whatever pieces and order a stream's bytes come, twice or overlapping, its reader gets each of them
# once and in order; what contradicts a final size is found; a sender whose packets are lost and acknowledged in any
# order sends everything, and lets go of its buffers.
"""The two directions of a stream, each against a model."""

from __future__ import annotations

from collections.abc import Hashable

from spaceblock.quic.native.streams import ReceiveStream, SendStream

from .choices import Choices, kind_of

ALL = 2**62 - 1
CONTENT = bytes((i * 31 + i // 256) % 256 for i in range(70_000))


def fuzz(data: bytes) -> Hashable:
    choices = Choices(data)
    return _receive(choices) if choices.byte() & 1 == 0 else _send(choices)


def seeds() -> dict[str, bytes]:
    def frame(offset: int, size: int, fin: int = 0) -> bytes:
        return offset.to_bytes(2, "big") + size.to_bytes(2, "big") + bytes([fin])

    return {
        "in-order": b"\0" + frame(0, 10) + frame(10, 20) + frame(30, 0, 1),
        "gaps": b"\0" + frame(20, 10, 1) + frame(5, 5) + frame(0, 7) + frame(8, 14),
        "overlaps": b"\0" + frame(0, 100) + frame(50, 100) + frame(0, 200) + frame(150, 50, 1),
        "final-size-changed": b"\0" + frame(0, 10, 1) + frame(5, 10),
        "many-gaps": b"\0" + b"".join(frame(2 * i + 1, 1) for i in range(300)),
        "sent": b"\1\0\x64\2\0\x0a\2\0\x14\3\0\1\0\1\1\2\xff\xff\3\0",
        "lost": b"\1\0\x64\1\2\0\x0a\2\0\x0a\2\0\x0a\4\1\4\0\2\0\x06\3\0\3\0\3\0",
        "given-up": b"\1\0\x64\0\2\0\x0a\5",
    }


def _receive(choices: Choices) -> Hashable:
    stream = ReceiveStream(0, ALL)
    taken, known, final = b"", set[int](), None
    happened = set[str]()
    while choices:
        offset, size, fin = choices.number(2), choices.number(2) % 4_000, choices.byte() & 1
        try:
            data, ended = stream.receive_frame(offset, CONTENT[offset : offset + size], bool(fin))
        except ValueError as error:
            happened.add(kind_of(error))
            break
        stop = offset + len(CONTENT[offset : offset + size])
        if not stream.finished or ended:
            known.update(range(offset, stop))
            final = stop if fin and final is None else final
        taken += data
        arrived = next(i for i in range(len(taken), len(CONTENT) + 2) if i not in known)
        assert taken == CONTENT[: len(taken)]
        assert stream.arrived == len(taken) == arrived
        assert final is None or max(known, default=-1) < final
        assert stream.finished == (final is not None and arrived == final)
        happened.add(str(bool(data)))
    return "receiver", frozenset(happened), stream.finished


def _send(choices: Choices) -> Hashable:
    stream = SendStream(0, 0)
    packets: list[tuple[int, bytes, bool]] = []
    arrived: dict[int, int] = {}
    written, held, ended, given_up = 0, 0, False, False

    def release() -> None:
        nonlocal held
        held -= 1

    def arrive(packet: tuple[int, bytes, bool]) -> None:
        offset, data, fin = packet
        stream.acknowledge(offset, offset + len(data), fin)
        arrived.update(enumerate(data, offset))

    while choices and not given_up:
        step = choices.below(6)
        if step == 0 and not ended:
            size = choices.number(2) % 3_000
            ended = bool(choices.byte() & 1) or written + size > 60_000
            held += 1
            stream.write(CONTENT[written : written + size], ended, release)
            written += size
        elif step == 1:
            stream.limit += choices.number(2)
        elif step == 2:
            run = stream.send(1 + choices.below(1_200), choices.number(2))
            if run is not None:
                offset, data, fin = run
                assert data == CONTENT[offset : offset + len(data)]
                assert offset + len(data) <= min(written, stream.limit)
                assert not fin or (ended and offset + len(data) == written)
                packets.append(run)
        elif step in (3, 4) and packets:
            offset, data, fin = packet = packets.pop(choices.byte() % len(packets))
            if step == 3:
                arrive(packet)
            else:
                stream.lose(offset, offset + len(data), fin)
        elif step == 5:
            given_up = True
            stream.give_up()
            assert stream.backlog == 0
    if not given_up:
        stream.limit = ALL
        for offset, data, fin in packets:
            stream.lose(offset, offset + len(data), fin)
        while (again := stream.send(1_000, ALL)) is not None:
            arrive(again)
        assert sorted(arrived) == list(range(written))
        assert stream.finished == ended
        assert stream.backlog == 0
    assert held == 0
    return "sender", written > 0, ended, given_up
