"""quic-portal: messages of 1 MiB from memory, copied into memory that is there; an empty answer ends it."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

from side import MIB, Side, free_port

PATIENCE = 60_000
"""Milliseconds without a message after which the other side is gone."""


def main() -> None:
    side = Side(__doc__)
    portal = import_module("quic_portal").Portal()
    if side.receives:
        side.announce()
        portal.listen(side.port)
        side.start()
        done = 0
        while done < side.size:
            message = portal.recv(PATIENCE)
            if message is None:
                raise SystemExit("the sender is silent")
            side.memory[done : done + len(message)] = message
            done += len(message)
        portal.send(b"all")
        side.stop()
    else:
        messages = [bytes(side.memory[at : at + MIB]) for at in range(0, side.size, MIB)]
        portal.connect("127.0.0.1", side.port, free_port())
        side.start()
        for message in messages:
            portal.send(message)
        if portal.recv(PATIENCE) != b"all":
            raise SystemExit("the receiver is silent")
        side.stop()
    side.report()
    if side.receives:
        with suppress(RuntimeError):  # which tells that the sender has closed; until then our answer may be under way
            portal.recv(PATIENCE)
    portal.close()


if __name__ == "__main__":
    main()
