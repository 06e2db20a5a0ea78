# cython: language_level=3, auto_pickle=False
"""A lock between the event loop and the thread that moves an endpoint's packets.

Rules: whoever holds it may take it again. Nobody waits for it with the GIL held, so that its holder may wait for the
GIL.
"""

cimport cython

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutexattr_t:
        pass
    int PTHREAD_MUTEX_RECURSIVE
    int pthread_mutexattr_init(pthread_mutexattr_t *attributes)
    int pthread_mutexattr_settype(pthread_mutexattr_t *attributes, int kind)
    int pthread_mutexattr_destroy(pthread_mutexattr_t *attributes)
    int pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attributes)
    int pthread_mutex_destroy(pthread_mutex_t *mutex)
    int pthread_mutex_lock(pthread_mutex_t *mutex)
    int pthread_mutex_trylock(pthread_mutex_t *mutex)
    int pthread_mutex_unlock(pthread_mutex_t *mutex)

cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from * nogil:
    """
    #define atomic_increase(at) __atomic_add_fetch((at), 1, __ATOMIC_SEQ_CST)
    #define atomic_decrease(at) __atomic_sub_fetch((at), 1, __ATOMIC_SEQ_CST)
    #define atomic_value(at) __atomic_load_n((at), __ATOMIC_SEQ_CST)
    """
    int atomic_increase(int *at)
    int atomic_decrease(int *at)
    int atomic_value(int *at)

cdef enum:
    _TURNS = 1_000  # times that one gives way before it goes on all the same


@cython.final
cdef class Lock:
    """Recursive; ``with lock:`` from Python, ``take()`` and ``give()`` without the GIL."""

    def __cinit__(self):
        cdef pthread_mutexattr_t attributes
        if pthread_mutexattr_init(&attributes) != 0:
            raise MemoryError
        pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE)
        pthread_mutex_init(&self.mutex, &attributes)
        pthread_mutexattr_destroy(&attributes)

    def __dealloc__(self):
        pthread_mutex_destroy(&self.mutex)

    def __enter__(self):
        if pthread_mutex_trylock(&self.mutex) != 0:
            with nogil:
                self.take()
        return self

    def __exit__(self, kind, error, trace):
        pthread_mutex_unlock(&self.mutex)

    cdef void take(self) noexcept nogil:
        atomic_increase(&self.wanted)
        pthread_mutex_lock(&self.mutex)
        atomic_decrease(&self.wanted)

    cdef void give(self) noexcept nogil:
        pthread_mutex_unlock(&self.mutex)

    cdef void give_way(self) noexcept nogil:
        """Let those go first who waited while one held it: the kernel would give it to whoever is quicker."""
        cdef int _
        for _ in range(_TURNS):
            if atomic_value(&self.wanted) == 0:
                return
            sched_yield()
