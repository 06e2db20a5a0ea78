"""What the compiled modules of the core share: the wire's numbers, and the checks of what enters from Python."""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyObject_CheckBuffer, PyObject_GetBuffer
from cpython.number cimport PyNumber_Index
from libc.stdint cimport uint64_t

cdef enum:
    _BLOCK_TYPE = 0x20
    _HEADER_ROOM = 32
    _MESSAGE_DATA_MAX = 1_048_576

cdef inline int acquire(object data, Py_buffer* view, bint writable) except -1:
    # The caller releases the view. NumPy answers with ValueError where others raise BufferError.
    if not PyObject_CheckBuffer(data):
        raise TypeError(f"a bytes-like object is required, not {type(data).__name__!r}")
    try:
        PyObject_GetBuffer(data, view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
    except ValueError as error:
        raise BufferError(str(error)) from None
    return 0

cdef inline uint64_t bounded(object value, str name, uint64_t low, uint64_t high) except? 0xdead:
    cdef uint64_t number = 0
    cdef bint inside
    try:
        number = PyNumber_Index(value)
        inside = low <= number <= high
    except OverflowError:
        inside = False
    if not inside:
        raise ValueError(f"{name} is {value}, outside {low} to {high}; pass a number within")
    return number
