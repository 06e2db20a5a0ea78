# cython: language_level=3, auto_pickle=False
"""One socket's datagrams, moved between the kernel and the engines behind it without the GIL.

Rules: a call takes in a few batches, and after each one every engine that got something sends what is due, once: its
acknowledgement, and whatever the peer's has made possible. What belongs to no engine is left for Python. Nothing waits
here. A train that a full socket does not take is kept, and nothing is sent before it. Times are microseconds on the
monotonic clock.

A pump may have a thread, which stands in for the event loop when that is late. Whoever touches an engine of the pump
then holds the pump's lock, and the thread rings a bell when the event loop has something to collect.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EMSGSIZE, ENOBUFS
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from spaceblock.quic.native.engine cimport LOCAL_CID_SIZE
from spaceblock.quic.native.probing cimport same_address
from spaceblock.quic.native.streams cimport ReceiveStream
from spaceblock.quic.native.udp cimport sockaddr, unpack_sender

cimport cython

cdef extern from "<time.h>" nogil:
    struct timespec:
        int64_t tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC
    int clock_gettime(int clock, timespec *out)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    short POLLIN, POLLOUT, POLLERR
    int ppoll(pollfd *fds, unsigned long count, const timespec *timeout, const void *mask)

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd_write(int fd, uint64_t value)
    int eventfd_read(int fd, uint64_t *value)

BUFFERS = 4
"""Receive buffers, of up to 64 KiB each, that are taken in before the engines answer: more would leave the cache."""

ROUNDS = 16
"""Times that this is done at most before the event loop gets its turn: about 4 MiB."""

TURN = 4_000
"""Microseconds after which it gets its turn in any case."""

GRACE = 2_000
"""Microseconds that an event loop has to come for what arrived, before a thread stands in for it."""

ANSWER_SIZE = 384 * 1024
"""Bytes that come for an engine before it answers while more waits in the socket: packets of many senders come mixed,
and an acknowledgement of each few of them would cost as much as they do."""

TRAINS = 20
"""Trains of one engine that are sent before others get their turn: the mebibyte that a turn of credit is, and what the
packets add to that."""

cdef enum:
    OTHER_COST = 512  # bytes that a datagram costs besides its own, about as many as in the kernel

cdef enum Sent:
    ALL_SENT  # nothing is left that may be sent now
    MORE_TO_SEND  # sending stopped only to give others their turn
    SOCKET_FULL
    KEY_USED_UP  # the key has sealed as many packets as it may

cdef int64_t NEVER = 2**63 - 1
cdef int _ROUNDS = ROUNDS
cdef int64_t _TURN = TURN
cdef int _TRAINS = TRAINS
cdef size_t _ANSWER_SIZE = ANSWER_SIZE
cdef int64_t _GRACE = GRACE


cdef int64_t clock() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return now.tv_sec * 1_000_000 + now.tv_nsec // 1_000


cdef void wait_for(pollfd *fds, unsigned long count, int64_t microseconds) noexcept nogil:
    """Wait until one of the files is ready, or the time is over; what there is of the first one is read."""
    cdef timespec timeout
    cdef uint64_t alarms
    cdef unsigned long i
    for i in range(count):
        fds[i].revents = 0
    timeout.tv_sec = microseconds // 1_000_000
    timeout.tv_nsec = <long>(microseconds % 1_000_000) * 1_000
    ppoll(fds, count, NULL if microseconds == NEVER else &timeout, NULL)
    if fds[0].revents:
        eventfd_read(fds[0].fd, &alarms)


cdef void unlink(void **link, void *engine, size_t next) noexcept nogil:
    """Take an engine out of a list, if it is there; each in the list knows the one behind it, at byte ``next``."""
    while link[0] != NULL and link[0] != engine:
        link = <void **>(<char *>link[0] + next)
    if link[0] != NULL:
        link[0] = (<void **>(<char *>engine + next))[0]


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

    def __cinit__(self, sock, uint64_t receive_buffer=4 * 1024 * 1024):
        self.sock = sock
        self.budget = Budget(receive_buffer)
        self.fd = sock.fileno()
        self.incoming = ReceiveBatch(BUFFERS)
        self.outgoing = SendBatch()
        self.routes = Routes()
        self.owners = {}
        self.engines = set()
        self.others = []
        self.lock = Lock()
        self.bell = self.alarm = -1

    def add_route(self, bytes cid, PacketEngine engine not None):
        """Bring packets for ``cid`` to ``engine``."""
        cdef uint64_t key
        if PyBytes_GET_SIZE(cid) != LOCAL_CID_SIZE:
            return
        memcpy(&key, PyBytes_AS_STRING(cid), LOCAL_CID_SIZE)
        with self.lock:
            self.routes.put(key, <void *>engine)
            self.owners[cid] = engine
            self.engines.add(engine)
            engine.share_credit(self.budget)

    def remove_route(self, bytes cid):
        """Forget a connection ID."""
        cdef uint64_t key
        with self.lock:
            if self.owners.pop(cid, None) is not None:
                memcpy(&key, PyBytes_AS_STRING(cid), LOCAL_CID_SIZE)
                self.routes.drop(key)

    def attach(self, sock):
        """Go on with another socket, while no thread may :meth:`serve`; a train that waited for the old one is lost."""
        with self.lock:
            self.sock = sock
            self.fd = sock.fileno()
            self.held_size = 0
            self.outgoing.discard()

    def forget(self, PacketEngine engine not None):
        """Forget an engine that has no route any more."""
        cdef char *start = <char *><void *>engine
        with self.lock:
            unlink(&self.first_touched, start, <char *>&engine.next_touched - start)
            unlink(&self.first_put_off, start, <char *>&engine.next_put_off - start)
            engine.touched = engine.put_off = False
            self.engines.discard(engine)
            engine.leave_credit()

    def receive(self):
        """Take in what waits in the socket, and let engines answer.

        What intakes can settle is settled in between, while it is in the cache. Returns the engines that have something
        for Python, and datagrams that belong to no engine with their addresses; None if what came is dealt with. When
        both are empty, the socket may have an error to tell of.
        """
        cdef bint is_more = True
        cdef int64_t until = clock() + _TURN
        cdef int left = _ROUNDS
        cdef list laden = None
        with self.lock:
            self.is_attended = True
        while is_more and left:
            left = left - 1 if clock() < until else 0
            with self.lock:
                with nogil:
                    is_more = self.round(left == 0)
                laden = self.laden()
            if laden is not None:
                for intake in laden:
                    intake.settle()
        with self.lock:
            return self.take_left()

    @property
    def turn_wait(self):
        """Seconds after which :meth:`take_turns` is to be called, unless something comes before; None: not at all."""
        cdef double seconds
        if not self.budget.waiting:
            return None
        with self.lock:
            seconds = max(self.budget.next_lapse() - clock(), <int64_t>0) / 1e6 if self.budget.holding else 0.0
        return seconds

    def take_turns(self):
        """Grant credit to those who wait for others that do not use theirs; returns the engines that have to send."""
        with self.lock:
            with nogil:
                self.give_turns(clock())
            return self.take_touched()

    def send(self, PacketEngine engine not None):
        """Send what ``engine`` has to send now; returns SENT_ALL, MORE, FULL or LIMIT."""
        cdef int result
        with self.lock, nogil:
            result = self.flush(engine, clock())
        return result

    # With a thread.

    def begin(self, int bell, int alarm):
        """A thread is about to :meth:`serve`.

        ``bell`` and ``alarm`` are eventfds that do not block; they stay open until the thread has ended.
        """
        self.bell, self.alarm = bell, alarm
        self.is_stopping = self.rung = False

    def serve(self):
        """Stand in for an event loop that is late, until :meth:`stop`: the body of a thread.

        The bell is rung when :meth:`collect` is due, and once more when an error ended this, which that then raises.
        """
        try:
            with nogil:
                self.serve_until_stopped()
        except BaseException as error:
            self.failure = error
            eventfd_write(self.bell, 1)

    def stop(self):
        """Have :meth:`serve` return soon."""
        with self.lock:
            self.is_stopping = True
            eventfd_write(self.alarm, 1)

    def collect(self):
        """What the thread has left for the event loop, which the bell called: see :meth:`receive`."""
        cdef uint64_t rings
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        with self.lock:
            eventfd_read(self.bell, &rings)
            self.rung = False
            self.is_attended = True
            return self.take_left()

    def leave(self):
        """The event loop has done what :meth:`receive` or :meth:`collect` had for it, and turns to others."""
        with self.lock:
            self.is_attended = False
            self.turns += 1

    cdef list laden(self):
        """The intakes that can settle something; None where there are none."""
        cdef list found = None
        cdef void *engine = self.first_touched
        cdef void *stream
        while engine != NULL:
            stream = (<PacketEngine>engine)._first_news
            while stream != NULL:
                if (<ReceiveStream>stream)._intake != NULL and (<ReceiveStream>stream)._intake.laden:
                    found = [] if found is None else found
                    found.append((<ReceiveStream>stream).intake)
                stream = (<ReceiveStream>stream).next_news
            engine = (<PacketEngine>engine).next_touched
        return found

    cdef object take_left(self):
        cdef PacketEngine each
        cdef int64_t now = clock()
        cdef list touched = self.take_touched()
        others, self.others = self.others, []
        self.has_others = False
        self.others_size = 0
        engines = [each for each in touched if each.needs_python(now)]
        return None if touched and not engines and not others else (engines, others)

    cdef list take_touched(self):
        """The engines that got something; what was acknowledged is let go of."""
        cdef list touched = []
        cdef void *each = self.first_touched
        self.first_touched = NULL
        while each != NULL:
            (<PacketEngine>each).touched = False
            (<PacketEngine>each).report()
            touched.append(<PacketEngine>each)
            each = (<PacketEngine>each).next_touched
        return touched

    cdef int serve_until_stopped(self) except -1 nogil:
        cdef pollfd[2] fds
        cdef int64_t pause
        cdef uint64_t turns
        cdef bint is_late = False
        fds[0].fd = self.alarm
        fds[0].events = POLLIN
        fds[1].fd = self.fd
        while True:
            self.lock.take()
            fds[1].events = POLLIN | (POLLOUT if self.held_size else 0)
            pause = self.pause(clock())
            turns = self.turns
            self.lock.give()
            wait_for(fds, 2, pause)
            if fds[0].revents == 0 and fds[1].revents and not (is_late and fds[1].revents & POLLIN):
                # The event loop has its chance: it does this with fewer switches between threads.
                wait_for(fds, 1, _GRACE)
            self.lock.take()
            try:
                if self.is_stopping:
                    return 0
                is_late = self.turns == turns and not self.is_attended and fds[1].revents & (POLLIN | POLLOUT)
                if is_late and fds[1].revents & POLLIN:
                    self.rounds()
                    if (self.first_touched != NULL or self.has_others) and not self.rung:
                        self.rung = True
                        eventfd_write(self.bell, 1)
                self.send_put_off(clock(), fds[1].revents & POLLOUT)
            finally:
                self.lock.give()
            self.lock.give_way()

    cdef int64_t pause(self, int64_t now) noexcept nogil:
        """Microseconds until the first of those that send later may."""
        cdef int64_t at = NEVER
        cdef void *each = self.first_put_off
        while each != NULL:
            at = min(at, (<PacketEngine>each).send_at)
            each = (<PacketEngine>each).next_put_off
        return NEVER if at == NEVER else max(at - now, 0)

    cdef int send_put_off(self, int64_t now, bint has_room) except -1 nogil:
        """Let those send whose time has come."""
        cdef void *each = self.first_put_off
        cdef void *following
        self.first_put_off = NULL
        while each != NULL:
            following = (<PacketEngine>each).next_put_off
            (<PacketEngine>each).put_off = False
            if (<PacketEngine>each).send_at <= now or has_room:
                if (<PacketEngine>each).may_answer():
                    self.send_soon(each, now)
            else:
                self.put_off(each, (<PacketEngine>each).send_at)
            each = following
        return 0

    cdef int send_soon(self, void *engine, int64_t now) except -1 nogil:
        """Send what can be sent now, and leave the rest for later."""
        cdef int result = self.flush(<PacketEngine>engine, now)
        if result == MORE_TO_SEND:
            self.put_off(engine, now)
        elif result == SOCKET_FULL:
            self.put_off(engine, NEVER)
        elif result == ALL_SENT and (<PacketEngine>engine).has_to_send():
            # Its pace or its window is in the way; a window opens with an acknowledgement.
            if (<PacketEngine>engine).recovery.send_time() != NEVER:
                self.put_off(engine, (<PacketEngine>engine).recovery.send_time())
        return result

    cdef void put_off(self, void *engine, int64_t at) noexcept nogil:
        if not (<PacketEngine>engine).put_off:
            (<PacketEngine>engine).put_off = True
            (<PacketEngine>engine).next_put_off = self.first_put_off
            self.first_put_off = engine
            (<PacketEngine>engine).send_at = at
        elif at < (<PacketEngine>engine).send_at:
            (<PacketEngine>engine).send_at = at

    def resume(self):
        """The socket can be written to again: send the train that was kept. False if the socket is full still."""
        cdef bint done
        with self.lock, nogil:
            done = self.flush_held()
        return done

    cdef int rounds(self) except -1 nogil:
        """What :meth:`receive` does, for the thread; whoever waits for the lock is let through."""
        cdef int left = _ROUNDS
        while left:
            left -= 1
            if not self.round(left == 0):
                return 0
            self.lock.give()
            self.lock.give_way()
            self.lock.take()
        return 0

    cdef bint round(self, bint is_last) except -1 nogil:
        """Take in a few batches and answer them; returns whether there may be more."""
        cdef int i, got = self.incoming.receive(self.fd)
        # Not the time of the first round: what comes now may answer what was sent after that.
        cdef int64_t now = clock()
        cdef bint is_more = got == self.incoming.count
        for i in range(got):
            self.take(&self.incoming.received[i], now)
        self.answer(is_last or not is_more)
        return is_more

    cdef int answer(self, bint is_last) except -1 nogil:
        """Let the engines that got something hand it on, and send what is due; those with little do so at the last."""
        cdef int64_t now = clock()
        cdef void *each = self.first_touched
        while each != NULL:
            (<PacketEngine>each).drain()
            each = (<PacketEngine>each).next_touched
        self.give_turns(now)
        each = self.first_touched
        while each != NULL:
            if (is_last or (<PacketEngine>each).unanswered >= _ANSWER_SIZE) and (<PacketEngine>each).may_answer():
                (<PacketEngine>each).unanswered = 0
                if self.is_attended:
                    self.flush(<PacketEngine>each, now)
                else:
                    self.send_soon(each, now)
            each = (<PacketEngine>each).next_touched
        return 0

    cdef void give_turns(self, int64_t now) noexcept nogil:
        """Let those have credit who waited for it, as long as there is some to be had."""
        cdef void *stream
        while True:
            stream = self.budget.next_turn(now)
            if stream == NULL:
                return
            (<PacketEngine>(<ReceiveStream>stream).engine).take_turn(<ReceiveStream>stream, now)
            self.touch((<ReceiveStream>stream).engine)

    cdef void touch(self, void *engine) noexcept nogil:
        if not (<PacketEngine>engine).touched:
            (<PacketEngine>engine).touched = True
            (<PacketEngine>engine).next_touched = self.first_touched
            self.first_touched = engine

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
                self.put_by(received, start, size)
            return 0
        if same_address(received.address, &(<PacketEngine>engine).peer):
            count = (<PacketEngine>engine).take_in(received.data + start, size, received.segment, received.ecn, now)
        elif (<PacketEngine>engine).peer_is_fixed:
            return 0  # a client knows one address of its server (RFC 9000, section 9)
        else:
            count = (<PacketEngine>engine).take_in_elsewhere(received.data + start, size, received, now)
        if count:
            (<PacketEngine>engine).unanswered = (<PacketEngine>engine).unanswered + size
            self.touch(engine)
        return 0

    cdef int put_by(self, const Received *received, size_t start, size_t size) except -1:
        cdef size_t at = start, length
        if self.others_size >= self.budget.size:
            return 0  # lost, as where the socket is full: a thread does not have more wait than that would
        self.has_others = True
        address = unpack_sender(received) if received.address_size else None
        while at < start + size:
            length = min(received.segment, start + size - at)
            self.others.append((PyBytes_FromStringAndSize(<char *>received.data + at, <Py_ssize_t>length), address))
            self.others_size += length + OTHER_COST
            at += length
        return 0

    cdef int flush(self, PacketEngine engine, int64_t now) except -1 nogil:
        cdef int result = self.flush_trains(engine, now)
        engine.cut_off = result != ALL_SENT
        if result == SOCKET_FULL:
            # Its socket says when to go on. A pace that allows it already would have its timer fire all the time.
            engine.recovery.wait_until = NEVER
        return result

    cdef int flush_trains(self, PacketEngine engine, int64_t now) except -1 nogil:
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
            self.outgoing.local_size = engine.local_size
            memcpy(self.outgoing.local, engine.local, sizeof(engine.local))
            code = -self.outgoing.flush(
                self.fd, <sockaddr *>&engine.peer, engine.peer_size, engine.segment, size
            )
            if code == EAGAIN or code == ENOBUFS:
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
