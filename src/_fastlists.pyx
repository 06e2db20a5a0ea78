# cython: language_level=3, boundscheck=False, wraparound=False, auto_pickle=False, autotestdict=False
"""Many short messages or records at once, as a transfer of many small items has them.

Its specification by example is ``spaceblock/_pylists.py``, its contract ``spaceblock/_fastlists.pyi``.
"""

from cpython.buffer cimport PyBuffer_Release
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from spaceblock._fastblock cimport acquire, bounded
from spaceblock.varint cimport VARINT_MAX, read_varint, varint_size, write_varint

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        int (*tp_descr_set)(object descriptor, object instance, object value) except -1
    PyTypeObject *Py_TYPE(object each)

cdef enum:
    _DIGEST_SIZE = 32
    # A type, a length, an item, a size, and a digest.
    _DIGEST_ROOM = 4 * 8 + _DIGEST_SIZE


def frame_digests(kind, digests):
    cdef uint64_t message_type = bounded(kind, "kind", 0, VARINT_MAX)
    cdef uint64_t item, size, length
    cdef list kept = list(digests)
    cdef bytes digest
    cdef bytes out = PyBytes_FromStringAndSize(NULL, len(kept) * _DIGEST_ROOM)
    cdef uint8_t *start = <uint8_t *>PyBytes_AS_STRING(out)
    cdef uint8_t *at = start
    for number, of, digest in kept:
        item = bounded(number, "item", 0, VARINT_MAX)
        size = bounded(of, "size", 0, VARINT_MAX)
        if len(digest) != _DIGEST_SIZE:
            raise ValueError(f"it holds {len(digest)} bytes where {_DIGEST_SIZE} belong")
        length = varint_size(item) + varint_size(size) + _DIGEST_SIZE
        at += write_varint(at, message_type)
        at += write_varint(at, length)
        at += write_varint(at, item)
        at += write_varint(at, size)
        memcpy(at, PyBytes_AS_STRING(digest), _DIGEST_SIZE)
        at += _DIGEST_SIZE
    return out[:at - start]


def parse_digests(kind, data, pos=0):
    cdef uint64_t message_type = bounded(kind, "kind", 0, VARINT_MAX)
    cdef uint64_t found, length, item, size
    cdef Py_buffer view
    cdef const uint8_t *begin
    cdef const uint8_t *at
    cdef const uint8_t *end
    cdef const uint8_t *fields
    cdef list digests = []
    acquire(data, &view, False)
    try:
        begin = at = <const uint8_t *>view.buf
        end = begin + view.len
        begin += bounded(pos, "pos", 0, <uint64_t>view.len)
        while True:
            at = begin
            if not read_varint(&at, end, &found) or found != message_type or not read_varint(&at, end, &length):
                break
            if length > <uint64_t>(end - at):
                break
            fields = at + length
            if not read_varint(&at, fields, &item) or not read_varint(&at, fields, &size):
                break
            if fields - at != _DIGEST_SIZE:
                break
            digests.append((item, size, PyBytes_FromStringAndSize(<const char *>at, _DIGEST_SIZE)))
            begin = fields
        return digests, begin - <const uint8_t *>view.buf
    finally:
        PyBuffer_Release(&view)


def make_records(cls, rows):
    cdef list slots = [getattr(cls, name) for name in cls.__slots__]
    cdef Py_ssize_t width = len(slots), i
    cdef list made = []
    cdef tuple row
    cdef object new = cls.__new__
    for slot in slots:
        if Py_TYPE(slot).tp_descr_set == NULL:
            raise TypeError(f"{cls.__name__} has no slots that can be filled; give a dataclass with slots")
    for row in rows:
        if len(row) != width:
            raise TypeError(f"{cls.__name__} has {width} fields and not {len(row)}; give a value for each")
        record = new(cls)
        for i in range(width):
            Py_TYPE(slots[i]).tp_descr_set(slots[i], record, row[i])
        made.append(record)
    return made
