"""What the sides that run in the peers' interpreter share; that one has no Spaceblock, so this needs nothing at all."""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import socket
import time

MIB = 1_048_576


class Side:
    """One side: its words, its bytes, its clock and its report. Both sides' bytes are the same each time."""

    def __init__(self, description: str | None) -> None:
        parser = argparse.ArgumentParser(description=description)
        parser.add_argument("role", choices=["receive", "send"])
        parser.add_argument("--size", type=int, default=64 * MIB, help="bytes to move")
        parser.add_argument("--datagram", type=int, default=1452, help="bytes of a datagram, where that can be chosen")
        parser.add_argument("--to", help="the receiver's port, for the role send")
        parser.add_argument("--certificate", default=".", help="the folder of certificate.pem and key.pem")
        arguments = parser.parse_args()
        self.receives: bool = arguments.role == "receive"
        self.size: int = arguments.size
        self.datagram: int = arguments.datagram
        self.certificate: str = arguments.certificate
        self.port = free_port() if self.receives else int(arguments.to)
        """The receiver's."""
        if self.receives:
            self.memory = bytearray(self.size)
            self.memory[::4096] = bytes(len(range(0, self.size, 4096)))  # its pages are present from now on
        else:
            piece = random.Random(0).randbytes(MIB)
            self.memory = bytearray(piece * (self.size // MIB) + piece[: self.size % MIB])

    def announce(self) -> None:
        """Tell the port."""
        print(self.port, flush=True)

    def start(self) -> None:
        """The handshake is complete."""
        self._cpu, self._clock = time.process_time(), time.monotonic()

    def stop(self) -> None:
        """The transfer is over."""
        self._cpu, self._clock = time.process_time() - self._cpu, time.monotonic() - self._clock

    def report(self) -> None:
        """Print it, with a digest of what there is in memory. Nobody hashed while the clock ran."""
        digest = hashlib.blake2b(self.memory).hexdigest()
        print(json.dumps({"digest": digest, "seconds": self._clock, "cpu": self._cpu}), flush=True)


def free_port() -> int:
    """A UDP port that nobody had a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
