"""UDP sockets in batches: many datagrams received in one call, coalesced (GRO), and many sent as one train (GSO).

Linux does both. Elsewhere, and where a device refuses trains, datagrams go one by one, and callers notice nothing. No
call ever waits, whatever the socket's time-out. A ``sock`` is a socket or whatever stands for one; an address is
numeric, as the socket module has it. No object here is safe for concurrent use.
"""

import socket
from asyncio.trsock import TransportSocket
from typing import NamedTuple, TypeAlias, final

_Socket: TypeAlias = socket.socket | TransportSocket
_Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]

__pyx_capi__: dict[str, object]
"""What other compiled modules link to."""

class Datagrams(NamedTuple):
    """Datagrams from one sender: ``data`` in pieces of ``segment`` bytes, the last of which may be shorter."""

    data: memoryview
    """Valid until the next ``receive_from()``, which overwrites it."""
    segment: int
    address: _Address | None
    """None when the sender has no Internet address."""
    ecn: int
    """The two ECN bits of the IP headers; 0 where the system does not tell."""
    truncated: bool
    """More arrived than the buffer holds, or the segment size is not known: drop all of it."""

@final
class ReceiveBatch:
    """Up to 64 buffers for one socket or several; below 65536 bytes each, coalesced datagrams may be truncated."""

    def __new__(cls, count: int = 8, room: int = 65536) -> ReceiveBatch: ...
    @property
    def count(self) -> int: ...
    @property
    def room(self) -> int: ...
    @property
    def soft_errors(self) -> int:
        """Errors that ICMP messages caused and that were ignored, here on receiving."""

    def receive_from(self, sock: _Socket) -> int:
        """Fill buffers from what waits in the socket and return how many; 0 when nothing waits.

        OSError for what no other datagram can have caused.
        """

    def buffers(self) -> list[Datagrams]:
        """What the last ``receive_from()`` filled."""

@final
class SendBatch:
    """The buffer in which one socket's datagrams are put together and sent as trains."""

    def __new__(cls, room: int = 65535, gso: bool = True) -> SendBatch: ...
    @property
    def room(self) -> int: ...
    gso: bool
    """Whether trains are offered to the kernel. Cleared when it refuses them; may be set or cleared at any time."""
    ecn: int
    """The two ECN bits for the IP headers of what is sent, 0 to 3; 0 leaves the socket's own. Linux only."""
    @property
    def sent(self) -> int:
        """Bytes of the batch in hand that were sent; not 0 only after ``send()`` returned False."""

    @property
    def soft_errors(self) -> int:
        """Errors that ICMP messages caused and that were ignored, here on sending."""

    @property
    def buffer(self) -> memoryview:
        """Where a batch is written, from the start: ``room`` writable bytes."""

    def send(self, sock: _Socket, segment: int, total: int, address: _Address | None = None) -> bool:
        """Send the first ``total`` bytes of ``buffer`` as datagrams of ``segment`` bytes, the last may be shorter.

        False when the socket's buffer is full: leave ``buffer`` alone and call again with the same arguments to go on,
        or ``drop()`` the rest. OSError when the system refuses to send: then the rest is dropped. ``address`` is left
        out on a connected socket.
        """

    def drop(self) -> None:
        """Forget what was not sent."""

class SocketFacts(NamedTuple):
    """What a socket can do; sizes are bytes, comparable with what was asked for."""

    gso: bool
    gro: bool
    receive_buffer: int
    send_buffer: int

def prepare_socket(sock: _Socket, *, gro: bool, receive_buffer: int, send_buffer: int) -> SocketFacts:
    """Make a UDP socket fit for QUIC: large buffers, ECN bits told, no fragmentation, and coalescing as asked.

    Each as far as the system allows; nothing is raised for what it lacks. Buffers are never made smaller. A train's
    size is not left set on the socket, so that other senders may use it.
    """
