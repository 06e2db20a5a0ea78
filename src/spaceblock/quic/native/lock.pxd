"""A lock that is taken with and without the GIL."""

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

cdef class Lock:
    cdef pthread_mutex_t mutex
    cdef int wanted  # threads that wait for it; changed atomically
    cdef void take(self) noexcept nogil
    cdef void give(self) noexcept nogil
    cdef void give_way(self) noexcept nogil
