# cython: language_level=3, auto_pickle=False
"""One socket's datagrams, moved between the kernel and the engines behind it without the GIL.

Rules: a call takes in a few batches, and after each one every engine that got something sends what is due, once: its
acknowledgement, and whatever the peer's has made possible. What belongs to no engine is left for Python. Nothing waits
here. A train that a full socket does not take is kept, and nothing is sent before it. Times are microseconds on the
monotonic clock.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EMSGSIZE, ENOBUFS
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from spaceblock.quic.native.engine cimport LOCAL_CID_SIZE
from spaceblock.quic.native.probing cimport same_address
from spaceblock.quic.native.udp cimport sockaddr, unpack_address

cimport cython

cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *out)

BUFFERS = 4
"""Receive buffers, of up to 64 KiB each, that are taken in before the engines answer: more would leave the cache."""

ROUNDS = 8
"""Times that this is done before the event loop gets its turn: about 2 MiB."""

TRAINS = 16
"""Trains of one engine that are sent before others get their turn: about 1 MiB."""

cdef enum Sent:
    ALL_SENT  # nothing is left that may be sent now
    MORE_TO_SEND  # sending stopped only to give others their turn
    SOCKET_FULL
    KEY_USED_UP  # the key has sealed as many packets as it may

cdef int _ROUNDS = ROUNDS
cdef int _TRAINS = TRAINS


cdef int64_t clock() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1_000_000 + now.tv_nsec // 1_000


@cython.final
cdef class Routes:
    """A hash table of connection IDs, which are random where they are issued."""

    def __cinit__(self):
        self.capacity = 64
        self.places = <Route *>calloc(self.capacity, sizeof(Route))
        if self.places == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.places)

    cdef size_t place_of(self, uint64_t cid) noexcept nogil:
        # Where it is, or the free place where it would be; there is always one.
        cdef size_t at = (cid * <uint64_t>0x9E3779B97F4A7C15 >> 32) & (self.capacity - 1)
        while self.places[at].engine != NULL and self.places[at].cid != cid:
            at = (at + 1) & (self.capacity - 1)
        return at

    cdef void *find(self, uint64_t cid) noexcept nogil:
        return self.places[self.place_of(cid)].engine

    cdef int put(self, uint64_t cid, void *engine) except -1:
        cdef size_t at
        if 2 * (self.count + 1) > self.capacity:
            self.grow()
        at = self.place_of(cid)
        if self.places[at].engine == NULL:
            self.count += 1
        self.places[at].cid = cid
        self.places[at].engine = engine
        return 0

    cdef void drop(self, uint64_t cid) noexcept nogil:
        # Those behind it, up to the next free place, are looked for from its place on.
        cdef size_t at = self.place_of(cid)
        cdef Route moved
        if self.places[at].engine == NULL:
            return
        self.count -= 1
        self.places[at].engine = NULL
        at = (at + 1) & (self.capacity - 1)
        while self.places[at].engine != NULL:
            moved = self.places[at]
            self.places[at].engine = NULL
            self.places[self.place_of(moved.cid)] = moved
            at = (at + 1) & (self.capacity - 1)

    cdef int grow(self) except -1:
        cdef Route *old = self.places
        cdef size_t capacity = self.capacity, i
        self.places = <Route *>calloc(2 * capacity, sizeof(Route))
        if self.places == NULL:
            self.places = old
            raise MemoryError
        self.capacity = 2 * capacity
        for i in range(capacity):
            if old[i].engine != NULL:
                self.places[self.place_of(old[i].cid)] = old[i]
        free(old)
        return 0


@cython.final
cdef class Pump:
    """The datagrams of one UDP socket, which must not block."""

    SENT_ALL = ALL_SENT
    MORE = MORE_TO_SEND
    FULL = SOCKET_FULL
    LIMIT = KEY_USED_UP

    def __cinit__(self, sock):
        self.sock = sock
        self.fd = sock.fileno()
        self.incoming = ReceiveBatch(BUFFERS)
        self.outgoing = SendBatch()
        self.routes = Routes()
        self.owners = {}
        self.others = []

    def add_route(self, bytes cid, PacketEngine engine not None):
        """Bring packets for ``cid`` to ``engine``."""
        cdef uint64_t key
        if PyBytes_GET_SIZE(cid) != LOCAL_CID_SIZE:
            return
        memcpy(&key, PyBytes_AS_STRING(cid), LOCAL_CID_SIZE)
        self.routes.put(key, <void *>engine)
        self.owners[cid] = engine

    def remove_route(self, bytes cid):
        """Forget a connection ID."""
        cdef uint64_t key
        if self.owners.pop(cid, None) is not None:
            memcpy(&key, PyBytes_AS_STRING(cid), LOCAL_CID_SIZE)
            self.routes.drop(key)

    def receive(self):
        """Take in what waits in the socket, and let engines answer.

        Returns the engines that got something, and datagrams that belong to none of them with their addresses; when
        both are empty, the socket may have an error to tell of.
        """
        cdef list touched = []
        cdef void *each
        with nogil:
            self.rounds(clock())
        each = self.first_touched
        self.first_touched = NULL
        while each != NULL:
            (<PacketEngine>each).touched = False
            (<PacketEngine>each).report()
            touched.append(<PacketEngine>each)
            each = (<PacketEngine>each).next_touched
        others, self.others = self.others, []
        return touched, others

    def send(self, PacketEngine engine not None):
        """Send what ``engine`` has to send now; returns SENT_ALL, MORE, FULL or LIMIT."""
        cdef int result
        with nogil:
            result = self.flush(engine, clock())
        return result

    def resume(self):
        """The socket can be written to again: send the train that was kept. False if the socket is full still."""
        cdef bint done
        with nogil:
            done = self.flush_held()
        return done

    cdef int rounds(self, int64_t now) except -1 nogil:
        cdef int i, got, _
        cdef void *each
        for _ in range(_ROUNDS):
            got = self.incoming.receive(self.fd)
            if got <= 0:
                return 0
            for i in range(got):
                self.take(&self.incoming.received[i], now)
            now = clock()
            each = self.first_touched
            while each != NULL:
                (<PacketEngine>each).drain()
                if (<PacketEngine>each).may_answer():
                    self.flush(<PacketEngine>each, now)
                each = (<PacketEngine>each).next_touched
            if got < self.incoming.count:
                return 0
        return 0

    cdef int take(self, const Received *received, int64_t now) except -1 nogil:
        """Bring runs of datagrams for one connection ID to its engine, and leave others for Python."""
        cdef size_t at = 0, start = 0, size = received.size, segment = received.segment
        cdef uint64_t cid
        cdef void *engine = NULL
        cdef void *next_engine
        if received.truncated or segment == 0:
            return 0
        while at < size:
            next_engine = NULL
            if received.data[at] < 0x80 and min(segment, size - at) > LOCAL_CID_SIZE:
                memcpy(&cid, received.data + at + 1, LOCAL_CID_SIZE)
                next_engine = self.routes.find(cid)
            if next_engine != engine and at > start:
                self.hand_on(engine, received, start, at - start, now)
                start = at
            engine = next_engine
            at += segment
        self.hand_on(engine, received, start, size - start, now)
        return 0

    cdef int hand_on(
        self, void *engine, const Received *received, size_t start, size_t size, int64_t now
    ) except -1 nogil:
        cdef size_t count
        if engine == NULL:
            with gil:
                self.leave(received, start, size)
            return 0
        if same_address(received.address, &(<PacketEngine>engine).peer):
            count = (<PacketEngine>engine).take_in(received.data + start, size, received.segment, received.ecn, now)
        elif (<PacketEngine>engine).peer_is_fixed:
            return 0  # a client knows one address of its server (RFC 9000, section 9)
        else:
            count = (<PacketEngine>engine).take_in_elsewhere(
                received.data + start, size, received.segment, received.ecn, received.address, now
            )
        if count:
            if not (<PacketEngine>engine).touched:
                (<PacketEngine>engine).touched = True
                (<PacketEngine>engine).next_touched = self.first_touched
                self.first_touched = engine
        return 0

    cdef int leave(self, const Received *received, size_t start, size_t size) except -1:
        cdef size_t at = start, length
        address = unpack_address(received.address) if received.address_size else None
        while at < start + size:
            length = min(received.segment, start + size - at)
            self.others.append((PyBytes_FromStringAndSize(<char *>received.data + at, <Py_ssize_t>length), address))
            at += length
        return 0

    cdef int flush(self, PacketEngine engine, int64_t now) except -1 nogil:
        cdef int _, code
        cdef size_t size
        if not self.flush_held():
            return SOCKET_FULL
        for _ in range(_TRAINS):
            if engine.recovery.next_number() >= engine.packets_max:
                return KEY_USED_UP
            size = engine.build_into(self.outgoing.space(), now)
            if size == 0:
                return ALL_SENT
            self.outgoing.mark = engine.mark
            code = -self.outgoing.flush(
                self.fd, <sockaddr *>&engine.peer, engine.peer_size, engine.segment, size
            )
            if code == EAGAIN or code == ENOBUFS:
                with gil:
                    self.held = engine
                self.held_size = size
                self.held_peer = engine.peer
                self.held_peer_size = engine.peer_size
                self.held_segment = engine.segment
                return SOCKET_FULL
            if code == EMSGSIZE:
                engine.refused(now)
            # With any other error the train is lost, as on a full road; recovery finds out.
        return MORE_TO_SEND

    cdef bint flush_held(self) noexcept nogil:
        cdef int code
        if self.held_size == 0:
            return True
        code = -self.outgoing.flush(
            self.fd, <sockaddr *>&self.held_peer, self.held_peer_size, self.held_segment, self.held_size
        )
        if code == EAGAIN or code == ENOBUFS:
            return False
        self.held_size = 0
        return True
